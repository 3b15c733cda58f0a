//! Files that appear whole: written under `tmp`, synced, renamed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// Largest file of our own that is read into memory. A layer's metadata grows with the number of
/// replaced files; nothing else comes near.
const MAX_OWN_FILE_BYTES: u64 = 256 << 20;

/// The directories of a store.
#[derive(Debug)]
pub(crate) struct Dirs {
    pub(crate) base: PathBuf,
    counter: AtomicU64,
}

impl Dirs {
    /// Makes what is missing.
    pub(crate) fn create(base: &Path) -> Result<Self, StoreError> {
        let dirs = Self {
            base: base.to_owned(),
            counter: AtomicU64::new(0),
        };
        for dir in [
            dirs.base.clone(),
            dirs.blobs(),
            dirs.layers(),
            dirs.links(),
            dirs.images(),
            dirs.tmp(),
        ] {
            fs::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        }
        // Images hold set-id programs and secrets of others: nobody but the owner goes in.
        fs::set_permissions(base, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(|e| StoreError::io("set mode of", base, e))?;
        Ok(dirs)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.base.join("blobs/sha256")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.base.join("layers")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.base.join("l")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.base.join("images")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.base.join("refs.json")
    }

    /// What lies in `tmp` from before; new names will differ from these.
    pub(crate) fn leftovers(&self) -> Result<Vec<PathBuf>, StoreError> {
        let names = names(&self.tmp())?;
        let highest = names.iter().filter_map(|n| n.parse::<u64>().ok()).max();
        if let Some(highest) = highest {
            self.counter
                .fetch_max(highest.saturating_add(1), Ordering::Relaxed);
        }
        Ok(names.iter().map(|name| self.tmp().join(name)).collect())
    }

    /// A name in `tmp` that nobody else uses.
    pub(crate) fn fresh(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.tmp().join(number.to_string())
    }

    /// Writes a file that appears whole and durable, or not at all.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let tmp = self.fresh();
        let written = (|| {
            let mut file = File::create_new(&tmp)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&tmp, path)
        })();
        written.map_err(|e| {
            // Best effort: what stays is removed when the store is opened next.
            let _ = fs::remove_file(&tmp);
            StoreError::io("write", path, e)
        })
    }

    pub(crate) fn write_json<T: Serialize>(
        &self,
        path: &Path,
        value: &T,
    ) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Json {
            path: path.to_owned(),
            source,
        })?;
        self.write(path, &bytes)
    }

    /// Moves a file or tree out of sight at once; the caller deletes the returned path.
    pub(crate) fn trash(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let trash = self.fresh();
        match fs::rename(path, &trash) {
            Ok(()) => Ok(Some(trash)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("remove", path, e)),
        }
    }
}

/// Reads a file of our own.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_OWN_FILE_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| StoreError::io("read", path, e))
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    serde_json::from_slice(&read(path)?).map_err(|source| StoreError::Json {
        path: path.to_owned(),
        source,
    })
}

/// Deletes a file or a tree; what is not there counts as deleted.
pub(crate) fn delete(path: &Path) -> Result<(), StoreError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(StoreError::io("delete", path, e)),
    };
    let deleted = if kind.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    deleted.map_err(|e| StoreError::io("delete", path, e))
}

/// Names in a directory that are UTF-8; ours all are.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .filter_map(|item| match item {
                Ok(item) => item.file_name().into_string().ok().map(Ok),
                Err(e) => Some(Err(e)),
            })
            .collect()
    };
    read().map_err(|e| StoreError::io("list", dir, e))
}
