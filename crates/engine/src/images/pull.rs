//! `pull`: an image of a registry becomes an image of the store.
//!
//! Each layer goes from the connection through decompression and digests into its tree in one
//! stream, several layers at once. Layers known by diff-id are not fetched; two pulls that need
//! the same one take turns, so that it comes once.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use hull_image::content::ContentStore;
use hull_image::limits::{LimitError, MAX_CONFIG_BYTES, MAX_LAYERS};
use hull_image::store::{LayerJob, LayerProgress, LayerSource, NewImage};
use hull_image::unpack::Expectation;
use hull_model::{Digest, Error, ImageConfig, Reference, Result};
use hull_registry::{
    Credentials, Descriptor, Document, Manifest, Parsed, RegistryError, Repository,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::blocking;
use crate::Engine;

/// Most nested indexes that are followed.
const MAX_INDEX_DEPTH: usize = 4;

/// What a pull tells on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// It begins: repository and tag or digest.
    From(String, String),
    /// The layer, by its short id, will be fetched.
    Wanted(String),
    /// A layer got further.
    Layer(LayerProgress),
    /// The digest by which the registry knows what was asked for.
    Digest(Digest),
    /// It ended: whether something came that was not here.
    Done {
        /// As people write it.
        name: String,
        /// Whether the name means another image than before.
        newer: bool,
    },
}

/// A manifest for this platform, and the digest of what was asked for.
pub(super) struct Found {
    pub(super) asked: Digest,
    pub(super) document: Document,
    pub(super) manifest: Manifest,
}

impl Engine {
    /// Tries credentials on a registry: its host, or an address that has it.
    ///
    /// # Errors
    /// `Forbidden` if they are not good; `Unavailable`.
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<()> {
        let host = server
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = match host.split('/').next().unwrap_or(host) {
            "" => hull_model::reference::DEFAULT_DOMAIN,
            host => host,
        };
        // Any name will do: a login is for all of them.
        let name: Reference = format!("{host}/login").parse()?;
        Ok(self
            .registry
            .repository(&name, credentials)?
            .check()
            .await?)
    }

    pub(super) async fn name_pulled(
        &self,
        id: Digest,
        reference: &Reference,
        asked: Digest,
    ) -> Result<()> {
        let store = Arc::clone(&self.images.store);
        let names = names(reference, asked);
        blocking(move || {
            for name in &names {
                store.tag(&id, name)?;
            }
            store.arrived_again(&id);
            Ok(())
        })
        .await
    }

    pub(super) async fn fetch(
        self: &Arc<Self>,
        repository: &Repository,
        reference: &Reference,
        found: &Found,
        events: &mpsc::Sender<PullEvent>,
    ) -> Result<()> {
        let manifest = &found.manifest;
        let config = repository
            .small_blob(&manifest.config, "MAX_CONFIG_BYTES", MAX_CONFIG_BYTES)
            .await?;
        let diff_ids = diff_ids(&config, manifest, reference)?;
        let mut sources = Vec::with_capacity(diff_ids.len());
        for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
            let source = RegistryLayer {
                repository: repository.clone(),
                descriptor: layer.clone(),
                runtime: Handle::current(),
                content: Arc::clone(&self.images.content),
                events: events.clone(),
            };
            let _ = events.send(PullEvent::Wanted(source.name())).await;
            sources.push((source, *diff_id));
        }
        let turns = self.layer_turns.take(&diff_ids).await;
        let store = Arc::clone(&self.images.store);
        let names = names(reference, found.asked);
        let manifest = found.document.bytes.clone();
        let events = events.clone();
        let at_once = self.settings.max_concurrent_downloads;
        blocking(move || {
            let _turns = turns;
            // A reader of progress that lags misses steps, not the pull; steps leave room for
            // what comes once.
            let tell = |event| {
                let step = matches!(event, LayerProgress::Unpacking { .. });
                if !step || events.capacity() > events.max_capacity() / 2 {
                    drop(events.try_send(PullEvent::Layer(event)));
                }
            };
            let jobs: Vec<LayerJob<'_>> = sources
                .iter()
                .map(|(source, diff_id)| LayerJob {
                    source,
                    expect: Expectation {
                        diff_id: Some(*diff_id),
                        packed: Some(source.descriptor.digest),
                    },
                })
                .collect();
            let mut transaction = store.begin()?;
            if let Some(layers) = at_once {
                transaction.set_at_once(layers);
            }
            transaction.ingest(&jobs, &tell).map_err(ingest_error)?;
            for warning in transaction.warnings() {
                tracing::warn!("pull: {warning}");
            }
            transaction.commit(vec![NewImage {
                config,
                manifest: Some(manifest),
                names,
                ..NewImage::default()
            }])?;
            Ok(())
        })
        .await
    }
}

