//! `push` with its options: all tags, one platform of several, referrers; and what is kept whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use hull_image::content::{Pointer, Root};
use hull_model::{Digest, Error, Reference, Result};
use hull_registry::{Credentials, Document, Parsed, PlatformOf, fits};
use tokio::sync::mpsc;

use super::graph::Send;
use super::kept::{pointer, read};
use super::{PushEvent, name_fact};
use crate::Engine;

/// What is to be pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// This platform's image alone, of an image for several.
    pub platform: Option<String>,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// What was kept of its referrers, too.
    pub referrers: bool,
}

impl Engine {
    /// Sends an image or artifact, or all of a repository's, to the registry that the name says.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Unavailable`.
    pub async fn push_with(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PushOptions,
        credentials: Credentials,
        events: mpsc::Sender<PushEvent>,
    ) -> Result<()> {
        if !options.all_tags {
            return self.push_one(reference, options, credentials, events).await;
        }
        let same = |name: &Reference| {
            name.digest.is_none()
                && (&name.domain, &name.path) == (&reference.domain, &reference.path)
        };
        let mut names: BTreeSet<Reference> = BTreeSet::new();
        for image in self.images.store.list() {
            names.extend(image.tags.iter().filter(|name| same(name)).cloned());
        }
        for artifact in self.artifacts() {
            names.extend(artifact.names.iter().filter(|name| same(name)).cloned());
        }
        if names.is_empty() {
            return Err(Error::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            )));
        }
        for name in &names {
            self.push_one(name, options, credentials.clone(), events.clone())
                .await?;
        }
        Ok(())
    }

    async fn push_one(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PushOptions,
        credentials: Credentials,
        events: mpsc::Sender<PushEvent>,
    ) -> Result<()> {
        let root = self.images.kept(reference);
        let whole = self.chosen(reference, root.as_ref(), options)?;
        let content = Arc::clone(&self.images.content);
        let _keeper = content.keeper();
        let sender = |events: mpsc::Sender<PushEvent>| -> Result<Send> {
            Ok(Send {
                repository: self.registry.repository(reference, credentials.clone())?,
                content: Arc::clone(&content),
                sources: self.other_repositories(reference, root.as_ref()),
                events,
            })
        };
        let mut pushed = BTreeSet::new();
        match whole {
            Some(document) => {
                let Some(tag) = &reference.tag else {
                    return Err(Error::invalid("a push needs a tag and no digest"));
                };
                let send = sender(events.clone())?;
                let to = PushEvent::To(send.repository.name());
                let _ = events.send(to).await;
                send.graph(&document, tag).await?;
                send.list(&document).await?;
                pushed.extend(content.reachable(&document).iter().map(|one| one.digest));
                let done = PushEvent::Done(tag.clone(), document.digest, document.size);
                let _ = events.send(done).await;
                let name = reference.familiar();
                self.events.emit("image", "push", &name, name_fact(&name));
            }
            None => {
                let credentials = credentials.clone();
                let digest = self.push(reference, credentials, events.clone()).await?;
                pushed.insert(digest);
            }
        }
        if let (true, Some(root)) = (options.referrers, &root) {
            let send = sender(events)?;
            for (subject, value) in &root.referrers {
                // What is about a document that was not sent has nothing to be about there.
                if pushed.contains(subject) {
                    send.referrer(subject, value).await?;
                }
            }
        }
        Ok(())
    }

    /// The document that is to be sent as it came; none where the image is to be sent by its
    /// layers.
    fn chosen(
        &self,
        reference: &Reference,
        root: Option<&Root>,
        options: &PushOptions,
    ) -> Result<Option<Pointer>> {
        let image = self.images.store.find(reference);
        if options.platform.is_none()
            && let Some(root) = root.filter(|root| root.complete)
        {
            return Ok(Some(root.document.clone()));
        }
        // Without a platform: the one that is the image here, if that was kept as it came.
        let own_manifest = image.as_ref().and_then(|image| image.record.manifest);
        let Some(wanted) = &options.platform else {
            return Ok(root
                .and(own_manifest)
                .and_then(|digest| self.whole_manifest(digest)));
        };
        let lacking = || {
            Error::not_found(format!(
                "image with reference {} was found but does not provide the specified platform ({wanted})",
                reference.familiar()
            ))
        };
        if let Some(root) = root
            && let Parsed::Index(index) = read(&self.images.content, &root.document)?.parse()?
        {
            let entry = index.choose(wanted).ok_or_else(lacking)?;
            let pointer = Pointer {
                media_type: entry.media_type.clone(),
                digest: entry.digest,
                size: entry.size,
            };
            if self.images.content.is_complete(&pointer) {
                return Ok(Some(pointer));
            }
        }
        let own = image.map(|image| {
            let config = image.config();
            PlatformOf {
                os: config.os.clone(),
                architecture: config.architecture.clone(),
                variant: config.variant.clone(),
                ..PlatformOf::default()
            }
        });
        match own {
            Some(own) if fits(wanted, &own) => Ok(None),
            Some(_) => Err(lacking()),
            None if root.is_some() => Err(lacking()),
            // What is not here at all is said by the push itself.
            None => Ok(None),
        }
    }

    /// A manifest of which all is here as it came.
    fn whole_manifest(&self, digest: Digest) -> Option<Pointer> {
        let bytes = self.images.content.document(&digest).ok()?;
        let document = Document {
            bytes,
            media_type: String::new(),
            digest,
        };
        Some(pointer(&document)).filter(|one| self.images.content.is_complete(one))
    }

    /// Other repositories of the same registry that have what this name leads to.
    fn other_repositories(&self, reference: &Reference, root: Option<&Root>) -> Vec<String> {
        let Some(root) = root else {
            return Vec::new();
        };
        let digest: Digest = root.document.digest;
        let mut found: Vec<String> = self
            .images
            .content
            .roots()
            .into_iter()
            .filter(|(name, other)| {
                other.document.digest == digest
                    && name.domain == reference.domain
                    && name.path != reference.path
                    && name.digest.is_some()
            })
            .map(|(name, _)| name.path)
            .collect();
        found.dedup();
        found
    }
}
