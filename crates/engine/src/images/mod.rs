//! Use-cases of images: thin over the image store, which does the work on blocking threads.

mod block;
mod distribution;
pub mod gc;
mod graph;
mod kept;
mod manifest_list;
mod parts;
mod pull;
mod pull_options;
mod push;
mod push_options;
mod search;
pub mod stream;
mod transfer;
pub(crate) mod turns;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use hull_image::content::ContentStore;
use hull_image::limits::Limits;
use hull_image::store::{
    DiskUsage, HistoryLine, Hold, ImageUser, RemoveOptions as RemoveImage, Removed,
};
use hull_image::{ImageStore, RootKind};
use hull_model::{Digest, Error, ImageConfig, Reference, Result};

use crate::Engine;
use crate::filters::Filters;
use crate::settings::Settings;

pub use distribution::Inspected;
pub use hull_image::Image as StoredImage;
pub use hull_image::store::Removed as ImageRemoved;
pub use hull_registry::{Descriptor, PlatformOf};
pub use kept::{Artifact, Kept};
pub use manifest_list::{ListEntry, ListPush};
pub use parts::LayerPart;
pub use pull::PullEvent;
pub use pull_options::PullOptions;
pub use push::PushEvent;
pub use push_options::PushOptions;
pub use search::{SearchFilters, SearchResult};
pub use transfer::{LoadEvent, Loaded};

/// The images of this engine.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) store: Arc<ImageStore>,
    /// What is kept as it came.
    pub(crate) content: Arc<ContentStore>,
    hello: PathBuf,
}

/// An image as a container uses it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) id: Digest,
    pub(crate) host: bool,
    stored: StoredImage,
}

impl Image {
    pub(crate) fn config(&self) -> &ImageConfig {
        self.stored.config()
    }

    pub(crate) fn stored(&self) -> &StoredImage {
        &self.stored
    }
}

impl From<StoredImage> for Image {
    fn from(stored: StoredImage) -> Self {
        Self {
            id: stored.id(),
            host: stored.record.root == RootKind::Host,
            stored,
        }
    }
}

impl Images {
    pub(crate) fn open(settings: &Settings) -> Result<Self> {
        let store = ImageStore::open(&settings.data_dir.join("image"), Limits::default())?;
        let content = ContentStore::open(&settings.data_dir.join("image/content"))?;
        let images = Self {
            store: Arc::new(store),
            content: Arc::new(content),
            hello: settings.binary("hull-agent"),
        };
        images.sweep_kept()?;
        Ok(images)
    }

    /// Finds an image; the two built-in ones are made when they are first asked for.
    pub(crate) fn resolve(&self, name: &str) -> Result<Image> {
        match name.trim_end_matches(":latest") {
            "hull/hello" => self.store.ensure_hello(&self.hello)?,
            "host" => self.store.ensure_host()?,
            _ => self.store.resolve(name).map_err(|e| match Error::from(e) {
                e if e.kind() == hull_model::ErrorKind::NotFound => {
                    match self.artifact_root(name) {
                        Some(_) => Error::invalid(format!(
                            "{name} is an artifact, or has no image for this host's platform"
                        )),
                        None => Error::not_found(format!("No such image: {}", with_tag(name))),
                    }
                }
                e => e,
            })?,
        };
        Ok(self.store.resolve(name)?.into())
    }

    /// The same, and the image stays for as long as the hold lives.
    pub(crate) fn hold(&self, name: &str) -> Result<(Image, Hold)> {
        let image = self.resolve(name)?;
        let Some((stored, hold)) = self.store.hold_id(&image.id) else {
            // It went in this very moment.
            return Err(Error::not_found(format!(
                "No such image: {}",
                with_tag(name)
            )));
        };
        self.store.used(&image.id);
        Ok((stored.into(), hold))
    }

    pub(crate) fn by_id(&self, id: Digest) -> Result<Image> {
        match self.store.get(&id) {
            Some(image) => Ok(image.into()),
            None => Err(Error::not_found(format!(
                "No such image: {id}: it was removed; load it again"
            ))),
        }
    }

    /// Layers for overlayfs, the topmost first.
    pub(crate) fn lowers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        Ok(self.store.lower_dirs(&image.stored.record)?)
    }
}

/// Names without a tag are shown with the default one, as Docker does.
fn with_tag(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |r| r.familiar())
}

impl Engine {
    /// All images.
    pub fn images(&self) -> Vec<StoredImage> {
        self.images.store.list()
    }

