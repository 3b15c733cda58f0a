//! What a registry has under a name, without fetching it.

use std::sync::Arc;

use hull_image::limits::MAX_CONFIG_BYTES;
use hull_model::{ImageConfig, Reference, Result};
use hull_registry::{
    Client, Credentials, Descriptor, Document, Manifest, Parsed, PlatformOf, Repository,
    is_about_another,
};

use super::kept::pointer;
use crate::Engine;

/// A document of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Its media type, digest and size; the platform of a single image.
    pub descriptor: Descriptor,
    /// The platforms that it has images for.
    pub platforms: Vec<PlatformOf>,
    /// Byte for byte.
    pub raw: Vec<u8>,
}

impl Engine {
    /// The client to use for a name: one that may do without proofs where the user says so.
    pub(super) fn registry_for(&self, name: &Reference, insecure: bool) -> Arc<Client> {
        if insecure {
            Arc::new(self.registry.with_insecure(&name.domain))
        } else {
            Arc::clone(&self.registry)
        }
    }

    /// Asks the registry for a name's document.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Unavailable`.
    pub async fn distribution(
        &self,
        name: &Reference,
        insecure: bool,
        credentials: Credentials,
    ) -> Result<Inspected> {
        let repository = self
            .registry_for(name, insecure)
            .repository(name, credentials)?;
        let wanted = match (&name.digest, &name.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        inspect(&repository, repository.manifest(&wanted).await?).await
    }
}

pub(super) async fn inspect(repository: &Repository, document: Document) -> Result<Inspected> {
    let own = pointer(&document);
    let mut descriptor = Descriptor {
        media_type: own.media_type,
        digest: own.digest,
        size: own.size,
        platform: None,
        annotations: Default::default(),
        artifact_type: None,
        urls: Vec::new(),
    };
    let platforms = match document.parse()? {
        Parsed::Index(index) => index
            .manifests
            .iter()
            .filter(|entry| !is_about_another(entry))
            .filter_map(|entry| entry.platform.clone())
            .collect(),
        Parsed::Manifest(manifest) => {
            descriptor.platform = platform_of(repository, &manifest).await?;
            descriptor.platform.iter().cloned().collect()
        }
    };
    Ok(Inspected {
        descriptor,
        platforms,
        raw: document.bytes,
    })
}

/// The platform that an image's configuration names; none for an artifact.
async fn platform_of(repository: &Repository, manifest: &Manifest) -> Result<Option<PlatformOf>> {
    if !manifest.is_image() {
        return Ok(None);
    }
    let bytes = repository
        .small_blob(&manifest.config, "MAX_CONFIG_BYTES", MAX_CONFIG_BYTES)
        .await?;
    let Ok(config): Result<ImageConfig, _> = hull_image::store::parse_config(&bytes) else {
        return Ok(None);
    };
    Ok(Some(PlatformOf {
        os: config.os,
        architecture: config.architecture,
        variant: config.variant.filter(|variant| !variant.is_empty()),
        ..PlatformOf::default()
    }))
}
