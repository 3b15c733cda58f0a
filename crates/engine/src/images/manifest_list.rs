//! Sends an index or manifest list that the user put together.

use std::sync::Arc;

use hull_image::hash::digest_of;
use hull_model::{Digest, Error, Reference, Result};
use hull_registry::{Credentials, Document, Parsed, Repository};

use crate::Engine;

/// An entry of the list: where its manifest is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// A name in the repository that has it.
    pub name: Reference,
    /// Its digest.
    pub digest: Digest,
}

/// A list, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPush {
    /// Under which name.
    pub target: Reference,
    /// Media type of the list.
    pub media_type: String,
    /// The list, byte for byte.
    pub raw: Vec<u8>,
    /// Its entries.
    pub entries: Vec<ListEntry>,
    /// Whether the registry need not prove who it is.
    pub insecure: bool,
}

impl Engine {
    /// Sends a list. Manifests and blobs that are in other repositories of the registry are taken
    /// over from there first. Gives the list's digest.
    ///
    /// # Errors
    /// `InvalidArgument` if an entry is in another registry; `NotFound`, `Forbidden`,
    /// `Unavailable`.
    pub async fn push_list(&self, push: &ListPush, credentials: Credentials) -> Result<Digest> {
        let target = &push.target;
        let tag = target
            .tag
            .clone()
            .ok_or_else(|| Error::invalid("a manifest list is pushed under a tag"))?;
        let document = Document {
            bytes: push.raw.clone(),
            media_type: push.media_type.clone(),
            digest: digest_of(&push.raw),
        };
        if !matches!(document.parse()?, Parsed::Index(_)) {
            return Err(Error::invalid("what is pushed is no manifest list"));
        }
        let client = self.registry_for(target, push.insecure);
        let repository = Arc::clone(&client).repository(target, credentials.clone())?;
        for entry in &push.entries {
            if entry.name.domain != target.domain {
                return Err(Error::invalid(format!(
                    "cannot use source images from a different registry than the target image: {} != {}",
                    entry.name.domain, target.domain
                )));
            }
            if entry.name.path == target.path {
                continue;
            }
            let source = Arc::clone(&client).repository(&entry.name, credentials.clone())?;
            take_over(&repository, &source, &entry.name.path, &entry.digest).await?;
        }
        repository.put_manifest(&tag, &document).await?;
        Ok(document.digest)
    }
}

/// Has a manifest of another repository, and its blobs, appear in this one.
async fn take_over(
    target: &Repository,
    source: &Repository,
    path: &str,
    digest: &Digest,
) -> Result<()> {
    let document = source.manifest(&digest.to_string()).await?;
    let Parsed::Manifest(manifest) = document.parse()? else {
        return Err(Error::invalid(format!(
            "{digest} of {} is itself a list",
            source.name()
        )));
    };
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if target.has_blob(&blob.digest).await? || target.mount(&blob.digest, path).await? {
            continue;
        }
        return Err(Error::invalid(format!(
            "the registry does not take blob {} over from {}: push the image to {} first",
            blob.digest,
            source.name(),
            target.name()
        )));
    }
    target.put_manifest(&digest.to_string(), &document).await?;
    Ok(())
}
