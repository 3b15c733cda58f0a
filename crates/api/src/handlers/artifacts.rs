//! Artifacts in the list of images, and what is known around an image's name.

use hull_api_types::image::{
    Descriptor, ImageInspect, ImageSummary, ManifestSize, ManifestSummary,
};
use hull_engine::images::{Artifact, Kept};
use hull_engine::{Engine, Filters};
use hull_image::content::Pointer;
use hull_model::{ErrorKind, Reference};

use crate::body;
use crate::error::ApiResult;
use crate::translate::{image, time};

/// OCI manifest.
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Marks documents about an image, such as provenance.
const ABOUT: &str = "vnd.docker.reference.type";

/// `GET /images/{name}/json`
pub(super) fn inspect(engine: &Engine, name: &str) -> ApiResult {
    let mut reply = match engine.image(name) {
        Ok(image) => {
            let mut reply = image::inspect(&image);
            let places = engine.image_places(&image);
            reply.graph_driver.data = Some(places).filter(|data| !data.is_empty());
            reply.descriptor = image.record.manifest.map(|digest| Descriptor {
                media_type: OCI_MANIFEST.into(),
                digest: digest.to_string(),
                ..Descriptor::default()
            });
            reply
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(error.into()),
        Err(error) => match engine.artifact(name) {
            Some(artifact) => of_artifact(&artifact),
            None => return Err(error.into()),
        },
    };
    if let Some(kept) = engine.kept(name) {
        around(engine, &mut reply, kept);
    }
    body::reply(&reply)
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn names(artifact: &Artifact, by_digest: bool) -> Vec<String> {
    artifact
        .names
        .iter()
        .filter(|name| name.digest.is_some() == by_digest)
        .map(Reference::familiar)
        .collect()
}

fn of_artifact(artifact: &Artifact) -> ImageInspect {
    ImageInspect {
        id: artifact.document.digest.to_string(),
        repo_tags: names(artifact, false),
        repo_digests: names(artifact, true),
        comment: artifact.kind.clone(),
        created: artifact
            .annotations
            .get("org.opencontainers.image.created")
            .cloned()
            .unwrap_or_default(),
        size: size(artifact.size),
        ..ImageInspect::default()
    }
}

fn descriptor(pointer: &Pointer) -> Descriptor {
    Descriptor {
        media_type: pointer.media_type.clone(),
        digest: pointer.digest.to_string(),
        size: size(pointer.size),
        ..Descriptor::default()
    }
}

/// Adds what was kept.
fn around(engine: &Engine, reply: &mut ImageInspect, kept: Kept) {
    reply.descriptor = Some(descriptor(&kept.document));
    reply.manifests = kept
        .manifests
        .into_iter()
        .map(|(entry, available)| {
            let about = entry.annotations.contains_key(ABOUT);
            let known = entry.platform.as_ref().is_some_and(|p| p.os != "unknown");
            let content = if available {
                engine.kept_size(&entry)
            } else {
                0
            };
            ManifestSummary {
                id: entry.digest.to_string(),
                available,
                size: ManifestSize {
                    total: size(content),
                    content: size(content),
                },
                kind: match (about, known) {
                    (true, _) => "attestation",
                    (false, true) => "image",
                    (false, false) => "unknown",
                }
                .into(),
                descriptor: super::distribution::wire(&entry),
                ..ManifestSummary::default()
            }
        })
        .collect();
    reply.referrers = kept.referrers;
}

/// Lines of the list that are no images.
pub(super) fn listed(engine: &Engine, filters: &Filters) -> Vec<ImageSummary> {
    // Whoever asks for more than a name asks for images.
    let others = ["before", "since", "until", "label", "label!", "dangling"];
    if others.iter().any(|name| !filters.values(name).is_empty()) {
        return Vec::new();
    }
    engine
        .artifacts()
        .into_iter()
        .filter_map(|mut artifact| {
            artifact.names.retain(|name| image::is_named(name, filters));
            (!artifact.names.is_empty()).then_some(artifact)
        })
        .map(|artifact| ImageSummary {
            containers: 0,
            created: time::unix_seconds(&artifact.stored),
            id: artifact.document.digest.to_string(),
            repo_tags: names(&artifact, false),
            repo_digests: names(&artifact, true),
            shared_size: -1,
            size: size(artifact.size),
            ..ImageSummary::default()
        })
        .collect()
}
