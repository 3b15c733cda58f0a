//! The list of images, and the manifests and layers behind each of them.
use std::collections::{BTreeMap, HashSet};

use axum::extract::State;
use axum::http::Uri;
use hull_api_types::image::{
    Descriptor, ImageSummary, LayerSummary, ManifestImage, ManifestImageSize, ManifestSize,
    ManifestSummary, Platform,
};
use hull_engine::Engine;
use hull_engine::images::{Kept, StoredImage};
use hull_model::Digest;

use super::{Eng, artifacts, distribution};
use crate::body;
use crate::error::ApiResult;
use crate::params::Params;
use crate::translate::{image, time};

const FILTERS: [&str; 7] = [
    "before",
    "dangling",
    "label",
    "label!",
    "reference",
    "since",
    "until",
];
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// `GET /images/json`
pub(crate) async fn list(State(engine): Eng, uri: Uri) -> ApiResult {
    let params = Params::of(&uri);
    let mut filters = params.filters()?;
    if !params.get("filter").is_empty() {
        filters.add("reference", params.get("filter"));
    }
    filters.allow_only(&FILTERS)?;
    let bound = |name: &str| -> ApiResult<Option<i64>> {
        let mut bound = None;
        for key in filters.values(name) {
            bound = Some(image::created(&engine.image(key)?));
        }
        Ok(bound)
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let mut until = None;
    for text in filters.values("until") {
        until = time::timestamp("until", text)?;
    }
    let dangling = filters.bool("dangling")?;
    let (all, manifests) = (params.flag("all"), params.flag("manifests"));
    let shared = params
        .flag("shared-size")
        .then(|| engine.image_disk_usage().shared_bytes);
    let used = users(&engine);
    let images = engine.images();
    let parents: HashSet<Digest> = images.iter().filter_map(|i| i.record.parent).collect();
    let mut list: Vec<ImageSummary> = images
        .into_iter()
        .filter(|image| {
            let created = image::created(image);
            let nameless = image.tags.is_empty() && image.digests.is_empty();
            // What only others were built upon is of no interest by itself.
            (all || !nameless || !parents.contains(&image.id()))
                && before.is_none_or(|t| created < t)
                && since.is_none_or(|t| created > t)
                && until.is_none_or(|t| created.saturating_mul(1_000_000_000) < t)
                && match dangling {
                    Some(true) => image.tags.is_empty(),
                    Some(false) => !nameless,
                    None => true,
                }
                && filters.match_labels(&image.config().config.labels)
        })
        .filter_map(|mut image| image::keep_named(&mut image, &filters).then_some(image))
        .map(|image| {
            let containers = used.get(&image.id()).map_or(&[][..], Vec::as_slice);
            let shared = shared
                .as_ref()
                .and_then(|all| all.get(&image.id()).copied());
            let mut line = image::summary(&image, Some(containers.len()), shared);
            if manifests {
                line.manifests = behind(&engine, &image, containers);
            }
            line
        })
        .collect();
    list.extend(artifacts::listed(&engine, &filters));
    list.sort_by_key(|image| std::cmp::Reverse(image.created));
    body::reply(&list)
}

/// Ids of containers by the image they need.
fn users(engine: &Engine) -> BTreeMap<Digest, Vec<String>> {
    let mut users: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (image, container) in engine.image_users() {
        users.entry(image).or_default().push(container);
    }
    users
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The manifests behind an image: its own, and the other entries of the index that it came with.
fn behind(engine: &Engine, image: &StoredImage, containers: &[String]) -> Vec<ManifestSummary> {
    let own = own(engine, image, containers);
    let names = image.tags.iter().chain(&image.digests);
    let kept = names
        .filter_map(|name| engine.kept(&name.to_string()))
        .find(|kept| !kept.manifests.is_empty());
    let Some(Kept { manifests, .. }) = kept else {
        return vec![own];
    };
    let mut own = Some(own);
    let mut list: Vec<ManifestSummary> = manifests
        .into_iter()
        .map(|(entry, here)| {
            if Some(entry.digest) == image.record.manifest
                && let Some(own) = own.take()
            {
                return own;
            }
            let descriptor = distribution::wire(&entry);
            let known = descriptor
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os != "unknown");
            let content = if here { engine.kept_size(&entry) } else { 0 };
            ManifestSummary {
                id: descriptor.digest.clone(),
                available: here,
                kind: if known { "image" } else { "attestation" }.into(),
                size: ManifestSize {
                    total: size(content),
                    content: size(content),
                },
                image_data: descriptor
                    .platform
                    .clone()
                    .filter(|_| known)
                    .map(|platform| ManifestImage {
                        platform,
                        ..ManifestImage::default()
                    }),
                descriptor,
            }
        })
        .collect();
    list.extend(own);
    list
}

fn own(engine: &Engine, image: &StoredImage, containers: &[String]) -> ManifestSummary {
    let config = image.config();
    let id = image.record.manifest.unwrap_or(image.id()).to_string();
    let platform = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone().unwrap_or_default(),
        ..Platform::default()
    };
    let layers = engine.image_layers(image);
    ManifestSummary {
        descriptor: Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: id.clone(),
            platform: Some(platform.clone()),
            ..Descriptor::default()
        },
        id,
        available: true,
        kind: "image".into(),
        size: ManifestSize {
            total: size(image.record.size),
            content: size(layers.iter().map(|layer| layer.packed.unwrap_or(0)).sum()),
        },
        image_data: Some(ManifestImage {
            platform,
            containers: containers.to_vec(),
            size: ManifestImageSize {
                unpacked: size(image.record.size),
            },
            layers: layers
                .iter()
                .map(|layer| LayerSummary {
                    diff_id: layer.diff_id.to_string(),
                    size: size(layer.bytes),
                })
                .collect(),
        }),
    }
}
