//! Snapshots for overlayfs: `BASE/<id>/{upper,work}`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::block::{self, Turns};
use crate::changes::{self, Change};
use crate::{Rootfs, SnapshotError, Snapshotter, Usage, quota, view};

/// Mode of an upper directory unless the layer below says otherwise.
const ROOT_MODE: u32 = 0o755;
/// Names that begin with a dot are ours; ids cannot.
const TRASH: &str = ".trash";
const EMPTY: &str = ".empty";
const FILLER: &str = ".filler";

/// Keeps snapshots in a directory.
#[derive(Debug)]
pub struct Overlay {
    base: PathBuf,
    empty: PathBuf,
    /// An empty layer under views of one layer only; overlayfs takes no directory twice.
    filler: PathBuf,
    trash: PathBuf,
    counter: AtomicU64,
    /// Held while a number for a project is chosen.
    choosing: Mutex<()>,
    /// Of those who make block images and templates of disks.
    turns: Turns,
}

impl Overlay {
    /// Opens the snapshots in `base`, making the directory if it is not there. What was in the
    /// trash stays there until [`Snapshotter::empty_trash`], which a daemon calls after its start.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(base: &Path) -> Result<Self, SnapshotError> {
        let empty = base.join(EMPTY);
        let filler = base.join(FILLER);
        let trash = base.join(TRASH);
        for dir in [base, &trash, &empty, &filler] {
            fs::create_dir_all(dir).map_err(|e| SnapshotError::io("create", dir, e))?;
        }
        fs::set_permissions(base, fs::Permissions::from_mode(0o700))
            .map_err(|e| SnapshotError::io("set mode of", base, e))?;
        block::sweep(base);
        // Numbers of leftovers must not be used again.
        let used = names(&trash)?
            .iter()
            .filter_map(|name| name.parse::<u64>().ok())
            .max();
        Ok(Self {
            base: base.to_owned(),
            empty,
            filler,
            trash,
            counter: AtomicU64::new(used.map_or(0, |n| n.saturating_add(1))),
            choosing: Mutex::new(()),
            turns: Turns::default(),
        })
    }

    pub(crate) fn choosing(&self) -> MutexGuard<'_, ()> {
        self.choosing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn filler(&self) -> &Path {
        &self.filler
    }

    pub(crate) fn dir(&self, id: &str) -> Result<PathBuf, SnapshotError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if id.is_empty() || id.starts_with('.') || id.len() > 255 || !id.bytes().all(plain) {
            return Err(SnapshotError::Id(id.to_owned()));
        }
        Ok(self.base.join(id))
    }

    fn existing_upper(&self, id: &str) -> Result<PathBuf, SnapshotError> {
        let upper = self.dir(id)?.join("upper");
        if upper.is_dir() {
            Ok(upper)
        } else {
            Err(SnapshotError::NotFound(id.to_owned()))
        }
    }

    /// The upper directory of `id`, if it was started before.
    ///
    /// # Errors
    /// If the id is not a plain name.
    pub fn upper_of(&self, id: &str) -> Result<Option<PathBuf>, SnapshotError> {
        match self.existing_upper(id) {
            Ok(upper) => Ok(Some(upper)),
            Err(SnapshotError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// An empty directory that a thread with mounts of its own mounts on.
    pub(crate) fn slot(&self, number: usize) -> Result<PathBuf, SnapshotError> {
        let slot = self.base.join(format!(".slot{number}"));
        make_dir(&slot, 0o700)?;
        Ok(slot)
    }

    /// Layers to stand on: a tree that is always there if the image has none.
    pub(crate) fn lowers(&self, lowers: &[PathBuf]) -> Vec<PathBuf> {
        if lowers.is_empty() {
            vec![self.empty.clone()]
        } else {
            lowers.to_vec()
        }
    }

    fn trash(&self, path: &Path) -> Result<(), SnapshotError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        match fs::rename(path, self.trash.join(number.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", path, e))
            }
            _ => Ok(()),
        }
    }
}

impl Snapshotter for Overlay {
    fn prepare(&self, id: &str, lowers: &[PathBuf]) -> Result<Rootfs, SnapshotError> {
        let dir = self.dir(id)?;
        let lowers = self.lowers(lowers);
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        make_dir(&dir, 0o700)?;
        // After a volatile mount that did not end well the kernel leaves a mark in here, and
        // refuses the directory. Nothing in it is worth keeping.
        if !make_dir(&work, 0o700)? && dir_has_entries(&work)? {
            self.trash(&work)?;
            make_dir(&work, 0o700)?;
        }
        if make_dir(&upper, ROOT_MODE)?
            && let Some(top) = lowers.first()
        {
            like_the_layer_below(&upper, top)?;
        }
        Ok(Rootfs {
            lowers,
            upper,
            work,
        })
    }

    fn view(&self, id: Option<&str>, lowers: &[PathBuf]) -> Result<OwnedFd, SnapshotError> {
        let mut all = Vec::with_capacity(lowers.len() + 2);
        if let Some(id) = id {
            all.push(self.existing_upper(id)?);
        }
        all.extend(self.lowers(lowers));
        // Overlayfs wants two layers where it cannot write; an empty one changes nothing.
        if all.len() < 2 {
            all.push(self.filler.clone());
        }
        view::merged(&all)
    }

    fn remove(&self, id: &str) -> Result<(), SnapshotError> {
        self.trash(&self.dir(id)?)
    }

    fn empty_trash(&self) -> Result<(), SnapshotError> {
        let mut first = Ok(());
        for name in names(&self.trash)? {
            let path = self.trash.join(name);
            let deleted = match quota::delete(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(SnapshotError::io("delete", &path, e))
                }
                _ => Ok(()),
            };
            first = first.and(deleted);
        }
        first
    }

    fn usage(&self, id: &str) -> Result<Usage, SnapshotError> {
        match self.existing_upper(id) {
            // A guest's disk counts by the blocks that it takes; what is in it is the guest's affair.
            Err(SnapshotError::NotFound(id)) => match self.disk(&id)? {
                Some(disk) => Ok(Usage {
                    bytes: disk.used,
                    inodes: 0,
                }),
                None => Err(SnapshotError::NotFound(id)),
            },
            upper => changes::usage(&upper?),
        }
    }

    fn changes(&self, id: &str, lowers: &[PathBuf]) -> Result<Vec<Change>, SnapshotError> {
        let upper = self.existing_upper(id)?;
        let below = self.view(None, lowers)?;
        changes::changes(&upper, &below)
    }

    fn list(&self) -> Result<Vec<String>, SnapshotError> {
        let mut names = names(&self.base)?;
        names.retain(|name| !name.starts_with('.'));
        Ok(names)
    }

    fn empty_dir(&self) -> &Path {
        &self.empty
    }
}

