//! OCI image layout: `index.json` leads to manifests, perhaps over nested indexes, one for each
//! platform.

use std::collections::{BTreeMap, BTreeSet};

use hull_model::{Digest, Reference};
use serde::Deserialize;

use super::spool::Spool;
use super::{LoadError, Plan, PlannedConfig};
use crate::content::Pointer;
use crate::limits::{
    LimitError, MAX_CONFIG_BYTES, MAX_IMAGES, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES,
};

/// Name of the document.
pub(super) const INDEX: &str = "index.json";
const MANIFEST_LIMIT: (&str, u64) = ("MAX_MANIFEST_BYTES", MAX_MANIFEST_BYTES);
/// Full name, as containerd and Docker write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Tag or full name, as the specification has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks documents about an image, such as provenance.
const ABOUT_ANOTHER: &str = "vnd.docker.reference.type";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<PlatformDoc>,
}

#[derive(Debug, Clone, Deserialize)]
struct PlatformDoc {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl PlatformDoc {
    fn text(&self) -> String {
        match &self.variant {
            Some(variant) => format!("{}/{}/{variant}", self.os, self.architecture),
            None => format!("{}/{}", self.os, self.architecture),
        }
    }

    /// `wanted` is `os/architecture[/variant]`.
    fn fits(&self, wanted: &str) -> bool {
        let own = self.text();
        own == wanted
            || own
                .strip_prefix(wanted)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexDoc {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct ManifestDoc {
    config: Descriptor,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

/// The documents that the layout has under full names.
pub(super) fn named(spool: &Spool) -> Result<Vec<(Reference, Pointer)>, LoadError> {
    let bytes = spool.document(INDEX, INDEX, MANIFEST_LIMIT)?;
    let index: IndexDoc = parse(&bytes, INDEX)?;
    let mut found = Vec::new();
    for descriptor in index.manifests.unwrap_or_default() {
        if let Some(name) = name_of(&descriptor)? {
            let pointer = Pointer {
                digest: digest_of_descriptor(&descriptor)?,
                size: descriptor.size.unwrap_or_default(),
                media_type: descriptor.media_type,
            };
            found.push((name, pointer));
        }
        if found.len() > MAX_IMAGES {
            break;
        }
    }
    Ok(found)
}

/// The images that the layout holds for `platform` (`os/architecture[/variant]`), but for those
/// documents that are `others`.
pub(super) fn plans(
    spool: &Spool,
    platform: &str,
    others: &BTreeSet<Digest>,
) -> Result<Vec<Plan>, LoadError> {
    let bytes = spool.document(INDEX, INDEX, MANIFEST_LIMIT)?;
    let index: IndexDoc = parse(&bytes, INDEX)?;
    let mut found = index.manifests.unwrap_or_default();
    found.retain(|one| !digest_of_descriptor(one).is_ok_and(|digest| others.contains(&digest)));
    if found.len() > MAX_IMAGES {
        return Err(LimitError::Images {
            found: found.len(),
            limit: MAX_IMAGES,
        }
        .into());
    }
    let mut plans: Vec<(Digest, Plan)> = Vec::new();
    for (group, descriptors) in groups(found)? {
        for descriptor in choose(&descriptors, platform)? {
            let (digest, mut plan) = image(spool, descriptor, platform, 0)?;
            let name = group.clone();
            match plans.iter_mut().find(|(known, _)| *known == digest) {
                Some((_, known)) => known.names.extend(name),
                None => {
                    plan.names.extend(name);
                    plans.push((digest, plan));
                }
            }
        }
    }
    Ok(plans.into_iter().map(|(_, plan)| plan).collect())
}

/// A name, and the descriptors that carry it.
type Group = (Option<Reference>, Vec<Descriptor>);

/// Descriptors by the name that they carry; each nameless one is on its own unless the platforms
/// tell them apart.
fn groups(descriptors: Vec<Descriptor>) -> Result<Vec<Group>, LoadError> {
    let mut groups: Vec<Group> = Vec::new();
    for descriptor in descriptors {
        if is_about_another(&descriptor) {
            continue;
        }
        let name = name_of(&descriptor)?;
        let joins = groups
            .iter_mut()
            .find(|(known, members)| *known == name && members.iter().all(|m| m.platform.is_some()))
            .filter(|_| descriptor.platform.is_some());
        match joins {
            Some((_, members)) => members.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    Ok(groups)
}

fn is_about_another(descriptor: &Descriptor) -> bool {
    let annotations = descriptor.annotations.as_ref();
    annotations.is_some_and(|a| a.contains_key(ABOUT_ANOTHER))
        || descriptor
            .platform
            .as_ref()
            .is_some_and(|p| p.os == "unknown")
}

/// The name in the annotations; a bare tag names no repository and so gives no name.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, LoadError> {
    let annotations = descriptor.annotations.as_ref();
    let get = |key| annotations.and_then(|a| a.get(key));
    if let Some(name) = get(CONTAINERD_NAME) {
        return name.parse().map(Some).map_err(LoadError::Name);
    }
    match get(REF_NAME) {
        Some(name) if name.contains(['/', ':']) => Ok(name.parse().ok()),
        _ => Ok(None),
    }
}

/// One of several platforms, or all if nothing tells them apart.
fn choose<'a>(all: &'a [Descriptor], platform: &str) -> Result<Vec<&'a Descriptor>, LoadError> {
    if all.len() < 2 {
        return Ok(all.iter().collect());
    }
    let of = |d: &'a Descriptor| d.platform.as_ref();
    if let Some(fit) = all.iter().find(|d| of(d).is_some_and(|p| p.fits(platform))) {
        return Ok(vec![fit]);
    }
    if all.iter().all(|d| d.platform.is_none()) {
        return Ok(all.iter().collect());
    }
    let found: Vec<String> = all.iter().filter_map(|d| Some(of(d)?.text())).collect();
    Err(LoadError::Platform {
        wanted: platform.to_owned(),
        found: found.join(", "),
    })
}

/// Follows a descriptor to its manifest.
fn image(
    spool: &Spool,
    descriptor: &Descriptor,
    platform: &str,
    depth: usize,
) -> Result<(Digest, Plan), LoadError> {
    let name = blob(spool, descriptor)?;
    let bytes = spool.document(&name, "manifest", MANIFEST_LIMIT)?;
    let value: serde_json::Value = parse(&bytes, &name)?;
    if value.get("manifests").is_some() {
        if depth >= MAX_INDEX_DEPTH {
            return Err(LoadError::Corrupt(format!(
                "indexes are nested more than MAX_INDEX_DEPTH = {MAX_INDEX_DEPTH} deep"
            )));
        }
        let index: IndexDoc = parse(&bytes, &name)?;
        let mut inner = index.manifests.unwrap_or_default();
        inner.retain(|d| !is_about_another(d));
        let chosen = choose(&inner, platform)?;
        let first = chosen
            .first()
            .ok_or_else(|| LoadError::Corrupt(format!("index {name} is empty")))?;
        return image(spool, first, platform, depth + 1);
    }
    let manifest: ManifestDoc = parse(&bytes, &name)?;
    let config_name = blob(spool, &manifest.config)?;
    let config = spool.document(
        &config_name,
        "image configuration",
        ("MAX_CONFIG_BYTES", MAX_CONFIG_BYTES),
    )?;
    let mut layers = Vec::new();
    for layer in manifest.layers.unwrap_or_default() {
        if !layer.media_type.contains("tar") {
            return Err(LoadError::Unsupported {
                what: "layer type",
                found: layer.media_type,
            });
        }
        layers.push(blob(spool, &layer)?);
    }
    let digest = digest_of_descriptor(descriptor)?;
    let plan = Plan {
        config: PlannedConfig::Known(config),
        layers,
        names: Vec::new(),
        manifest: Some(bytes),
    };
    Ok((digest, plan))
}

fn digest_of_descriptor(descriptor: &Descriptor) -> Result<Digest, LoadError> {
    descriptor.digest.parse().map_err(LoadError::Name)
}

/// The member that a descriptor means, its digest and size checked.
fn blob(spool: &Spool, descriptor: &Descriptor) -> Result<String, LoadError> {
    let digest = digest_of_descriptor(descriptor)?;
    let name = format!("blobs/sha256/{}", digest.hex());
    spool.check(&name)?;
    let found = spool.size(&name)?;
    match descriptor.size {
        Some(size) if size != found => Err(LoadError::Corrupt(format!(
            "{name} has {found} bytes, expected {size}"
        ))),
        _ => Ok(name),
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Document(name.to_owned(), source))
}
