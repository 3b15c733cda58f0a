//! The content-addressed store of images under one directory.
//!
//! - `blobs/sha256/<hex>`: configurations and manifests as they came,
//! - `layers/<diff-id>/{fs/, odd/, split.zst, meta.json}`: layers, each kept once,
//! - `l/<n>`: short links to the trees, so that many fit into one page of mount options,
//! - `images/<id>.json`, `refs.json`: records and names,
//! - `tmp/`: everything that is being made or deleted; emptied when the store is opened.
//!
//! Whatever appears outside `tmp` appears by rename, layers before the records that need them and
//! records before the names that lead to them. After a kill at any instruction the next open
//! finds the old state or the new one, and removes layers that no record needs.

mod files;
mod gc;
mod hold;
mod index;
mod open;
mod packed;
mod query;
mod record;
mod remove;
mod transaction;
mod usage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hull_model::{Digest, ErrorKind};

use self::files::Dirs;
pub use self::gc::{GcImage, GcPolicy, GcReason, GcReport};
pub use self::hold::Hold;
use self::index::Index;
pub use self::packed::Packed;
pub use self::query::HistoryLine;
pub use self::record::{Image, ImageRecord, LayerMeta, RootKind};
pub use self::remove::{ImageUser, RemoveOptions, Removed};
pub(crate) use self::transaction::now;
pub use self::transaction::parse_config;
pub use self::transaction::{CaptureError, Upper};
pub use self::transaction::{
    IngestError, LayerJob, LayerProgress, LayerSource, NewImage, Transaction,
};
pub use self::usage::DiskUsage;
use crate::limits::Limits;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No image goes by that name or id.
    #[error("no such image: {name}")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// Several ids begin that way.
    #[error("image id prefix {prefix} is ambiguous: give more digits")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
    },
    /// The name is no reference.
    #[error("{0}")]
    Reference(hull_model::Error),
    /// The state of things forbids it.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A stored document is damaged.
    #[error("stored document {} is damaged", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Where in it.
        #[source]
        source: serde_json::Error,
    },
    /// A layer that a record names is missing.
    #[error("layer {0} is missing from the store: load or pull the image again")]
    LayerMissing(Digest),
}

impl StoreError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn not_found(name: &str) -> Self {
        Self::NotFound {
            name: name.to_owned(),
        }
    }
}

impl From<StoreError> for hull_model::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NotFound { .. } => ErrorKind::NotFound,
            StoreError::Ambiguous { .. } => ErrorKind::InvalidArgument,
            StoreError::Reference(source) => source.kind(),
            StoreError::Conflict(_) => ErrorKind::Conflict,
            StoreError::Io { source, .. } => io_kind(source),
            StoreError::Json { .. } | StoreError::LayerMissing(_) => ErrorKind::Internal,
        };
        from_chain(kind, error)
    }
}

/// A full disk is no fault of ours.
pub(crate) fn io_kind(source: &io::Error) -> ErrorKind {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// Makes an error of the model from one of ours: our message, and our source as its source.
pub(crate) fn from_chain(
    kind: ErrorKind,
    error: impl std::error::Error + Send + Sync + 'static,
) -> hull_model::Error {
    let message = error.to_string();
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        // Transparent variants repeat what stands before them.
        if !message.ends_with(&text) {
            causes.push(text);
        }
        cause = next.source();
    }
    causes.dedup();
    if causes.is_empty() {
        hull_model::Error::new(kind, message)
    } else {
        hull_model::Error::with_source(kind, message, causes.join(": "))
    }
}

/// The store of images. All methods may be called from any thread; those that write files block.
#[derive(Debug)]
pub struct ImageStore {
    dirs: Dirs,
    limits: Limits,
    index: RwLock<Index>,
    /// Held while files are moved into place or out of it.
    writing: Mutex<()>,
    holds: Arc<hold::Holds>,
    uses: hold::Uses,
    next_link: AtomicU32,
    cleaner: Mutex<Option<std::thread::JoinHandle<()>>>,
    warnings: Vec<String>,
    /// The file of names has some whose image is gone, because the disk was full.
    names_behind: AtomicBool,
}

impl ImageStore {
    /// The bounds that apply to foreign images.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The store's directory.
    pub fn base(&self) -> &Path {
        &self.dirs.base
    }

    fn read_index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.dirs.layers().join(diff_id.hex())
    }

    fn link_path(&self, link: u32) -> PathBuf {
        self.dirs.links().join(format!("{link:x}"))
    }

    fn image_file(&self, id: &Digest) -> PathBuf {
        self.dirs.images().join(format!("{}.json", id.hex()))
    }

    fn blob_file(&self, id: &Digest) -> PathBuf {
        self.dirs.blobs().join(id.hex())
    }

    fn new_link(&self) -> u32 {
        self.next_link.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the short link of a layer; one that is there is left alone.
    fn make_link(&self, meta: &LayerMeta) -> Result<(), StoreError> {
        let link = self.link_path(meta.link);
        let target = format!(
            "../layers/{}/{}",
            meta.diff_id.hex(),
            crate::split::TREE_DIR
        );
        match std::os::unix::fs::symlink(target, &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                Err(StoreError::io("link", &link, e))
            }
            _ => Ok(()),
        }
    }
}

/// Name of the metadata in a layer's directory.
pub(crate) const META_FILE: &str = "meta.json";
