//! Root file systems stacked from layers: a writable one per container, and read-only views.

mod block;
mod changes;
mod error;
mod live;
mod overlay;
mod quota;
mod view;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use block::{BlockImage, Disk, SMALLEST_DISK, key_of_layers};
pub use changes::{Change, ChangeKind};
pub use error::SnapshotError;
pub use live::{Bind, Mounted, Writes};
pub use overlay::Overlay;
pub use quota::Quota;

/// The parts of a container's root file system, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Trees of the layers, the uppermost first; never empty.
    pub lowers: Vec<PathBuf>,
    /// Where the container's changes go.
    pub upper: PathBuf,
    /// Overlayfs' own directory, on the same file system.
    pub work: PathBuf,
}

/// Space taken by a container's changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of the sizes of files, each inode counted once.
    pub bytes: u64,
    /// Number of files and directories.
    pub inodes: u64,
}

/// Makes and removes the root file systems of containers. `lowers` are trees of layers in the
/// format of overlayfs, the uppermost first.
pub trait Snapshotter: Send + Sync {
    /// Makes the writable part for `id`, or takes the one that is there.
    ///
    /// # Errors
    /// If the id is not a plain name or the host refuses.
    fn prepare(&self, id: &str, lowers: &[PathBuf]) -> Result<Rootfs, SnapshotError>;

    /// A read-only merged tree as a detached mount: of the layers, or with `id` of a container.
    /// It goes away with the last descriptor.
    ///
    /// # Errors
    /// If `id` does not exist or the host refuses the mount.
    fn view(&self, id: Option<&str>, lowers: &[PathBuf]) -> Result<OwnedFd, SnapshotError>;

    /// Moves the writable part out of sight. [`Self::empty_trash`] frees its space; that may be
    /// done later. What does not exist counts as removed.
    ///
    /// # Errors
    /// If the host refuses.
    fn remove(&self, id: &str) -> Result<(), SnapshotError>;

    /// Deletes everything that was removed.
    ///
    /// # Errors
    /// The first failure, after all has been tried.
    fn empty_trash(&self) -> Result<(), SnapshotError>;

    /// Space that the changes of `id` take.
    ///
    /// # Errors
    /// If `id` does not exist or cannot be read.
    fn usage(&self, id: &str) -> Result<Usage, SnapshotError>;

    /// What `id` has changed in its layers, sorted by path.
    ///
    /// # Errors
    /// If `id` does not exist or cannot be read.
    fn changes(&self, id: &str, lowers: &[PathBuf]) -> Result<Vec<Change>, SnapshotError>;

    /// All ids, to be compared with the records when the daemon starts.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> Result<Vec<String>, SnapshotError>;

    /// The directory that an image without layers stands on.
    fn empty_dir(&self) -> &Path;
}
