//! `push`: an image of the store becomes an image of a registry.
//!
//! The image goes with the manifest it came with, as long as the registry gets the same layers:
//! its digest stays. A layer that the registry has, in this repository or in another one the image
//! came from, is not sent; one that must be sent is compressed while it is.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hull_image::ImageStore;
use hull_image::hash::{HashWriter, digest_of};
use hull_image::store::Packed;
use hull_model::{Digest, Error, ErrorKind, Reference, Result};
use hull_registry::{Blob, Credentials, Descriptor, Document, Manifest, Parsed, Repository, media};
use tokio::sync::{mpsc, oneshot};

use super::{StoredImage, name_fact};
use crate::Engine;

/// Chunks of a compressed layer under way.
const DEPTH: usize = 16;
/// Bytes collected before a chunk is sent.
const CHUNK: usize = 128 << 10;
/// Fewest and most layers sent at once: compression keeps one processor busy each.
const AT_ONCE: (usize, usize) = (2, 5);
/// How often a layer is sent whose upload breaks off.
const UPLOAD_TRIES: u32 = 3;
/// Pause before the second time; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bytes between two reports of progress.
const STEP: u64 = 1 << 20;

/// What a push tells on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// To where.
    To(String),
    /// A layer, by its short id, waits.
    Preparing(String),
    /// So much of a layer is sent, of so much before compression.
    Pushing(String, u64, u64),
    /// It was there.
    Exists(String),
    /// It was taken over from another repository.
    Mounted(String, String),
    /// It is sent.
    Pushed(String),
    /// All is there: tag, digest and size of the manifest.
    Done(String, Digest, u64),
}

impl Engine {
    /// Sends an image to the registry that its name says; gives its manifest's digest there.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Unavailable`.
    pub async fn push(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Credentials,
        events: mpsc::Sender<PushEvent>,
    ) -> Result<Digest> {
        let Some(tag) = reference.tag.clone() else {
            return Err(Error::invalid("a push needs a tag and no digest"));
        };
        let image = self.images.store.find(reference).ok_or_else(|| {
            Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            ))
        })?;
        let _held = self.images.store.hold_id(&image.id());
        if image.record.root != hull_image::RootKind::Layers {
            return Err(Error::invalid(
                "the image host is this host's own root: it cannot be pushed",
            ));
        }
        let repository = self.registry.repository(reference, credentials)?;
        let _ = events.send(PushEvent::To(repository.name())).await;
        let push = Push {
            store: Arc::clone(&self.images.store),
            sources: sources(&image, reference),
            repository,
            events,
        };
        let document = push.image(&image).await?;
        push.repository.put_manifest(&tag, &document).await?;
        let by_digest = Reference {
            tag: None,
            digest: Some(document.digest),
            ..reference.clone()
        };
        let (store, id) = (Arc::clone(&push.store), image.id());
        super::blocking(move || Ok(store.tag(&id, &by_digest)?)).await?;
        let size = document.bytes.len() as u64;
        let done = PushEvent::Done(tag, document.digest, size);
        let _ = push.events.send(done).await;
        let name = reference.familiar();
        self.events.emit("image", "push", &name, name_fact(&name));
        Ok(document.digest)
    }
}

/// Other repositories of the same registry in which the image is known.
pub(super) fn sources(image: &StoredImage, target: &Reference) -> Vec<String> {
    let mut found: Vec<String> = image
        .digests
        .iter()
        .filter(|name| name.domain == target.domain && name.path != target.path)
        .map(|name| name.path.clone())
        .collect();
    found.dedup();
    found
}

struct Push {
    store: Arc<ImageStore>,
    repository: Repository,
    sources: Vec<String>,
    events: mpsc::Sender<PushEvent>,
}

