//! Names given and taken, images and layers removed.

use std::path::PathBuf;
use std::sync::Arc;

use hull_model::{Digest, Reference};

use super::index::{Meaning, name_key, repository_of};
use super::record::ImageRecord;
use super::{ImageStore, StoreError, files};

/// A container that needs an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUser {
    /// Short id of the container.
    pub container: String,
    /// True while it runs.
    pub running: bool,
}

/// How far `rmi` may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Take all names off, and the name even of an image that a stopped container needs.
    pub force: bool,
}

/// What was removed, in the order in which it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, as people write it.
    Untagged(String),
    /// An image.
    Deleted(Digest),
}

impl ImageStore {
    /// Gives an image one more name; another image that had it loses it.
    ///
    /// # Errors
    /// If the image does not exist or the names cannot be written.
    pub fn tag(&self, id: &Digest, name: &Reference) -> Result<(), StoreError> {
        let _writing = self.lock_writing();
        let mut names = {
            let index = self.read_index();
            index
                .by_id(id)
                .ok_or_else(|| StoreError::not_found(&id.to_string()))?;
            index.names.clone()
        };
        names.insert(name_key(name), *id);
        self.write_names(names)
    }

    fn write_names(&self, names: super::index::Names) -> Result<(), StoreError> {
        self.dirs.write_json(&self.dirs.refs(), &names)?;
        self.write_index().set_names(names);
        Ok(())
    }

    /// Removes a name, and the image with its last name, as `docker rmi` does. `users` lists the
    /// containers that need an image; the caller makes sure that none is added meanwhile.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Conflict`] while it is needed.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: &dyn Fn(&Digest) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>, StoreError> {
        let (record, meaning) = self.meaning(name)?;
        let mut removed = Vec::new();
        {
            let _writing = self.lock_writing();
            let id = record.id;
            let known: Vec<String> = {
                let index = self.read_index();
                let names = index.by_image.get(&id).into_iter().flatten();
                names.cloned().collect()
            };
            let users = users(&id);
            let mut names = self.read_index().names.clone();
            let gone: Vec<String> = match &meaning {
                Meaning::Name(reference) => names_to_take(&known, reference),
                Meaning::Id => known.clone(),
            };
            let last = gone.len() == known.len();
            if last {
                check_removal(&record, &meaning, &known, options, &users, name)?;
            }
            for key in &gone {
                names.remove(key);
                if let Ok(reference) = key.parse::<Reference>() {
                    removed.push(Removed::Untagged(reference.familiar()));
                }
            }
            self.write_names(names)?;
            // An image that a stopped container needs stays, nameless, until that is gone.
            if last && users.is_empty() && !self.has_children(&id) {
                self.delete_image(&record)?;
                removed.push(Removed::Deleted(id));
            }
        }
        self.remove_unused_layers()?;
        Ok(removed)
    }

    /// Removes images that nobody needs: those without a tag, or with `all` also those with one.
    /// Returns what went and how many bytes it freed.
    ///
    /// # Errors
    /// If a file operation fails; what was removed before stays removed.
    pub fn prune(
        &self,
        all: bool,
        wanted: &dyn Fn(&super::Image) -> bool,
        in_use: &dyn Fn(&Digest) -> bool,
    ) -> Result<(Vec<Removed>, u64), StoreError> {
        let mut removed = Vec::new();
        for image in self.list() {
            let id = image.id();
            let dangling = image.tags.is_empty();
            let builtin = image.record.source_stamp.is_some();
            if !(dangling || all && !builtin)
                || in_use(&id)
                || !wanted(&image)
                || self.has_children(&id)
            {
                continue;
            }
            let _writing = self.lock_writing();
            let mut names = self.read_index().names.clone();
            names.retain(|_, owner| *owner != id);
            self.write_names(names)?;
            let gone = image.tags.iter().chain(&image.digests);
            removed.extend(gone.map(|name| Removed::Untagged(name.familiar())));
            self.delete_image(&image.record)?;
            removed.push(Removed::Deleted(id));
        }
        let freed = self.remove_unused_layers()?;
        Ok((removed, freed))
    }

    fn has_children(&self, id: &Digest) -> bool {
        let index = self.read_index();
        index.images.values().any(|i| i.parent == Some(*id))
    }

    /// Removes the record; its layers go with [`Self::remove_unused_layers`].
    fn delete_image(&self, record: &Arc<ImageRecord>) -> Result<(), StoreError> {
        files::delete(&self.image_file(&record.id))?;
        let manifest_needed = {
            let mut index = self.write_index();
            if index.images.remove(&record.id).is_some() {
                index.release(record.layers());
            }
            let mut images = index.images.values();
            images.any(|other| other.manifest.is_some() && other.manifest == record.manifest)
        };
        files::delete(&self.blob_file(&record.id))?;
        if let Some(manifest) = record.manifest
            && !manifest_needed
        {
            files::delete(&self.blob_file(&manifest))?;
        }
        Ok(())
    }

    /// Removes layers that no image and no transaction needs; returns the bytes freed.
    ///
    /// # Errors
    /// If one cannot be moved away or deleted.
    pub fn remove_unused_layers(&self) -> Result<u64, StoreError> {
        let (trash, freed) = self.trash_unused_layers()?;
        for path in trash {
            files::delete(&path)?;
        }
        Ok(freed)
    }

    /// Moves such layers to `tmp`; returns where they lie and their size.
    pub(super) fn trash_unused_layers(&self) -> Result<(Vec<PathBuf>, u64), StoreError> {
        let (mut trash, mut freed) = (Vec::new(), 0);
        let _writing = self.lock_writing();
        let unused = self.write_index().take_unused_layers();
        for meta in unused {
            freed += meta.tree_bytes;
            trash.extend(self.dirs.trash(&self.layer_dir(&meta.diff_id))?);
            files::delete(&self.link_path(meta.link))?;
        }
        Ok((trash, freed))
    }
}

