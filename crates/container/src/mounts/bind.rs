//! Binds: a path of the host shown at another one.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use hull_proto::plan::MountOptions;
use hull_sys::features::Features;
use hull_sys::{Errno, mount};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::options;
use crate::LaunchError;
use crate::rootfs::c_path;

fn flags(options: &MountOptions) -> OFlags {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if options.source_nofollow {
        flags | OFlags::NOFOLLOW
    } else {
        flags
    }
}

/// The source, as the options say of symbolic links.
pub(super) fn open(source: &Path, options: &MountOptions) -> hull_sys::Result<OwnedFd> {
    rustix::fs::openat(CWD, source, flags(options), Mode::empty())
}

/// What a source that is a symbolic link says, if that is to be copied.
pub(super) fn link(source: &Path, options: &MountOptions) -> hull_sys::Result<Option<CString>> {
    if !options.copy_symlink {
        return Ok(None);
    }
    let found = rustix::fs::statat(CWD, source, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    rustix::fs::readlinkat(CWD, source, Vec::new()).map(Some)
}

/// A bind that the child makes in its own mount namespace.
#[derive(Debug)]
pub(crate) struct BindByPath {
    path: CString,
    recursive: bool,
    options: MountOptions,
    features: Features,
}

impl BindByPath {
    pub(super) fn new(
        source: &Path,
        recursive: bool,
        options: &MountOptions,
        features: Features,
    ) -> Result<Self, LaunchError> {
        options::Spreads::parse(&options.propagation)?;
        Ok(Self {
            path: c_path(source)?,
            recursive,
            options: options.clone(),
            features,
        })
    }

    /// The copy of the tree and what is left to do once it is attached. Runs in the child.
    pub(super) fn make(&self) -> hull_sys::Result<(OwnedFd, Option<options::Late>)> {
        let path: &CStr = &self.path;
        let opened = rustix::fs::openat(CWD, path, flags(&self.options), Mode::empty())?;
        let tree = mount::clone_tree(opened.as_fd(), c"", self.recursive)?;
        // Nothing is made of the error but its number: that of an empty text takes no memory.
        let fail = |source| LaunchError::Prepare {
            action: String::new(),
            source,
        };
        match options::set_on_bind(&tree, &self.options, self.recursive, self.features, fail) {
            Ok(late) => Ok((tree, late)),
            Err(LaunchError::Prepare { source, .. }) => Err(source),
            Err(_) => Err(Errno::INVAL),
        }
    }
}