/// The tag, and the digest by which the registry knows it.
pub(super) fn names(reference: &Reference, asked: Digest) -> Vec<Reference> {
    let by_digest = Reference {
        tag: None,
        digest: Some(asked),
        ..reference.clone()
    };
    match (&reference.tag, &reference.digest) {
        (Some(_), None) => vec![reference.clone(), by_digest],
        // With a digest the tag is only a remark.
        _ => vec![by_digest],
    }
}

/// Follows indexes from a document to the manifest for a platform.
pub(super) async fn find(
    repository: &Repository,
    mut document: Document,
    wanted: &str,
    platform: &str,
) -> Result<Found> {
    let asked = document.digest;
    for _ in 0..=MAX_INDEX_DEPTH {
        match document.parse()? {
            Parsed::Manifest(manifest) => {
                return Ok(Found {
                    asked,
                    document,
                    manifest: *manifest,
                });
            }
            Parsed::Index(index) => {
                let chosen = index.choose(platform).ok_or_else(|| {
                    Error::not_found(format!(
                        "no matching manifest for {platform} in the manifest list entries of {}:{wanted}: it has {}",
                        repository.name(),
                        index.platforms().join(", ")
                    ))
                })?;
                document = repository.manifest(&chosen.digest.to_string()).await?;
            }
        }
    }
    Err(Error::invalid(format!(
        "indexes of {}:{wanted} are nested more than MAX_INDEX_DEPTH = {MAX_INDEX_DEPTH} deep",
        repository.name()
    )))
}

/// What the configuration promises of the layers; it must match the manifest.
fn diff_ids(config: &[u8], manifest: &Manifest, reference: &Reference) -> Result<Vec<Digest>> {
    let wrong = |why: String| Error::invalid(format!("cannot use {}: {why}", reference.familiar()));
    for layer in &manifest.layers {
        if !layer.media_type.contains("tar") {
            return Err(wrong(format!(
                "it is no container image: a layer has the type {:?}",
                layer.media_type
            )));
        }
    }
    if manifest.layers.len() > MAX_LAYERS {
        let (found, limit) = (manifest.layers.len(), MAX_LAYERS);
        return Err(wrong(LimitError::Layers { found, limit }.to_string()));
    }
    let config: ImageConfig = hull_image::store::parse_config(config)
        .map_err(|error| wrong(format!("its configuration is not valid: {error}")))?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(wrong(format!(
            "its configuration lists {} layers, its manifest {}",
            diff_ids.len(),
            manifest.layers.len()
        )));
    }
    Ok(diff_ids)
}

/// An error of the registry that came through a reader says what kind it is.
fn ingest_error(error: hull_image::store::IngestError) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        let inner = one
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<RegistryError>());
        if let Some(registry) = inner {
            return Error::new(registry.kind(), registry.to_string());
        }
        cause = one.source();
    }
    hull_image::archive::LoadError::from(error).into()
}

/// A layer that a registry has.
struct RegistryLayer {
    repository: Repository,
    descriptor: Descriptor,
    runtime: Handle,
    content: Arc<ContentStore>,
    events: mpsc::Sender<PullEvent>,
}

/// A layer as long as somebody listens to what is told of the pull: it ends with its client, as in
/// Docker.
struct WhileHeard<R> {
    reader: R,
    events: mpsc::Sender<PullEvent>,
}

impl<R: Read> Read for WhileHeard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.events.is_closed() {
            return Err(io::Error::other("the client that asked for it has gone"));
        }
        self.reader.read(buffer)
    }
}

impl LayerSource for RegistryLayer {
    fn name(&self) -> String {
        let hex = self.descriptor.digest.hex();
        hex.get(..12).unwrap_or(&hex).to_owned()
    }

    fn packed_bytes(&self) -> u64 {
        self.descriptor.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        // A pull of all platforms has brought it already.
        if let Some(path) = self.content.path(&self.descriptor.digest) {
            return Ok(Box::new(File::open(path)?));
        }
        let _entered = self.runtime.enter();
        Ok(Box::new(WhileHeard {
            reader: self.repository.blob(&self.descriptor),
            events: self.events.clone(),
        }))
    }
}
