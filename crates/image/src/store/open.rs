//! Opening a store: what is there is read, what an interrupted operation left is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::files::{self, Dirs};
use super::hold::Uses;
use super::index::{Index, Names};
use super::record::{ImageRecord, LayerMeta};
use super::{ImageStore, META_FILE, StoreError};
use crate::limits::Limits;

/// What reading a store found out.
#[derive(Default)]
struct Found {
    index: Index,
    uses: Uses,
    next_link: u32,
    /// What belongs to nobody, to be moved away.
    strays: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl ImageStore {
    /// Opens the store in `base`, making it if it is not there; removes what an interrupted
    /// operation left. A layer or record that cannot be read is removed as well, with what needs
    /// it: it comes again with the next pull or load.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(base: &Path, limits: Limits) -> Result<Self, StoreError> {
        let dirs = Dirs::create(base)?;
        let mut trash = dirs.leftovers()?;
        let mut found = Found {
            next_link: 1,
            ..Found::default()
        };
        found.read_layers(&dirs)?;
        found.read_images(&dirs)?;
        for stray in &found.strays {
            trash.extend(dirs.trash(stray)?);
        }
        let mut names: Names = match files::read_json(&dirs.refs()) {
            Ok(names) => names,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Names::new()
            }
            Err(error) => return Err(error),
        };
        names.retain(|_, id| found.index.images.contains_key(id));
        found.index.set_names(names);
        let store = Self {
            dirs,
            limits,
            index: RwLock::new(found.index),
            writing: Mutex::new(()),
            holds: Arc::default(),
            uses: found.uses,
            next_link: AtomicU32::new(found.next_link),
            cleaner: Mutex::new(None),
            warnings: found.warnings,
            names_behind: AtomicBool::new(false),
        };
        trash.extend(store.trash_unused_layers()?.0);
        store.repair_links()?;
        store.remove_unused_blobs()?;
        store.delete_later(trash);
        Ok(store)
    }

    /// What had to be removed when the store was opened, to be logged.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Deletes what lies in `tmp` without keeping the caller waiting: a daemon that starts after
    /// an interrupted load has better things to do.
    fn delete_later(&self, trash: Vec<PathBuf>) {
        if trash.is_empty() {
            return;
        }
        let thread = std::thread::Builder::new()
            .name("image-cleaner".into())
            .spawn(move || {
                for path in trash {
                    // What stays is found again when the store is opened next.
                    let _ = files::delete(&path);
                }
            });
        *self.cleaner.lock().unwrap_or_else(PoisonError::into_inner) = thread.ok();
    }

    /// Waits until what an interrupted operation left, found by [`Self::open`], is deleted.
    pub fn wait_until_clean(&self) {
        let cleaner = self
            .cleaner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = cleaner {
            // A panic there has been reported by the thread itself.
            let _ = thread.join();
        }
    }

    /// Makes missing short links and removes those whose layer is gone.
    fn repair_links(&self) -> Result<(), StoreError> {
        let index = self.read_index();
        for meta in index.layers.values() {
            self.make_link(meta)?;
        }
        for name in files::names(&self.dirs.links())? {
            let link = self.dirs.links().join(name);
            if fs::metadata(&link).is_err() {
                files::delete(&link)?;
            }
        }
        Ok(())
    }
}

impl Found {
    fn read_layers(&mut self, dirs: &Dirs) -> Result<(), StoreError> {
        for name in files::names(&dirs.layers())? {
            let dir = dirs.layers().join(&name);
            let meta = match files::read_json::<LayerMeta>(&dir.join(META_FILE)) {
                Ok(meta) if meta.diff_id.hex() == name => meta,
                Ok(_) => {
                    self.stray(dir, "a layer bears another's name");
                    continue;
                }
                Err(error) => {
                    self.stray(dir, &error.to_string());
                    continue;
                }
            };
            self.next_link = self.next_link.max(meta.link.saturating_add(1));
            self.index.layers.insert(meta.diff_id, Arc::new(meta));
        }
        Ok(())
    }

    fn read_images(&mut self, dirs: &Dirs) -> Result<(), StoreError> {
        for name in files::names(&dirs.images())? {
            let path = dirs.images().join(&name);
            let record = match files::read_json::<ImageRecord>(&path) {
                Ok(record) => record,
                Err(error) => {
                    self.stray(path, &error.to_string());
                    continue;
                }
            };
            let missing = record
                .layers()
                .iter()
                .find(|layer| !self.index.layers.contains_key(*layer));
            if let Some(layer) = missing {
                let why = format!("image {} lacks its layer {layer}", record.id);
                self.stray(path, &why);
                continue;
            }
            let written = fs::metadata(&path).and_then(|meta| meta.modified());
            self.uses.found(
                record.id,
                written.unwrap_or(std::time::SystemTime::UNIX_EPOCH),
            );
            self.index.add_image(Arc::new(record));
        }
        Ok(())
    }

    fn stray(&mut self, path: PathBuf, why: &str) {
        self.warnings.push(format!(
            "removed from the image store: {}: {why}",
            path.display()
        ));
        self.strays.push(path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn open_removes_what_belongs_to_nobody() {
        let tmp = tempfile::tempdir().unwrap();
        let base = tmp.path();
        drop(ImageStore::open(base, Limits::default()).unwrap());
        let hex = "ab".repeat(32);
        for dir in ["layers/half", &format!("layers/{hex}/fs"), "tmp/17/layer-0"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        fs::write(base.join(format!("layers/{hex}/meta.json")), "{").unwrap();
        fs::write(base.join(format!("images/{hex}.json")), "torn").unwrap();
        fs::write(base.join(format!("blobs/sha256/{hex}")), "x").unwrap();
        std::os::unix::fs::symlink("../layers/none/fs", base.join("l/7")).unwrap();
        let store = ImageStore::open(base, Limits::default()).unwrap();
        store.wait_until_clean();
        assert_eq!(store.warnings().len(), 3, "{:?}", store.warnings());
        for dir in ["layers", "images", "blobs/sha256", "l", "tmp"] {
            let left: Vec<_> = fs::read_dir(base.join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
    }
}
