//! Paths that are hidden or made read-only, where they exist.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::features::Features;
use hull_sys::mount::{self, Attr, FsContext};
use hull_sys::{Errno, path};
use rustix::fs::{FileType, Mode, OFlags, makedev};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Step};
use crate::target::Target;

/// The paths and what hides them.
#[derive(Debug)]
pub(crate) struct PreparedPaths {
    masked: Vec<Target>,
    read_only: Vec<Target>,
    /// One empty folder hides them all; none if there is nothing to hide.
    empty: Option<OwnedFd>,
    /// The child makes it, since the parent may not mount.
    empty_by_child: bool,
}

impl PreparedPaths {
    pub(crate) fn prepare(
        masked: impl Iterator<Item = String>,
        read_only: &[String],
        by_child: bool,
    ) -> Result<Self, LaunchError> {
        let masked = masked
            .map(|path| Target::new(&path))
            .collect::<Result<Vec<_>, _>>()?;
        let read_only = read_only
            .iter()
            .map(|path| Target::new(path))
            .collect::<Result<Vec<_>, _>>()?;
        let empty = if masked.is_empty() || by_child {
            None
        } else {
            Some(empty_dir().map_err(prepare("make an empty folder"))?)
        };
        Ok(Self {
            empty_by_child: by_child && !masked.is_empty(),
            masked,
            read_only,
            empty,
        })
    }

    /// Runs in the child, with the host's /dev still in sight.
    pub(crate) fn apply(&self, root: BorrowedFd<'_>, features: Features) -> Result<(), Failed> {
        for (index, target) in self.read_only.iter().enumerate() {
            make_read_only(target, root, features).at_index(Step::ReadOnly, index)?;
        }
        let mut null = None;
        let mut empty_attached = false;
        let made = if self.empty_by_child {
            Some(empty_dir().at(Step::Masked)?)
        } else {
            None
        };
        let empty = self.empty.as_ref().or(made.as_ref());
        for (index, target) in self.masked.iter().enumerate() {
            hide(target, root, empty, &mut null, &mut empty_attached)
                .at_index(Step::Masked, index)?;
        }
        Ok(())
    }
}

fn hide(
    target: &Target,
    root: BorrowedFd<'_>,
    empty: Option<&OwnedFd>,
    null: &mut Option<OwnedFd>,
    empty_attached: &mut bool,
) -> hull_sys::Result<()> {
    let Some(found) = existing(target, root)? else {
        return Ok(());
    };
    if path::is_dir(&found)? {
        let Some(empty) = empty else {
            return Ok(());
        };
        if !*empty_attached {
            *empty_attached = true;
            return mount::attach(empty, found);
        }
        return mount::attach(mount::clone_tree(empty.as_fd(), c"", false)?, found);
    }
    if null.is_none() {
        *null = Some(open_null()?);
    }
    match null {
        Some(null) => mount::attach(mount::clone_tree(null.as_fd(), c"", false)?, found),
        None => Err(Errno::NODEV),
    }
}

fn existing(target: &Target, root: BorrowedFd<'_>) -> hull_sys::Result<Option<OwnedFd>> {
    match target.resolve(root) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn make_read_only(
    target: &Target,
    root: BorrowedFd<'_>,
    features: Features,
) -> hull_sys::Result<()> {
    let Some(found) = existing(target, root)? else {
        return Ok(());
    };
    let tree = mount::clone_tree(found.as_fd(), c"", true)?;
    mount::attach(&tree, found)?;
    crate::mounts::set_read_only(tree.as_fd(), features)
}

/// The host's /dev/null, verified to be that (CVE-2025-31133), before the root is changed.
fn open_null() -> hull_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open(c"/dev/null", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(Errno::NODEV) }
}

/// Runs in the parent or, where that may not mount, in the child.
fn empty_dir() -> hull_sys::Result<OwnedFd> {
    let fs = FsContext::open(c"tmpfs")?;
    fs.string(c"mode", c"0755")?;
    fs.string(c"size", c"4096")?;
    let attributes = Attr::MOUNT_ATTR_RDONLY
        | Attr::MOUNT_ATTR_NOSUID
        | Attr::MOUNT_ATTR_NODEV
        | Attr::MOUNT_ATTR_NOEXEC;
    fs.mount(attributes)
}