impl Push {
    /// Sends all but the manifest, which it gives back.
    async fn image(&self, image: &StoredImage) -> Result<Document> {
        let config = self.store.config_bytes(&image.id())?;
        let known = self.known_manifest(image);
        let diff_ids = image.record.layers();
        for diff_id in diff_ids {
            let _ = self.events.send(PushEvent::Preparing(short(diff_id))).await;
        }
        // The largest first, so that all end together.
        let mut order: Vec<usize> = (0..diff_ids.len()).collect();
        order.sort_by_key(|&n| {
            let meta = diff_ids.get(n).and_then(|layer| self.store.layer(layer));
            std::cmp::Reverse(meta.map_or(0, |meta| meta.tar_bytes))
        });
        let next = AtomicUsize::new(0);
        let workers = (0..at_once()).map(|_| async {
            let mut done = Vec::new();
            while let Some(&n) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let came = known
                    .as_ref()
                    .and_then(|(_, manifest)| manifest.layers.get(n));
                done.push((n, self.layer(diff_ids.get(n).copied(), came).await?));
            }
            Ok::<_, Error>(done)
        });
        let done = futures_util::future::try_join_all(workers).await?;
        let mut layers: Vec<Option<Descriptor>> = vec![None; diff_ids.len()];
        for (n, layer) in done.into_iter().flatten() {
            if let Some(slot) = layers.get_mut(n) {
                *slot = layer;
            }
        }
        let layers: Vec<Descriptor> = layers.into_iter().flatten().collect();
        self.repository.put_small(&config).await?;
        if let Some((document, manifest)) = known
            && manifest.layers == layers
        {
            return Ok(document);
        }
        manifest(&config, layers)
    }

    /// The manifest the image came with, if it is an image's of this configuration.
    fn known_manifest(&self, image: &StoredImage) -> Option<(Document, Manifest)> {
        let digest = image.record.manifest?;
        let bytes = self.store.config_bytes(&digest).ok()?;
        let document = Document {
            media_type: String::new(),
            bytes,
            digest,
        };
        let Ok(Parsed::Manifest(manifest)) = document.parse() else {
            return None;
        };
        let fits = manifest.config.digest == image.id()
            && manifest.layers.len() == image.record.layers().len();
        let media_type = if manifest.media_type.is_empty() {
            media::OCI_MANIFEST.to_owned()
        } else {
            manifest.media_type.clone()
        };
        fits.then_some((
            Document {
                media_type,
                ..document
            },
            *manifest,
        ))
    }

    /// Has the layer be in the registry.
    async fn layer(
        &self,
        diff_id: Option<Digest>,
        came: Option<&Descriptor>,
    ) -> Result<Option<Descriptor>> {
        let Some(diff_id) = diff_id else {
            return Ok(None);
        };
        let id = short(&diff_id);
        let packed = self.store.packed(&diff_id);
        let ours = packed
            .iter()
            .map(|packed| descriptor(packed.digest, packed.size));
        let candidates: Vec<Descriptor> = came.cloned().into_iter().chain(ours).collect();
        for candidate in &candidates {
            if self.repository.has_blob(&candidate.digest).await? {
                let _ = self.events.send(PushEvent::Exists(id)).await;
                return Ok(Some(candidate.clone()));
            }
        }
        for candidate in &candidates {
            for source in &self.sources {
                if self.repository.mount(&candidate.digest, source).await? {
                    let _ = self
                        .events
                        .send(PushEvent::Mounted(id, source.clone()))
                        .await;
                    return Ok(Some(candidate.clone()));
                }
            }
        }
        let sent = self.send_stubbornly(diff_id).await?;
        let (store, keep) = (Arc::clone(&self.store), sent);
        super::blocking(move || Ok(store.add_packed(&diff_id, keep)?)).await?;
        let _ = self.events.send(PushEvent::Pushed(id)).await;
        Ok(Some(descriptor(sent.digest, sent.size)))
    }

    /// Sends a layer once more where the connection breaks or the token expires in its middle.
    async fn send_stubbornly(&self, diff_id: Digest) -> Result<Packed> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..UPLOAD_TRIES {
            match self.send(diff_id).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(%error, "an upload begins anew");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                sent => return sent,
            }
        }
        self.send(diff_id).await
    }

    async fn send(&self, diff_id: Digest) -> Result<Packed> {
        let (chunks, receiver) = mpsc::channel(DEPTH);
        let (tell_digest, digest) = oneshot::channel();
        let (tell_size, size) = oneshot::channel();
        let total = self.store.layer(&diff_id).map_or(0, |meta| meta.tar_bytes);
        let (store, events) = (Arc::clone(&self.store), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let report = Report {
                id: short(&diff_id),
                total,
                done: AtomicU64::new(0),
                told: AtomicU64::new(0),
                events,
            };
            match compress(&store, &diff_id, &chunks, &report) {
                Ok((bytes, digest)) => {
                    drop(chunks);
                    let _ = tell_digest.send(digest);
                    let _ = tell_size.send(bytes);
                }
                Err(error) => drop(chunks.blocking_send(Err(error.to_string()))),
            }
        });
        let blob = Blob {
            chunks: receiver,
            digest,
        };
        let digest = self.repository.put(blob).await?;
        let size = size
            .await
            .map_err(|error| Error::internal("a layer's compression broke off", error))?;
        Ok(Packed { digest, size })
    }
}

