//! A document of a registry with all it leads to, kept byte for byte; and back to a registry.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use hull_image::content::{ContentStore, Pointer, is_document};
use hull_image::store::LayerProgress;
use hull_model::{Digest, Error, Result};
use hull_registry::{Blob, Descriptor, Document, Parsed, RegistryError, Repository};
use tokio::sync::{mpsc, oneshot};

use super::kept::{pointer, read};
use super::{PullEvent, PushEvent, blocking};

/// Blobs under way at once.
const AT_ONCE: usize = 3;
/// Most documents that one leads to.
const MAX_DOCUMENTS: usize = 10_000;
/// Bytes between two reports of progress.
const STEP: u64 = 1 << 20;
/// Bytes of a blob sent at a time, and how many such pieces wait.
const CHUNK: usize = 256 << 10;
const DEPTH: usize = 8;
/// Tries to send a blob over a connection that breaks.
const TRIES: u32 = 3;

fn short(digest: &Digest) -> String {
    let hex = digest.hex();
    hex.get(..12).unwrap_or(&hex).to_owned()
}

/// Brings documents in.
pub(super) struct Fetch {
    pub(super) repository: Repository,
    pub(super) content: Arc<ContentStore>,
    pub(super) events: mpsc::Sender<PullEvent>,
}

impl Fetch {
    /// Keeps a document and all it leads to.
    pub(super) async fn graph(&self, root: &Document) -> Result<()> {
        let mut todo = VecDeque::from([root.clone()]);
        let mut seen = BTreeSet::from([root.digest]);
        let mut blobs: Vec<Descriptor> = Vec::new();
        while let Some(document) = todo.pop_front() {
            let bytes = document.bytes.clone();
            let content = Arc::clone(&self.content);
            blocking(move || Ok(content.keep_bytes(&bytes)?)).await?;
            match document.parse()? {
                Parsed::Index(index) => {
                    for entry in index.manifests {
                        if !seen.insert(entry.digest) {
                            continue;
                        }
                        if seen.len() > MAX_DOCUMENTS {
                            return Err(Error::invalid(format!(
                                "{} leads to more than MAX_DOCUMENTS = {MAX_DOCUMENTS} documents",
                                root.digest
                            )));
                        }
                        todo.push_back(self.repository.manifest(&entry.digest.to_string()).await?);
                    }
                }
                Parsed::Manifest(manifest) => {
                    let own = std::iter::once(manifest.config).chain(manifest.layers);
                    for blob in own {
                        if seen.insert(blob.digest) {
                            blobs.push(blob);
                        }
                    }
                }
            }
        }
        for blob in &blobs {
            let _ = self
                .events
                .send(PullEvent::Wanted(short(&blob.digest)))
                .await;
        }
        let work = blobs.into_iter().map(|blob| self.blob(blob));
        futures_util::stream::iter(work)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn blob(&self, blob: Descriptor) -> Result<()> {
        let name = short(&blob.digest);
        if self.content.path(&blob.digest).is_some() {
            let there = LayerProgress::Exists { name };
            let _ = self.events.send(PullEvent::Layer(there)).await;
            return Ok(());
        }
        let mut reader = self.repository.blob(&blob);
        let (content, events) = (Arc::clone(&self.content), self.events.clone());
        let (digest, size) = (blob.digest, blob.size);
        let label = name.clone();
        blocking(move || {
            let told = std::cell::Cell::new(0);
            let tell = |done: u64| {
                if done - told.get() >= STEP {
                    told.set(done);
                    let event = LayerProgress::Unpacking {
                        name: label.clone(),
                        done,
                        total: size,
                    };
                    // A reader of progress that lags misses steps, not the pull.
                    drop(events.try_send(PullEvent::Layer(event)));
                }
            };
            content.keep(&digest, size, &mut reader, &tell)?;
            Ok(())
        })
        .await?;
        let done = LayerProgress::Complete {
            name,
            diff_id: digest,
        };
        let _ = self.events.send(PullEvent::Layer(done)).await;
        Ok(())
    }

    /// Keeps what refers to a document; gives what the registry's list says of each.
    pub(super) async fn referrers(
        &self,
        subject: &Digest,
    ) -> Result<Vec<(Digest, serde_json::Value)>> {
        let mut kept = Vec::new();
        for descriptor in self.repository.referrers(subject).await? {
            let document = self
                .repository
                .manifest(&descriptor.digest.to_string())
                .await?;
            let about = match document.parse()? {
                Parsed::Manifest(manifest) => manifest.subject.map(|subject| subject.digest),
                Parsed::Index(_) => None,
            };
            if about.is_some_and(|about| about != *subject) {
                tracing::warn!(
                    referrer = %descriptor.digest,
                    "listed as being about {subject}, but it is about another document: left out"
                );
                continue;
            }
            self.graph(&document).await?;
            let value = serde_json::to_value(&descriptor)
                .map_err(|error| Error::internal("cannot keep a referrer", error))?;
            kept.push((*subject, value));
        }
        Ok(kept)
    }
}

/// Sends documents.
pub(super) struct Send {
    pub(super) repository: Repository,
    pub(super) content: Arc<ContentStore>,
    /// Other repositories of the same registry that have the blobs.
    pub(super) sources: Vec<String>,
    pub(super) events: mpsc::Sender<PushEvent>,
}

impl Send {
    /// Sends all that a document leads to, then the document under `reference`.
    pub(super) async fn graph(&self, root: &Pointer, reference: &str) -> Result<()> {
        let all = self.content.reachable(root);
        let (documents, blobs): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|pointer| is_document(&pointer.media_type));
        for blob in &blobs {
            let _ = self
                .events
                .send(PushEvent::Preparing(short(&blob.digest)))
                .await;
        }
        let work = blobs.into_iter().map(|blob| self.blob(blob));
        futures_util::stream::iter(work)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        for document in documents.iter().rev() {
            let text = document.digest.to_string();
            let name = if document.digest == root.digest {
                reference
            } else {
                &text
            };
            let document = read(&self.content, document)?;
            self.repository.put_manifest(name, &document).await?;
        }
        Ok(())
    }