/// Names that go when one is removed: the name itself, and with the last tag of a repository
/// also its digests.
fn names_to_take(known: &[String], reference: &Reference) -> Vec<String> {
    let key = name_key(reference);
    let repository = repository_of(&key).to_owned();
    let same: Vec<&String> = known
        .iter()
        .filter(|name| repository_of(name) == repository)
        .collect();
    let tags_left = same.iter().any(|name| **name != key && !name.contains('@'));
    let takes = |name: &String| *name == key || (!tags_left && name.contains('@'));
    let mut taken: Vec<String> = same.into_iter().filter(|n| takes(n)).cloned().collect();
    taken.sort_by_key(|name| *name != key);
    taken
}

fn check_removal(
    record: &ImageRecord,
    meaning: &Meaning,
    known: &[String],
    options: RemoveOptions,
    users: &[ImageUser],
    name: &str,
) -> Result<(), StoreError> {
    let id = record.id.hex();
    let short = id.get(..12).unwrap_or(&id);
    if let Some(user) = users.iter().find(|user| user.running) {
        return Err(StoreError::Conflict(format!(
            "unable to remove {name:?} (cannot be forced): image {short} is being used by running container {}",
            user.container
        )));
    }
    if options.force {
        return Ok(());
    }
    if let Some(user) = users.first() {
        return Err(StoreError::Conflict(format!(
            "unable to remove {name:?} (must force): container {} is using its referenced image {short}",
            user.container
        )));
    }
    if *meaning == Meaning::Id {
        let mut repositories: Vec<&str> = known.iter().map(|n| repository_of(n)).collect();
        repositories.sort_unstable();
        repositories.dedup();
        if repositories.len() > 1 {
            return Err(StoreError::Conflict(format!(
                "unable to delete {short} (must be forced): image is referenced in multiple repositories"
            )));
        }
    }
    Ok(())
}
