//! Names given and taken, images and layers removed.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hull_model::{Digest, ErrorKind, Reference};

use super::index::{Index, Meaning, Taken, name_key, repository_of};
use super::record::ImageRecord;
use super::{ImageStore, StoreError, files, io_kind, now};

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
    /// Leave the nameless images below it, which otherwise go with the last one built upon them.
    pub keep_parents: bool,
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
        let (record, mut names) = {
            let index = self.read_index();
            let record = index
                .by_id(id)
                .ok_or_else(|| StoreError::not_found(&id.to_string()))?;
            (Arc::clone(record), index.names.clone())
        };
        let record = ImageRecord {
            tagged: Some(now()),
            ..ImageRecord::clone(&record)
        };
        self.dirs.write_json(&self.image_file(id), &record)?;
        names.insert(name_key(name), *id);
        self.dirs.write_json(&self.dirs.refs(), &names)?;
        let mut index = self.write_index();
        // It has the same layers as before, so nobody gains or loses one.
        index.images.insert(*id, Arc::new(record));
        index.set_names(names);
        drop(index);
        self.used(id);
        Ok(())
    }

    /// Removes a name, and the image with its last name, as `docker rmi` does. `users` lists the
    /// containers that need an image. An image that is held is not removed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Conflict`] while it is needed.
    pub fn remove(
        &self,
        name: &str,
        options: RemoveOptions,
        users: &dyn Fn(&Digest) -> Vec<ImageUser>,
    ) -> Result<Vec<Removed>, StoreError> {
        let removed = {
            let _writing = self.lock_writing();
            let held = self.holds.lock();
            let (record, meaning) = self.meaning(name)?;
            let id = record.id;
            let (known, children) = {
                let index = self.read_index();
                let names = index.by_image.get(&id).into_iter().flatten();
                (names.cloned().collect::<Vec<_>>(), index.has_children(&id))
            };
            let gone: Vec<String> = match &meaning {
                Meaning::Name(reference) => names_to_take(&known, reference),
                Meaning::Id => known.clone(),
            };
            let last = gone.len() == known.len();
            let in_use = users(&id);
            if last {
                let wish = Wish {
                    name,
                    meaning: &meaning,
                    force: options.force,
                };
                wish.check(&record, &known, &in_use, children)?;
                if held.contains_key(&id) {
                    return Err(StoreError::Conflict(format!(
                        "unable to remove {name:?}: a container of it is being created: try again"
                    )));
                }
            }
            // An image that a stopped container needs stays, nameless, until that is gone.
            if last && in_use.is_empty() && !children {
                let mut parents = self.read_index().ancestors(&record);
                if options.keep_parents {
                    parents.clear();
                }
                // A parent that is needed ends the row.
                let needed = |id: &Digest| held.contains_key(id) || !users(id).is_empty();
                parents.truncate(parents.iter().take_while(|id| !needed(id)).count());
                let taken = {
                    let mut index = self.write_index();
                    let mut taken: Vec<Taken> = index.take_image(&id).into_iter().collect();
                    take_nameless(&mut index, &parents, &mut taken);
                    taken
                };
                drop(held);
                self.finish_removal(taken)?
            } else {
                drop(held);
                self.untag(&gone)?
            }
        };
        self.remove_unused_layers()?;
        Ok(removed)
    }

    fn untag(&self, gone: &[String]) -> Result<Vec<Removed>, StoreError> {
        let mut names = self.read_index().names.clone();
        let mut removed = Vec::new();
        for key in gone {
            names.remove(key);
            removed.extend(untagged(key));
        }
        self.dirs.write_json(&self.dirs.refs(), &names)?;
        self.write_index().set_names(names);
        Ok(removed)
    }

    /// Removes images that nobody needs: those without a tag, or with `all` also those with one,
    /// but for the built-in ones. Returns what went and how many bytes it freed.
    ///
    /// # Errors
    /// If a file operation fails; what was removed before stays removed.
    pub fn prune(
        &self,
        all: bool,
        wanted: &dyn Fn(&super::Image) -> bool,
        in_use: &dyn Fn(&Digest) -> bool,
    ) -> Result<(Vec<Removed>, u64), StoreError> {
        let removed = self.take_where(in_use, &mut |index, _| {
            let images = index.images.values().map(|record| index.image(record));
            images
                .filter(|image| image.tags.is_empty() || all && image.record.source_stamp.is_none())
                .filter(|image| wanted(image))
                .map(|image| image.id())
                .collect()
        })?;
        let freed = self.remove_unused_layers()?;
        Ok((removed, freed))
    }

    /// Removes of the images that `choose` names those that nobody needs and none that stays was
    /// built upon. Nobody can begin to use one while it chooses; it must not ask the store.
    pub(super) fn take_where(
        &self,
        in_use: &dyn Fn(&Digest) -> bool,
        choose: &mut dyn FnMut(&Index, &HashSet<Digest>) -> Vec<Digest>,
    ) -> Result<Vec<Removed>, StoreError> {
        let _writing = self.lock_writing();
        let mut taken = Vec::new();
        {
            let held = self.holds.lock();
            let needed = self.needed(&held, in_use);
            let mut index = self.write_index();
            let mut left = choose(&index, &needed);
            left.retain(|id| !needed.contains(id));
            loop {
                let before = left.len();
                left.retain(|id| {
                    let stays = index.has_children(id);
                    if !stays {
                        taken.extend(index.take_image(id));
                    }
                    stays
                });
                if left.len() == before {
                    break;
                }
            }
        }
        self.finish_removal(taken)
    }

    /// Images that are held or that a container uses. `in_use` is asked while the index is free:
    /// whoever answers may look into it.
    pub(super) fn needed(
        &self,
        held: &HashMap<Digest, usize>,
        in_use: &dyn Fn(&Digest) -> bool,
    ) -> HashSet<Digest> {
        let all: Vec<Digest> = self.read_index().images.keys().copied().collect();
        all.into_iter()
            .filter(|id| held.contains_key(id) || in_use(id))
            .collect()
    }

    /// Makes the going of images durable: names first, so that none leads nowhere. Their layers go
    /// with [`Self::remove_unused_layers`].
    fn finish_removal(&self, taken: Vec<Taken>) -> Result<Vec<Removed>, StoreError> {
        if taken.iter().any(|one| !one.names.is_empty()) {
            let names = self.read_index().names.clone();
            match self.dirs.write_json(&self.dirs.refs(), &names) {
                // A full disk is what this is done against. A name that leads nowhere is dropped
                // when the store is opened; it is taken off as soon as there is room.
                Err(StoreError::Io { source, .. })
                    if io_kind(&source) == ErrorKind::Unavailable =>
                {
                    self.names_behind.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    let mut index = self.write_index();
                    for one in taken {
                        index.put_back(one);
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        let needed = self.read_index().needed_blobs();
        let mut removed = Vec::new();
        for Taken { record, names } in taken {
            files::delete(&self.image_file(&record.id))?;
            for blob in std::iter::once(record.id).chain(record.manifest) {
                if !needed.contains(&blob) {
                    files::delete(&self.blob_file(&blob))?;
                }
            }
            self.uses.forget(&record.id);
            removed.extend(names.iter().filter_map(|name| untagged(name)));
            removed.push(Removed::Deleted(record.id));
        }
        Ok(removed)
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
        self.catch_up_names();
        Ok(freed)
    }

    /// Writes the names that a full disk did not take.
    pub(super) fn catch_up_names(&self) {
        if self.names_behind.swap(false, Ordering::Relaxed) {
            let _writing = self.lock_writing();
            let names = self.read_index().names.clone();
            let written = self.dirs.write_json(&self.dirs.refs(), &names);
            self.names_behind
                .fetch_or(written.is_err(), Ordering::Relaxed);
        }
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

    /// Deletes documents that no record needs; returns how many. The caller holds `writing`, so
    /// that none is between its document and its record.
    pub(super) fn remove_unused_blobs(&self) -> Result<usize, StoreError> {
        let needed = self.read_index().needed_blobs();
        let mut count = 0;
        for name in files::names(&self.dirs.blobs())? {
            if !Digest::from_hex(&name).is_ok_and(|blob| needed.contains(&blob)) {
                files::delete(&self.dirs.blobs().join(name))?;
                count += 1;
            }
        }
        Ok(count)
    }
}

fn untagged(key: &str) -> Option<Removed> {
    let reference: Reference = key.parse().ok()?;
    Some(Removed::Untagged(reference.familiar()))
}

/// Takes the nameless images along that the one taken was built upon, the nearest first.
fn take_nameless(index: &mut Index, parents: &[Digest], taken: &mut Vec<Taken>) {
    for id in parents {
        let named = index
            .by_image
            .get(id)
            .is_some_and(|names| !names.is_empty());
        if named || index.has_children(id) {
            return;
        }
        taken.extend(index.take_image(id));
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

/// What the user asked for.
struct Wish<'a> {
    name: &'a str,
    meaning: &'a Meaning,
    force: bool,
}

impl Wish<'_> {
    /// Whether an image may lose its last name.
    fn check(
        &self,
        record: &ImageRecord,
        known: &[String],
        users: &[ImageUser],
        children: bool,
    ) -> Result<(), StoreError> {
        let name = self.name;
        let id = record.id.hex();
        let short = id.get(..12).unwrap_or(&id);
        if let Some(user) = users.iter().find(|user| user.running) {
            return Err(StoreError::Conflict(format!(
                "unable to remove {name:?} (cannot be forced): image {short} is being used by running container {}",
                user.container
            )));
        }
        let by_id = *self.meaning == Meaning::Id;
        // By its name it loses that alone, and stays for those built upon it.
        if by_id && children {
            return Err(StoreError::Conflict(format!(
                "unable to delete {short} (cannot be forced): image has dependent child images"
            )));
        }
        if self.force {
            return Ok(());
        }
        if let Some(user) = users.first() {
            return Err(StoreError::Conflict(format!(
                "unable to remove {name:?} (must force): container {} is using its referenced image {short}",
                user.container
            )));
        }
        if by_id && !is_single(known) {
            return Err(StoreError::Conflict(format!(
                "unable to delete {short} (must be forced): image is referenced in multiple repositories"
            )));
        }
        Ok(())
    }
}

/// At most one tag, and digests in its repository alone.
fn is_single(known: &[String]) -> bool {
    let tags = known.iter().filter(|name| !name.contains('@')).count();
    let mut repositories: Vec<&str> = known.iter().map(|name| repository_of(name)).collect();
    repositories.sort_unstable();
    repositories.dedup();
    tags <= 1 && repositories.len() <= 1
}
