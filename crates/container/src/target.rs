//! A path inside the container, cut up beforehand so that the child can make it without
//! allocating.

mod links;

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, OwnedFd};

use hull_sys::path::{self, MAX_COMPONENTS};
use hull_sys::{Errno, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::LaunchError;

/// Mode of folders made on the way to a target.
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);
/// Mode of files made as targets: what is mounted on them decides.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// A normalised absolute path with all its prefixes.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    text: String,
    full: CString,
    /// Each ancestor and at last the path itself, with its last name.
    prefixes: Vec<(CString, CString)>,
}

impl Target {
    /// Cuts up a path; `..` goes up as far as the root.
    pub(crate) fn new(path: &str) -> std::result::Result<Self, LaunchError> {
        let wrong = |why: &str| LaunchError::Plan(format!("invalid path {path:?}: {why}"));
        if !path.starts_with('/') {
            return Err(wrong("it must be absolute"));
        }
        let mut names: Vec<&str> = Vec::new();
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        if names.len() > MAX_COMPONENTS {
            return Err(wrong("it is too deep"));
        }
        let mut prefixes = Vec::with_capacity(names.len());
        let mut walked = String::with_capacity(path.len());
        let c_string = |text: &str| CString::new(text).map_err(|_| wrong("it holds a zero byte"));
        for name in &names {
            walked.push('/');
            walked.push_str(name);
            prefixes.push((c_string(&walked)?, c_string(name)?));
        }
        if walked.is_empty() {
            walked.push('/');
        }
        Ok(Self {
            full: c_string(&walked)?,
            text: walked,
            prefixes,
        })
    }

    /// The normalised path.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the root itself.
    pub(crate) fn is_root(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// What is there, if anything. Runs in the child.
    pub(crate) fn resolve(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        path::resolve(root, self.full.as_c_str())
    }

    /// What is there, where no part of the path may be a symlink. Runs in the child.
    fn resolve_plain(&self, root: BorrowedFd<'_>) -> Result<OwnedFd> {
        plain(root, &self.full)
    }

    /// The folder or file there, made with its parents where missing. Runs in the child.
    pub(crate) fn ensure(&self, root: BorrowedFd<'_>, dir: bool) -> Result<OwnedFd> {
        match self.resolve(root) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        match self.make_there(root, dir) {
            // A symbolic link of the image whose target is missing: it is made.
            Err(Errno::NOENT) => links::ensure(root, &self.full, dir),
            result => result,
        }
    }

    fn make_there(&self, root: BorrowedFd<'_>, dir: bool) -> Result<OwnedFd> {
        let (parent, name) = self.ensure_parent(root)?;
        make(&parent, name, dir)?;
        self.resolve(root)
    }

    /// The same where no part of the path may be a symbolic link. Runs in the child.
    pub(crate) fn ensure_plain(&self, root: BorrowedFd<'_>, dir: bool) -> Result<OwnedFd> {
        match self.resolve_plain(root) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (parent, name) = self.ensure_plain_parent(root)?;
        make(&parent, name, dir)?;
        self.resolve_plain(root)
    }

    /// The same where the last name is not followed if it is a symbolic link. Runs in the child.
    pub(crate) fn ensure_itself(&self, root: BorrowedFd<'_>, dir: bool) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let itself = || path::open_in_root(root, self.full.as_c_str(), flags, Mode::empty());
        match itself() {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let (parent, name) = self.ensure_parent(root)?;
        make(&parent, name, dir)?;
        itself()
    }

    /// The folder above, made where missing, and the last name. Runs in the child.
    pub(crate) fn ensure_parent(&self, root: BorrowedFd<'_>) -> Result<(OwnedFd, &CString)> {
        self.parent_by(root, |prefix| path::resolve(root, prefix))
    }

    /// The same where no part of the path may be a symbolic link. Runs in the child.
    pub(crate) fn ensure_plain_parent(&self, root: BorrowedFd<'_>) -> Result<(OwnedFd, &CString)> {
        self.parent_by(root, |prefix| plain(root, prefix))
    }

    fn parent_by(
        &self,
        root: BorrowedFd<'_>,
        resolve: impl Fn(&CStr) -> Result<OwnedFd>,
    ) -> Result<(OwnedFd, &CString)> {
        let Some(((_, name), parents)) = self.prefixes.split_last() else {
            return Err(Errno::EXIST);
        };
        let mut current = match parents.last() {
            Some((parent, _)) => match resolve(parent) {
                Ok(found) => return Ok((found, name)),
                Err(Errno::NOENT) => path::resolve(root, c"/")?,
                Err(error) => return Err(error),
            },
            None => return Ok((path::resolve(root, c"/")?, name)),
        };
        for (prefix, name) in parents {
            current = match resolve(prefix) {
                Err(Errno::NOENT) => {
                    make(&current, name, true)?;
                    resolve(prefix)?
                }
                result => result?,
            };
        }
        Ok((current, name))
    }
}

fn plain(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Made in a folder that is held open: whatever happens to its path, nothing is made elsewhere. A
/// dangling symlink of that name is not followed.
fn make(parent: &OwnedFd, name: &CStr, dir: bool) -> Result<()> {
    let made = if dir {
        rustix::fs::mkdirat(parent, name, DIR_MODE)
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, FILE_MODE).map(drop)
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_dots_are_resolved_and_stay_inside() {
        let target = Target::new("/a//./b/../../../c/").expect("target");
        assert_eq!(target.as_str(), "/c");
        assert!(Target::new("/..").expect("target").is_root());
    }

    #[test]
    fn new_relative_or_zero_byte_is_refused() {
        for bad in ["", "a", "../a", "/a\0b"] {
            assert!(Target::new(bad).is_err(), "{bad:?}");
        }
        assert!(Target::new(&"/x".repeat(MAX_COMPONENTS + 1)).is_err());
    }
}
