//! What a container changed: the upper directory compared with the tree below it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, fstat, openat,
    openat2, statat,
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
    // Paths, how they changed, and whether that counts only if something in them has changed:
    // overlayfs copies a directory up for what is in it.
    let mut found: Vec<(Vec<u8>, ChangeKind, bool)> = Vec::new();
    walk(upper, |dir, name, stat, path| {
        let there = lower_stat(below.as_fd(), path)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let whole = |kind| (path.to_vec(), kind, false);
        let lower = match there {
            _ if kind == FileType::CharacterDevice && stat.st_rdev == 0 => {
                found.push(whole(ChangeKind::Deleted));
                return Ok(());
            }
            None => {
                found.push(whole(ChangeKind::Added));
                return Ok(());
            }
            Some(lower) if kind == FileType::Directory => lower,
            Some(_) => {
                found.push(whole(ChangeKind::Modified));
                return Ok(());
            }
        };
        let attributes = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid);
        let child = openat(dir, name, dir_flags(), Mode::empty())?;
        let opaque = is_opaque(&child)?;
        let alike = !opaque && attributes(stat) == attributes(&lower);
        found.push((path.to_vec(), ChangeKind::Modified, alike));
        if opaque {
            // All that lies below is hidden, except what the upper directory has again.
            let own: HashSet<Vec<u8>> = names(&child)?.into_iter().collect();
            let lower = openat2(below, path, dir_flags(), Mode::empty(), resolve());
            if let Ok(lower) = lower {
                for name in names(&lower)?.into_iter().filter(|n| !own.contains(n)) {
                    let path = [path, b"/", &name].concat();
                    found.push((path, ChangeKind::Deleted, false));
                }
            }
        }
        Ok(())
    })?;
    let mut found: Vec<(Change, bool)> = found
        .into_iter()
        .map(|(path, kind, alike)| {
            let path = Path::new("/").join(OsStr::from_bytes(&path));
            (Change { path, kind }, alike)
        })
        .collect();
    found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    let mut kept: Vec<Change> = Vec::new();
    // From the end: what is in a directory follows it.
    for (change, alike) in found.into_iter().rev() {
        let holds = |next: &Change| next.path.starts_with(&change.path);
        if !alike || kept.last().is_some_and(holds) {
            kept.push(change);
        }
    }
    kept.reverse();
    Ok(kept)
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

/// What the layers have at a path.
fn lower_stat(below: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Option<Stat>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(below, path, flags, Mode::empty(), resolve()) {
        Ok(fd) => fstat(fd).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
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