/// As many as the machine has processors, within [`AT_ONCE`].
fn at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.clamp(AT_ONCE.0, AT_ONCE.1)
}

fn compress(
    store: &ImageStore,
    diff_id: &Digest,
    chunks: &mpsc::Sender<std::result::Result<Bytes, String>>,
    report: &Report,
) -> io::Result<(u64, Digest)> {
    let sink = HashWriter::new(Sink {
        chunks,
        buffer: Vec::with_capacity(CHUNK),
    });
    let mut encoder = Counted {
        inner: GzEncoder::new(sink, Compression::default()),
        report,
    };
    store
        .copy_layer_tar(diff_id, &mut encoder)
        .map_err(|error| io::Error::other(Error::from(error).chain()))?;
    let (mut sink, bytes, digest) = encoder.inner.finish()?.finish();
    sink.flush()?;
    Ok((bytes, digest))
}

struct Report {
    id: String,
    total: u64,
    done: AtomicU64,
    told: AtomicU64,
    events: mpsc::Sender<PushEvent>,
}

struct Counted<'a, W> {
    inner: W,
    report: &'a Report,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        let report = self.report;
        let done = report.done.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if done - report.told.load(Ordering::Relaxed) >= STEP {
            report.told.store(done, Ordering::Relaxed);
            // A reader of progress that lags misses steps, not the push.
            let event = PushEvent::Pushing(report.id.clone(), done, report.total);
            drop(report.events.try_send(event));
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Sink<'a> {
    chunks: &'a mpsc::Sender<std::result::Result<Bytes, String>>,
    buffer: Vec<u8>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.chunks
            .blocking_send(Ok(Bytes::from(full)))
            .map_err(|_| io::Error::other("the upload ended"))
    }
}

fn short(digest: &Digest) -> String {
    let hex = digest.hex();
    hex.get(..12).unwrap_or(&hex).to_owned()
}

fn descriptor(digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media::OCI_LAYER.to_owned(),
        digest,
        size,
        platform: None,
        annotations: Default::default(),
        artifact_type: None,
        urls: Vec::new(),
    }
}

fn manifest(config: &[u8], layers: Vec<Descriptor>) -> Result<Document> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config: Descriptor {
            media_type: media::OCI_CONFIG.to_owned(),
            ..descriptor(digest_of(config), config.len() as u64)
        },
        // Layers of either family are the same bytes; one manifest names them in one family.
        layers: layers
            .into_iter()
            .map(|layer| Descriptor {
                media_type: oci_type(&layer.media_type),
                ..layer
            })
            .collect(),
        subject: None,
        annotations: Default::default(),
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| Error::internal("cannot write a manifest", error))?;
    Ok(Document {
        digest: digest_of(&bytes),
        media_type: media::OCI_MANIFEST.to_owned(),
        bytes,
    })
}

fn oci_type(layer: &str) -> String {
    match layer {
        media::DOCKER_LAYER => media::OCI_LAYER.to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_names_layers_in_one_family() {
        let layer = Descriptor {
            media_type: media::DOCKER_LAYER.to_owned(),
            ..descriptor(digest_of(b"l"), 1)
        };
        let document = manifest(b"{}", vec![layer]).expect("manifest");
        let Ok(Parsed::Manifest(parsed)) = document.parse() else {
            panic!("no manifest")
        };
        assert_eq!(parsed.layers[0].media_type, media::OCI_LAYER);
        assert_eq!(parsed.config.digest, digest_of(b"{}"));
        assert_eq!(document.digest, digest_of(&document.bytes));
    }
}