    /// Has the registry list a document that was sent among those that refer to another one, if it
    /// does.
    pub(super) async fn list(&self, root: &Pointer) -> Result<()> {
        let document = read(&self.content, root)?;
        let Parsed::Manifest(manifest) = document.parse()? else {
            return Ok(());
        };
        let Some(subject) = &manifest.subject else {
            return Ok(());
        };
        let descriptor = Descriptor {
            media_type: root.media_type.clone(),
            digest: root.digest,
            size: root.size,
            platform: None,
            artifact_type: Some(manifest.kind().to_owned()).filter(|kind| !kind.is_empty()),
            annotations: manifest.annotations.clone(),
            urls: Vec::new(),
        };
        Ok(self
            .repository
            .put_referrer(&subject.digest, &descriptor, &document)
            .await?)
    }

    /// Sends a document that refers to another one, and has the registry list it.
    pub(super) async fn referrer(&self, subject: &Digest, value: &serde_json::Value) -> Result<()> {
        let descriptor: Descriptor = serde_json::from_value(value.clone())
            .map_err(|error| Error::internal("a referrer is damaged", error))?;
        let root = Pointer {
            media_type: descriptor.media_type.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
        };
        self.graph(&root, &descriptor.digest.to_string()).await?;
        let document = read(&self.content, &root)?;
        let document = Document {
            media_type: pointer(&document).media_type,
            ..document
        };
        Ok(self
            .repository
            .put_referrer(subject, &descriptor, &document)
            .await?)
    }

    async fn blob(&self, blob: Pointer) -> Result<()> {
        let id = short(&blob.digest);
        if self.repository.has_blob(&blob.digest).await? {
            let _ = self.events.send(PushEvent::Exists(id)).await;
            return Ok(());
        }
        for source in &self.sources {
            if self.repository.mount(&blob.digest, source).await? {
                let event = PushEvent::Mounted(id, source.clone());
                let _ = self.events.send(event).await;
                return Ok(());
            }
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.repository.put(self.open(&blob)?).await {
                Ok(_) => break,
                Err(RegistryError::Unreachable { .. }) if tries < TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
        let _ = self.events.send(PushEvent::Pushed(id)).await;
        Ok(())
    }

    /// The blob's file as a stream.
    fn open(&self, blob: &Pointer) -> Result<Blob> {
        let missing =
            || Error::not_found(format!("blob {} is not here: pull it again", blob.digest));
        let path = self.content.path(&blob.digest).ok_or_else(missing)?;
        let mut file = File::open(path).map_err(|_| missing())?;
        let (chunks, receiver) = mpsc::channel(DEPTH);
        let (tell, digest) = oneshot::channel();
        // Known before a byte is read: it is the file's name, and the registry counts anew.
        let _ = tell.send(blob.digest);
        let (events, id, total) = (self.events.clone(), short(&blob.digest), blob.size);
        tokio::task::spawn_blocking(move || {
            let (mut done, mut told) = (0u64, 0u64);
            loop {
                let mut chunk = vec![0; CHUNK];
                let next = match file.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(count) => {
                        chunk.truncate(count);
                        done += count as u64;
                        Ok(Bytes::from(chunk))
                    }
                    Err(error) => Err(error.to_string()),
                };
                let failed = next.is_err();
                if chunks.blocking_send(next).is_err() || failed {
                    return;
                }
                if done - told >= STEP {
                    told = done;
                    drop(events.try_send(PushEvent::Pushing(id.clone(), done, total)));
                }
            }
        });
        Ok(Blob {
            chunks: receiver,
            digest,
        })
    }
}