/// Makes a directory; false if it was there.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<bool, SnapshotError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(SnapshotError::io("create", path, e)),
    }
}

fn dir_has_entries(path: &Path) -> Result<bool, SnapshotError> {
    let mut entries = fs::read_dir(path).map_err(|e| SnapshotError::io("list", path, e))?;
    Ok(entries.next().is_some())
}

/// The root of the merged tree shows the attributes of the upper directory, so they must be those
/// of the layer below.
fn like_the_layer_below(upper: &Path, lower: &Path) -> Result<(), SnapshotError> {
    let meta = fs::metadata(lower).map_err(|e| SnapshotError::io("read layer", lower, e))?;
    let fail = |e| SnapshotError::io("set mode of", upper, e);
    if (meta.uid(), meta.gid()) != (0, 0) {
        std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(fail)?;
    }
    // Always: the umask may have taken bits from the mode given at creation.
    fs::set_permissions(upper, fs::Permissions::from_mode(meta.mode() & 0o7777)).map_err(fail)
}

fn names(dir: &Path) -> Result<Vec<String>, SnapshotError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .filter_map(|item| match item {
                Ok(item) => item.file_name().into_string().ok().map(Ok),
                Err(e) => Some(Err(e)),
            })
            .collect()
    };
    read().map_err(|e| SnapshotError::io("list", dir, e))
}