    /// One image.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, name: &str) -> Result<StoredImage> {
        Ok(self.images.resolve(name)?.stored)
    }

    /// How an image came to be, newest first.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image_history(&self, name: &str) -> Result<Vec<HistoryLine>> {
        let image = self.image(name)?;
        Ok(self.images.store.history(&image))
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for a malformed name.
    pub async fn tag(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        let text = if tag.is_empty() {
            repository.to_owned()
        } else {
            format!("{repository}:{tag}")
        };
        let reference: Reference = text.parse()?;
        if reference.digest.is_some() {
            return Err(Error::invalid(
                "refusing to create a tag with a digest reference",
            ));
        }
        let image = match self.image(name) {
            Ok(image) => image,
            Err(_) if self.tag_kept(name, &reference).await? => return Ok(()),
            Err(error) => return Err(error),
        };
        let store = Arc::clone(&self.images.store);
        let (id, new) = (image.id(), reference.clone());
        blocking(move || Ok(store.tag(&id, &new)?)).await?;
        self.tag_kept(name, &reference).await?;
        self.events
            .emit("image", "tag", &id.to_string(), name_fact(&text));
        Ok(())
    }

    /// Removes a name, and with its last name the image; with `keep_parents` not the nameless ones
    /// below it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while a container needs it.
    pub async fn remove_image(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        keep_parents: bool,
    ) -> Result<Vec<Removed>> {
        if self.images.store.resolve(name).is_err()
            && let Some(removed) = self.remove_artifact(name).await?
        {
            return Ok(removed);
        }
        let (engine, key) = (Arc::clone(self), name.to_owned());
        let removed = blocking(move || {
            let users = |id: &Digest| engine.users_of(id);
            Ok(engine.images.store.remove(
                &key,
                RemoveImage {
                    force,
                    keep_parents,
                },
                &users,
            )?)
        })
        .await
        .map_err(|e| match e.kind() {
            hull_model::ErrorKind::NotFound => {
                Error::not_found(format!("No such image: {}", with_tag(name)))
            }
            _ => e,
        })?;
        for one in &removed {
            match one {
                Removed::Untagged(tag) => self.events.emit("image", "untag", tag, name_fact(tag)),
                Removed::Deleted(id) => {
                    self.events
                        .emit("image", "delete", &id.to_string(), name_fact(name))
                }
            }
        }
        self.sweep_unneeded().await?;
        Ok(removed)
    }

    fn users_of(&self, id: &Digest) -> Vec<ImageUser> {
        let user = |r: hull_state::ContainerRecord| ImageUser {
            container: r.id.get(..12).unwrap_or(&r.id).to_owned(),
            running: r.state.is_running(),
        };
        self.containers
            .all()
            .iter()
            .map(|c| c.record())
            .filter(|r| r.image_id == Some(*id))
            .map(user)
            .collect()
    }

    /// Containers by the image they use.
    pub fn image_use(&self) -> HashMap<Digest, usize> {
        let mut counts = HashMap::new();
        for container in self.containers.all() {
            if let Some(id) = container.with(|r| r.image_id) {
                *counts.entry(id).or_default() += 1;
            }
        }
        counts
    }

    /// Removes images that nobody needs: those without a name, or all unused with `dangling=false`.
    ///
    /// # Errors
    /// For an unknown filter.
    pub async fn prune_images(self: &Arc<Self>, filters: &Filters) -> Result<(Vec<Removed>, u64)> {
        filters.allow_only(&["dangling", "until", "label", "label!"])?;
        let all = filters.bool("dangling")?.is_some_and(|dangling| !dangling);
        // A malformed time is an error before anything goes.
        crate::containers::created_before(filters, 0)?;
        let (engine, filters) = (Arc::clone(self), filters.clone());
        let (removed, freed) = blocking(move || {
            let needs = gc::Needs::of(&engine);
            let wanted = |image: &StoredImage| {
                let created = image
                    .record
                    .config
                    .created
                    .as_deref()
                    .and_then(crate::system::time::parse)
                    .unwrap_or(0);
                filters.match_labels(&image.config().config.labels)
                    && crate::containers::created_before(&filters, created.max(0) as u64)
                        .unwrap_or(false)
            };
            Ok(engine
                .images
                .store
                .prune(all, &wanted, &|id| needs.has(id))?)
        })
        .await?;
        let freed = freed + self.sweep_unneeded().await?;
        for one in &removed {
            match one {
                Removed::Untagged(tag) => self.events.emit("image", "untag", tag, name_fact(tag)),
                Removed::Deleted(id) => {
                    let id = id.to_string();
                    self.events.emit("image", "delete", &id, name_fact(&id));
                }
            }
        }
        self.tell_pruned("image", freed);
        Ok((removed, freed))
    }

    /// Space that images take.
    pub fn image_disk_usage(&self) -> DiskUsage {
        let used = self.image_use();
        self.images.store.disk_usage(&|id| used.contains_key(id))
    }
}

pub(crate) fn name_fact(name: &str) -> std::collections::BTreeMap<String, String> {
    [("name".to_owned(), name.to_owned())].into()
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::internal("an operation broke off", error)),
    }
}
