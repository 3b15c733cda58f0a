//! `pull` with its options: all tags, all platforms, referrers; and what is no image.

use std::sync::Arc;

use hull_image::content::Root;
use hull_image::platform::architecture;
use hull_model::{Digest, Error, ErrorKind, Reference, Result};
use hull_registry::{Credentials, Document, Parsed};
use tokio::sync::mpsc;

use super::graph::Fetch;
use super::kept::{in_use, now, pointer};
use super::pull::{find, names};
use super::{PullEvent, blocking, name_fact};
use crate::Engine;

/// Length of the tag that stands for a list of referrers: `sha256-` and 64 digits.
const REFERRERS_TAG: usize = 7 + 64;

/// What is to be pulled besides one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullOptions {
    /// `os/architecture[/variant]`; this host's if none.
    pub platform: Option<String>,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Everything that an index leads to.
    pub all_platforms: bool,
    /// What refers to it, too: signatures, bills of materials.
    pub referrers: bool,
}

impl Engine {
    /// Fetches an image or artifact, or all of a repository's.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `Unavailable`; `InvalidArgument` for what makes no sense.
    pub async fn pull_with(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PullOptions,
        credentials: Credentials,
        events: mpsc::Sender<PullEvent>,
    ) -> Result<()> {
        if !options.all_tags {
            return self.pull_one(reference, options, credentials, events).await;
        }
        let repository = self.registry.repository(reference, credentials.clone())?;
        let mut tags = repository.tags().await?;
        tags.retain(|tag| !(tag.starts_with("sha256-") && tag.len() == REFERRERS_TAG));
        if tags.is_empty() {
            return Err(Error::not_found(format!(
                "repository {} has no tags",
                reference.familiar_name()
            )));
        }
        for tag in tags {
            let one: Reference =
                format!("{}/{}:{tag}", reference.domain, reference.path).parse()?;
            self.pull_one(&one, options, credentials.clone(), events.clone())
                .await?;
        }
        Ok(())
    }

    async fn pull_one(
        self: &Arc<Self>,
        reference: &Reference,
        options: &PullOptions,
        credentials: Credentials,
        events: mpsc::Sender<PullEvent>,
    ) -> Result<()> {
        let own = || format!("linux/{}", architecture());
        let platform = options.platform.clone().unwrap_or_else(own);
        let repository = self.registry.repository(reference, credentials)?;
        let wanted = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => hull_model::reference::DEFAULT_TAG.to_owned(),
        };
        let begin = PullEvent::From(reference.familiar_name(), wanted.clone());
        let _ = events.send(begin).await;
        let root = repository.manifest(&wanted).await?;
        let content = Arc::clone(&self.images.content);
        let _keeper = content.keeper();
        let fetch = Fetch {
            repository: repository.clone(),
            content: Arc::clone(&content),
            events: events.clone(),
        };
        let index = matches!(root.parse()?, Parsed::Index(_));
        let whole = index && options.all_platforms;
        if whole {
            fetch.graph(&root).await?;
        }
        let found = match find(&repository, root.clone(), &wanted, &platform).await {
            // Others' platforms are wanted, and this host's is not among them.
            Err(error) if whole && error.kind() == ErrorKind::NotFound => None,
            found => Some(found?),
        };
        let mut subjects = vec![root.digest];
        let image = match found {
            Some(found) if found.manifest.is_image() => {
                let id = found.manifest.config.digest;
                let manifest = found.document.digest;
                subjects.extend((manifest != root.digest).then_some(manifest));
                if options.referrers && !whole {
                    // What refers to it does so by its digest: it is kept as it came, so that it
                    // has that digest elsewhere, too.
                    fetch.graph(&found.document).await?;
                }
                let before = self.images.store.find(reference).map(|image| image.id());
                // Held, so that it is not collected before it has its name.
                match self.images.store.hold_id(&id) {
                    Some(_held) => self.name_pulled(id, reference, found.asked).await?,
                    None => self.fetch(&repository, reference, &found, &events).await?,
                }
                Some((id, before != Some(id)))
            }
            // An artifact, or images of other platforms alone.
            _ => {
                if self.images.store.find(reference).is_some() {
                    return Err(in_use(reference));
                }
                if !whole {
                    fetch.graph(&root).await?;
                }
                None
            }
        };
        let mut referrers = Vec::new();
        if options.referrers {
            for subject in &subjects {
                referrers.extend(fetch.referrers(subject).await?);
            }
        }
        let newer = match image {
            Some((_, newer)) => newer,
            None => self
                .images
                .kept(reference)
                .is_none_or(|old| old.document.digest != root.digest),
        };
        if index || image.is_none() || options.referrers {
            let kept = Root {
                document: pointer(&root),
                image: image.map(|(id, _)| id),
                complete: whole || image.is_none() || options.referrers && !index,
                referrers,
                stored: now(),
            };
            self.keep_root(reference, root.clone(), kept).await?;
        }
        let _ = events.send(PullEvent::Digest(root.digest)).await;
        let name = reference.familiar();
        self.events.emit("image", "pull", &name, name_fact(&name));
        let _ = events.send(PullEvent::Done { name, newer }).await;
        Ok(())
    }

    /// Has the names of what was pulled lead to its document. What an earlier pull of the same
    /// document brought beyond this one stays.
    async fn keep_root(&self, reference: &Reference, document: Document, root: Root) -> Result<()> {
        let mut root = root;
        if let Some(old) = self.images.kept(reference)
            && old.document == root.document
        {
            root.complete |= old.complete;
            let known: Vec<Option<Digest>> = root.referrers.iter().map(digest_of).collect();
            let more = old.referrers.iter();
            let more = more.filter(|one| !known.contains(&digest_of(one)));
            let more: Vec<_> = more.cloned().collect();
            root.referrers.extend(more);
            root.stored.clone_from(&old.stored);
            if old == root {
                return Ok(());
            }
        }
        let content = Arc::clone(&self.images.content);
        let names = names(reference, document.digest);
        blocking(move || {
            content.keep_bytes(&document.bytes)?;
            for name in &names {
                content.set_root(name, root.clone())?;
            }
            Ok(())
        })
        .await
    }
}

fn digest_of(referrer: &(Digest, serde_json::Value)) -> Option<Digest> {
    referrer.1.get("digest")?.as_str()?.parse().ok()
}
