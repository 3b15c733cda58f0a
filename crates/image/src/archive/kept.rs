//! What an archive holds that is more than an image for one platform: artifacts, and indexes of
//! which everything is there. They are kept as they came.

use std::collections::BTreeSet;

use hull_model::{Digest, Reference};
use serde::Deserialize;

use super::spool::Spool;
use super::{LoadError, oci};
use crate::content::{ContentStore, Pointer, Root, is_document, pointers};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::store::{LayerSource, now};

const LIMIT: (&str, u64) = ("MAX_MANIFEST_BYTES", MAX_MANIFEST_BYTES);
/// Most blobs that one document leads to.
const MAX_BLOBS: usize = 20_000;
/// Configurations of images.
const IMAGE_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Something to keep.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its name.
    pub(super) name: Reference,
    document: Pointer,
    /// It is an artifact: no image can be made of it.
    pub(super) artifact: bool,
    blobs: Vec<Pointer>,
}

impl Kept {
    /// The digest of its document.
    pub(super) fn digest(&self) -> Digest {
        self.document.digest
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    config: Option<Pointer>,
    #[serde(default)]
    layers: Option<Vec<Pointer>>,
    #[serde(default)]
    manifests: Option<Vec<Pointer>>,
}

fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What a layout has to keep. What is odd in it is left to whoever makes images of it to refuse.
pub(super) fn entries(spool: &Spool) -> Result<Vec<Kept>, LoadError> {
    if !spool.has(oci::INDEX) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (name, document) in oci::named(spool)? {
        let own = member(&document.digest);
        if !spool.has(&own) {
            continue;
        }
        let bytes = spool.document(&own, "manifest", LIMIT)?;
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
            continue;
        };
        let index = manifest.manifests.is_some();
        let artifact = !index && !is_image(&manifest);
        if !index && !artifact {
            continue;
        }
        if let Some(blobs) = all(spool, &document)? {
            found.push(Kept {
                name,
                document,
                artifact,
                blobs,
            });
        }
    }
    Ok(found)
}

fn is_image(manifest: &Manifest) -> bool {
    let config = manifest.config.as_ref();
    let known = config.is_none_or(|config| {
        config.media_type.is_empty() || IMAGE_CONFIGS.contains(&config.media_type.as_str())
    });
    let mut layers = manifest.layers.iter().flatten();
    known && layers.all(|layer| layer.media_type.is_empty() || layer.media_type.contains("tar"))
}

/// Everything that a document leads to, itself too; none if something is missing.
fn all(spool: &Spool, root: &Pointer) -> Result<Option<Vec<Pointer>>, LoadError> {
    let (mut found, mut todo) = (Vec::new(), vec![root.clone()]);
    let mut seen = BTreeSet::new();
    while let Some(pointer) = todo.pop() {
        if !seen.insert(pointer.digest) {
            continue;
        }
        let name = member(&pointer.digest);
        if seen.len() > MAX_BLOBS || !spool.has(&name) || spool.size(&name)? != pointer.size {
            return Ok(None);
        }
        if is_document(&pointer.media_type) {
            todo.extend(pointers(&spool.document(&name, "manifest", LIMIT)?));
        }
        found.push(pointer);
    }
    Ok(Some(found))
}

/// Keeps the bytes; names lead to them only with [`name`].
pub(super) fn keep(
    spool: &Spool,
    content: &ContentStore,
    entries: &[Kept],
) -> Result<(), LoadError> {
    for blob in entries.iter().flat_map(|entry| &entry.blobs) {
        let layer = spool.layer(&member(&blob.digest))?;
        let mut reader = layer.open().map_err(LoadError::Read)?;
        content.keep(&blob.digest, blob.size, &mut *reader, &|_| {})?;
    }
    Ok(())
}

/// Has the names lead to what was kept; `image` tells the image that a name means, too.
pub(super) fn name(
    content: &ContentStore,
    entries: &[Kept],
    image: &dyn Fn(&Reference) -> Option<Digest>,
) -> Result<(), LoadError> {
    for entry in entries {
        content.set_root(
            &entry.name,
            Root {
                document: entry.document.clone(),
                image: image(&entry.name),
                complete: true,
                referrers: Vec::new(),
                stored: now(),
            },
        )?;
    }
    Ok(())
}
