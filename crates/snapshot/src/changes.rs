//! What a container changed: the upper directory compared with the tree below it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, openat, openat2,
    statat,
};
use rustix::io::Errno;

use crate::{SnapshotError, Usage};

/// How a path changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is in the layers and differs.
    Modified,
    /// It is not in the layers.
    Added,
    /// It is in the layers only.
    Deleted,
}

/// A changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute path inside the container.
    pub path: PathBuf,
    /// How it changed.
    pub kind: ChangeKind,
}

/// A directory of the upper tree being walked, with its path.
type Frame = (OwnedFd, Vec<u8>, Vec<Vec<u8>>);

pub(crate) fn usage(upper: &Path) -> Result<Usage, SnapshotError> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    walk(upper, |_, _, stat, _| {
        usage.inodes += 1;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && (stat.st_nlink < 2 || seen.insert(stat.st_ino))
        {
            usage.bytes = usage
                .bytes
                .saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
        }
        Ok(())
    })?;
    Ok(usage)
}

pub(crate) fn changes(upper: &Path, below: &OwnedFd) -> Result<Vec<Change>, SnapshotError> {
    let mut found = Vec::new();
    let mut add = |path: &[u8], kind| {
        found.push(Change {
            path: Path::new("/").join(OsStr::from_bytes(path)),
            kind,
        });
    };
    walk(upper, |dir, name, stat, path| {
        let there = exists(below.as_fd(), path)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            add(path, ChangeKind::Deleted);
            return Ok(());
        }
        add(
            path,
            if there {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            },
        );
        if kind == FileType::Directory && there {
            let child = openat(dir, name, dir_flags(), Mode::empty())?;
            if is_opaque(&child)? {
                // All that lies below is hidden, except what the upper directory has again.
                let own: HashSet<Vec<u8>> = names(&child)?.into_iter().collect();
                let lower = openat2(below, path, dir_flags(), Mode::empty(), resolve());
                if let Ok(lower) = lower {
                    for name in names(&lower)?.into_iter().filter(|n| !own.contains(n)) {
                        add(&[path, b"/", &name].concat(), ChangeKind::Deleted);
                    }
                }
            }
        }
        Ok(())
    })?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Calls `visit` for everything below `upper` with parent, name, stat and path.
fn walk(
    upper: &Path,
    mut visit: impl FnMut(BorrowedFd<'_>, &[u8], &Stat, &[u8]) -> rustix::io::Result<()>,
) -> Result<(), SnapshotError> {
    let fail = |path: &[u8], e: Errno| {
        let path = upper.join(OsStr::from_bytes(path));
        SnapshotError::io("read", &path, e)
    };
    let root = openat(CWD, upper, dir_flags(), Mode::empty()).map_err(|e| fail(b"", e))?;
    let first = names(&root).map_err(|e| fail(b"", e))?;
    let mut stack: Vec<Frame> = vec![(root, Vec::new(), first)];
    while let Some((dir, base, left)) = stack.last_mut() {
        let Some(name) = left.pop() else {
            stack.pop();
            continue;
        };
        let path = if base.is_empty() {
            name.clone()
        } else {
            [&base[..], b"/", &name].concat()
        };
        let stat = match statat(&*dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // A running container may remove what was listed.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(fail(&path, e)),
        };
        visit(dir.as_fd(), &name, &stat, &path).map_err(|e| fail(&path, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            match openat(&*dir, &name[..], dir_flags(), Mode::empty()) {
                Ok(child) => {
                    let children = names(&child).map_err(|e| fail(&path, e))?;
                    stack.push((child, path, children));
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(fail(&path, e)),
            }
        }
    }
    Ok(())
}

fn exists(below: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<bool> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(below, path, flags, Mode::empty(), resolve()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_opaque(dir: &OwnedFd) -> rustix::io::Result<bool> {
    let mut value = [0u8; 1];
    match fgetxattr(dir, c"trusted.overlay.opaque", &mut value[..]) {
        Ok(n) => Ok(n == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let name = item?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}
