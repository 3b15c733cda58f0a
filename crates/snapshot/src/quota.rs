//! Limits of writable layers, by project quotas of the file system that they lie on (XFS, ext4).
//!
//! A snapshot's directory is a project of its own: all that is made in it counts. The number is
//! found again on the directory itself, so no record can differ from it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use hull_sys::quota::{self, ProjectUsage};

use crate::overlay::{Overlay, make_dir};
use crate::{SnapshotError, Snapshotter as _};

/// The numbers of our projects lie between these two: others count theirs from one.
const FIRST: u32 = 1 << 30;
const LAST: u32 = (1 << 31) - 1;
/// Numbers that are tried before we give up.
const TRIES: u32 = 4096;

/// What a limited snapshot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes it may take.
    pub limit: u64,
    /// Bytes it takes, as the file system counts.
    pub used: u64,
}

impl Overlay {
    /// Whether snapshots can be limited here.
    ///
    /// # Errors
    /// [`SnapshotError::Quota`] with the reason why not.
    pub fn can_limit(&self) -> Result<(), SnapshotError> {
        let base = self.empty_dir();
        let dir = File::open(base).map_err(|e| SnapshotError::io("open", base, e))?;
        let refuse = |why: String| SnapshotError::Quota {
            path: base.parent().unwrap_or(base).to_owned(),
            why,
        };
        if let Err(error) = quota::project_of(dir.as_fd()) {
            return Err(refuse(format!("it knows no projects ({error})")));
        }
        match quota::is_enforced(dir.as_fd()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(refuse("they are not switched on".to_owned())),
            Err(error) => Err(refuse(format!("they cannot be asked for ({error})"))),
        }
    }

    /// Limits a snapshot to so many bytes. Called before it is prepared, each time: what is
    /// limited already gets the new limit.
    ///
    /// # Errors
    /// [`SnapshotError::Quota`] where the file system cannot do it.
    pub fn limit(&self, id: &str, bytes: u64) -> Result<(), SnapshotError> {
        self.can_limit()?;
        let path = self.dir(id)?;
        make_dir(&path, 0o700)?;
        let dir = File::open(&path).map_err(|e| SnapshotError::io("open", &path, e))?;
        let fail = |e: hull_sys::Errno| SnapshotError::io("limit", &path, e);
        let mut project = quota::project_of(dir.as_fd()).map_err(fail)?;
        if project == 0 {
            let _choosing = self.choosing();
            project = free_number(dir.as_fd(), id).map_err(fail)?;
            quota::set_project(dir.as_fd(), project).map_err(fail)?;
        }
        quota::set_limit(dir.as_fd(), project, bytes).map_err(fail)
    }

    /// What a limited snapshot takes; none for one without a limit.
    pub fn quota(&self, id: &str) -> Option<Quota> {
        let dir = File::open(self.dir(id).ok()?).ok()?;
        let project = quota::project_of(dir.as_fd()).ok().filter(|p| *p != 0)?;
        let ProjectUsage { bytes, limit, .. } = quota::usage(dir.as_fd(), project).ok()?;
        Some(Quota { limit, used: bytes })
    }
}

/// Deletes a snapshot that was moved away, and the limit with it.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    let project = File::open(path)
        .ok()
        .and_then(|dir| quota::project_of(dir.as_fd()).ok())
        .filter(|project| (FIRST..=LAST).contains(project));
    std::fs::remove_dir_all(path)?;
    if let Some(project) = project
        && let Some(parent) = path.parent()
        && let Ok(parent) = File::open(parent)
    {
        // What stays is an entry of a number that is used again once it counts nothing.
        let _ = quota::set_limit(parent.as_fd(), project, 0);
    }
    Ok(())
}

/// A number that counts nothing and has no limit. Derived from the id, so that two engines on one
/// file system seldom try the same.
fn free_number(dir: BorrowedFd<'_>, id: &str) -> hull_sys::Result<u32> {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    for step in 0..TRIES {
        let number = FIRST + hash.wrapping_add(step) % (LAST - FIRST + 1);
        if quota::usage(dir, number)? == ProjectUsage::default() {
            return Ok(number);
        }
    }
    Err(hull_sys::Errno::NOSPC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_where_there_are_no_quotas_says_what_to_do() {
        let tmp = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(tmp.path()).unwrap();
        if overlay.can_limit().is_ok() {
            return;
        }
        let error = overlay.limit("a", 1 << 20).unwrap_err();
        assert!(error.to_string().contains("prjquota"), "{error}");
        assert!(!tmp.path().join("a").exists());
        assert_eq!(overlay.quota("a"), None);
    }

    #[test]
    fn delete_removes_a_tree_without_a_project() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("x/upper");
        std::fs::create_dir_all(&dir).unwrap();
        delete(&tmp.path().join("x")).unwrap();
        assert!(!tmp.path().join("x").exists());
    }
}
