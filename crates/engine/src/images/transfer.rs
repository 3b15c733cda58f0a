//! Images in and out as archives.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use hull_image::archive::{LoadOptions, LoadProgress, SaveOptions};
use hull_image::import::ImportOptions;
use hull_model::{Digest, Error, Reference, Result};
use tokio::sync::mpsc;

use super::stream::{ChannelReader, ChannelWriter, Chunk, channel};
use super::{StoredImage, blocking, name_fact};
use crate::Engine;

/// What a load tells on its way.
pub type LoadEvent = LoadProgress;

/// What a load brought.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Each image with the names that the archive gave it.
    pub images: Vec<(StoredImage, Vec<Reference>)>,
    /// Names of artifacts, and of indexes without an image for this host.
    pub kept: Vec<Reference>,
    /// What had to be left out.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Loads every image of an archive; one that is `partial` may lack layers that are here.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no sound archive; nothing of it is kept.
    pub async fn load(
        self: &Arc<Self>,
        body: mpsc::Receiver<Chunk>,
        platform: Option<String>,
        partial: bool,
        progress: mpsc::Sender<LoadEvent>,
    ) -> Result<Loaded> {
        let store = Arc::clone(&self.images.store);
        let content = Arc::clone(&self.images.content);
        let report = blocking(move || {
            let mut reader = ChannelReader::new(body);
            // A reader of progress that lags misses steps, not the load.
            let tell = |event| drop(progress.try_send(event));
            let options = LoadOptions {
                platform: platform.as_deref(),
                partial,
                content: Some(&content),
            };
            store
                .load_with(&mut reader, &options, &tell)
                .map_err(Error::from)
        })
        .await?;
        let images = report.images.into_iter();
        let images: Vec<_> = images.map(|l| (l.image, l.names)).collect();
        for (image, names) in &images {
            let name = names
                .first()
                .map_or_else(|| image.id().to_string(), Reference::familiar);
            self.events
                .emit("image", "load", &image.id().to_string(), name_fact(&name));
        }
        Ok(Loaded {
            images,
            kept: report.kept,
            warnings: report.warnings,
        })
    }

    /// Makes an image of a root file system tar, for this platform or another.
    ///
    /// # Errors
    /// `InvalidArgument` for an unsound tar, change or name.
    pub async fn import(
        self: &Arc<Self>,
        body: mpsc::Receiver<Chunk>,
        name: Option<String>,
        message: String,
        changes: Vec<String>,
        platform: Option<String>,
    ) -> Result<(StoredImage, Vec<String>)> {
        let reference = name
            .filter(|n| !n.is_empty())
            .map(|n| n.parse::<Reference>())
            .transpose()?;
        let store = Arc::clone(&self.images.store);
        let image = blocking(move || {
            let options = ImportOptions {
                changes,
                message,
                name: reference,
                platform,
            };
            store
                .import(&mut ChannelReader::new(body), &options, &|_| {})
                .map_err(Error::from)
        })
        .await?;
        let (image, warnings) = image;
        self.events.emit(
            "image",
            "import",
            &image.id().to_string(),
            name_fact(&image.id().to_string()),
        );
        Ok((image, warnings))
    }

    /// Downloads an archive, to be given to [`Self::import`].
    ///
    /// # Errors
    /// If it cannot be had; what breaks later ends the stream.
    pub async fn download(&self, address: &str) -> Result<mpsc::Receiver<Chunk>> {
        let mut download = self.registry.download(address).await?;
        let (sender, receiver) = channel();
        tokio::spawn(async move {
            loop {
                let chunk = match download.next().await {
                    Ok(Some(bytes)) => Ok(bytes.to_vec()),
                    Ok(None) => return,
                    Err(error) => Err(std::io::Error::other(Error::from(error).chain())),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// Writes images and artifacts as one archive, without these layers of the images. An image
    /// of which all platforms are here is written with all of them.
    ///
    /// # Errors
    /// `NotFound` before anything is written.
    pub fn save(
        self: &Arc<Self>,
        names: &[String],
        without: BTreeSet<Digest>,
    ) -> Result<mpsc::Receiver<Chunk>> {
        if names.is_empty() {
            return Err(Error::invalid("name at least one image to save"));
        }
        let mut options = SaveOptions {
            without,
            ..SaveOptions::default()
        };
        let mut images = Vec::new();
        for name in names {
            // Whoever asks for a part asks for the image by its layers.
            if options.without.is_empty()
                && let Some(kept) = self.images.save_kept(name)
            {
                options.kept.push(kept);
                continue;
            }
            // Makes the built-in ones.
            self.images.resolve(name)?;
            images.push(name.clone());
        }
        let images = if images.is_empty() {
            Vec::new()
        } else {
            self.images.store.select(&images).map_err(Error::from)?
        };
        let store = Arc::clone(&self.images.store);
        let held: Vec<_> = images
            .iter()
            .map(|one| store.hold_id(&one.image.id()))
            .collect();
        let (sender, receiver) = channel();
        tokio::task::spawn_blocking(move || {
            let _held = held;
            let mut writer = ChannelWriter::new(sender);
            let outcome = store
                .save_with(&images, &options, &mut writer)
                .map_err(|e| std::io::Error::other(Error::from(e).chain()));
            writer.finish(outcome.map(drop));
        });
        Ok(receiver)
    }

    /// Whether a layer is here.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.images.store.layer(diff_id).is_some()
    }

    /// Writes the root file system of a container as a tar.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the image `host`, whose root is the whole host.
    pub fn export(self: &Arc<Self>, key: &str) -> Result<mpsc::Receiver<Chunk>> {
        let record = self.container(key)?;
        crate::containers::machine::refuse(&record, "export")?;
        let root = self.root_view(&record)?;
        let (sender, receiver) = channel();
        tokio::task::spawn_blocking(move || {
            let mut writer = ChannelWriter::new(sender);
            let outcome = hull_image::export::export_tree(root.as_fd(), &mut writer)
                .map_err(std::io::Error::other);
            writer.finish(outcome.map(drop));
        });
        self.events.emit(
            "container",
            "export",
            &record.id,
            crate::containers::attributes(&record),
        );
        Ok(receiver)
    }
}
