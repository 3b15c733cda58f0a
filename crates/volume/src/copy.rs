//! Copies a tree by descriptors, never following a link, with all that belongs to a file: owner,
//! mode, attributes, times, hard links, devices.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fgetxattr, flistxattr, flistxattr_query, fsetxattr, fstat,
    linkat, mkdirat, mknodat, openat, readlinkat, renameat_with, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::VolumeError;

/// Largest attribute value, and list of names, that Linux knows.
const XATTR_BYTES: usize = 64 << 10;

/// A directory being copied.
struct Frame {
    from: OwnedFd,
    to: OwnedFd,
    path: Vec<u8>,
    left: Vec<Vec<u8>>,
}

/// Copies what is in `from`, and the attributes of `from` itself, to the empty directory `to`.
pub(crate) fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), VolumeError> {
    // First name of each inode that has several, relative to the root.
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    let mut stack = vec![frame(from, to, Vec::new()).map_err(|e| fail(b"", e))?];
    while let Some(top) = stack.last_mut() {
        let Some(name) = top.left.pop() else {
            // Nothing changes in it any more, so its times stay.
            finish_dir(&top.from, &top.to).map_err(|e| fail(&top.path, e))?;
            stack.pop();
            continue;
        };
        let path = if top.path.is_empty() {
            name.clone()
        } else {
            [&top.path[..], b"/", &name].concat()
        };
        let copied = copy_one(top, to, &name, &path, &mut links);
        match copied.map_err(|e| fail(&path, e))? {
            Some((from, to)) => {
                let next = frame(from.as_fd(), to.as_fd(), path.clone());
                stack.push(next.map_err(|e| fail(&path, e))?);
            }
            None => continue,
        }
    }
    Ok(())
}

/// Copies one member; returns both descriptors of a directory.
fn copy_one(
    frame: &Frame,
    root: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    links: &mut HashMap<(u64, u64), Vec<u8>>,
) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    let (from, to) = (frame.from.as_fd(), frame.to.as_fd());
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory && stat.st_nlink > 1 {
        if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
            // All directories on the way are ours and new, so no link can be among them.
            linkat(root, &first[..], to, name, AtFlags::empty())?;
            return Ok(None);
        }
        links.insert((stat.st_dev, stat.st_ino), path.to_vec());
    }
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let from = openat(from, name, dir_flags(), Mode::empty())?;
            let to = openat(to, name, dir_flags(), Mode::empty())?;
            return Ok(Some((from, to)));
        }
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let from = openat(from, name, OFlags::RDONLY | flags, Mode::empty())?;
            let to = openat(
                to,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | flags,
                Mode::from_raw_mode(0o600),
            )?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            // In the kernel, and sharing blocks where the file system can.
            io::copy(&mut from, &mut to)?;
            finish_open(from.as_fd(), to.as_fd(), &stat)?;
            return Ok(None);
        }
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new())?;
            symlinkat(&target, to, name)?;
        }
        FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
            mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)?;
        }
        FileType::Socket | FileType::Unknown => return Ok(None),
    }
    chownat(
        to,
        name,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if kind != FileType::Symlink {
        chmodat(to, name, mode_of(&stat), AtFlags::empty())?;
    }
    utimensat(to, name, &times_of(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(None)
}

/// Owner, mode, attributes and times of something open; in this order, since a change of owner
/// clears set-id bits and file capabilities.
fn finish_open(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    rustix::fs::fchmod(to, mode_of(stat))?;
    copy_xattrs(from, to)?;
    rustix::fs::futimens(to, &times_of(stat))?;
    Ok(())
}

/// Moves what is in `from` to `to`, which gets the attributes of `from`. What has come to be in
/// `to` meanwhile stays.
pub(crate) fn move_entries(from: &OwnedFd, to: &OwnedFd) -> Result<(), VolumeError> {
    // The owner before the content, so that a process that sees it may use it.
    finish_dir(from, to).map_err(|e| fail(b"", e))?;
    let times = fstat(from).map_err(|e| fail(b"", e))?;
    for name in names(from.as_fd()).map_err(|e| fail(b"", e))? {
        match renameat_with(from, &name[..], to, &name[..], RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(fail(&name, e)),
        }
    }
    rustix::fs::futimens(to, &times_of(&times)).map_err(|e| fail(b"", e))
}

fn finish_dir(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = fstat(from)?;
    finish_open(from.as_fd(), to.as_fd(), &stat)
}

/// Copies attributes except those of overlayfs, which mean something else outside of it. What the
/// target's file system cannot hold is left out.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    match flistxattr_query(from) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        Ok(_) => {}
        Err(e) => return Err(e.into()),
    }
    let mut names = vec![0u8; XATTR_BYTES];
    let n = flistxattr(from, &mut names[..])?;
    names.truncate(n);
    let mut value = vec![0u8; XATTR_BYTES];
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let n = match fgetxattr(from, name, &mut value[..]) {
            Ok(n) => n,
            Err(Errno::NODATA) => continue,
            Err(e) => return Err(e.into()),
        };
        match fsetxattr(
            to,
            name,
            value.get(..n).unwrap_or_default(),
            XattrFlags::empty(),
        ) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sum of the sizes of all files, each inode counted once.
pub(crate) fn total_size(root: BorrowedFd<'_>) -> Result<u64, VolumeError> {
    let open = |dir: BorrowedFd<'_>, name: &[u8]| openat(dir, name, dir_flags(), Mode::empty());
    let mut seen = HashSet::new();
    let mut total = 0u64;
    let root = open(root, b".").map_err(|e| fail(b"", e))?;
    let first = names(root.as_fd()).map_err(|e| fail(b"", e))?;
    let mut stack = vec![(root, first)];
    while let Some((dir, left)) = stack.last_mut() {
        let Some(name) = left.pop() else {
            stack.pop();
            continue;
        };
        // A container may be at work here: what is gone meanwhile does not count.
        let stat = match statat(&*dir, &name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(fail(&name, e)),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if let Ok(child) = open(dir.as_fd(), &name) {
                    let children = names(child.as_fd()).map_err(|e| fail(&name, e))?;
                    stack.push((child, children));
                }
            }
            FileType::RegularFile if stat.st_nlink < 2 || seen.insert(stat.st_ino) => {
                total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            }
            _ => {}
        }
    }
    Ok(total)
}

fn frame(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: Vec<u8>) -> io::Result<Frame> {
    let from = from.try_clone_to_owned()?;
    Ok(Frame {
        left: names(from.as_fd())?,
        to: to.try_clone_to_owned()?,
        from,
        path,
    })
}

fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let name = item?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn fail(path: &[u8], source: impl Into<io::Error>) -> VolumeError {
    VolumeError::io(
        "copy into the volume",
        Path::new(OsStr::from_bytes(path)),
        source,
    )
}

fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times_of(stat: &Stat) -> Timestamps {
    let time = |secs, nanos: u64| Timespec {
        tv_sec: secs,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

pub(crate) fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
