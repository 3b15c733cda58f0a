//! A new file system begins with what the folder has that it covers (`tmpcopyup`).
//!
//! Runs in the child: no memory is allocated, each name is opened beneath the folder that is held
//! open, and no symbolic link is followed.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::{Errno, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, Uid, XattrFlags,
};

/// Deepest folder that is copied: a bound for the stack.
const MAX_DEPTH: usize = 128;
const ENTRIES_BYTES: usize = 2048;
/// The kernel's own limits for the list of names and for a value.
const XATTR_BYTES: usize = 65536;

/// Space that all levels share.
struct Space {
    names: [u8; XATTR_BYTES],
    data: [u8; XATTR_BYTES],
}

/// Copies all that is in `from` into `to`, and the owner of the folder itself if `owner`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: bool) -> Result<()> {
    let from = open_dir(from, c".")?;
    let to = open_dir(to, c".")?;
    let mut space = Space {
        names: [0; XATTR_BYTES],
        data: [0; XATTR_BYTES],
    };
    entries(&from, &to, &mut space, 0)?;
    if owner {
        let stat = rustix::fs::fstat(&from)?;
        rustix::fs::fchown(&to, uid(&stat), gid(&stat))?;
    }
    Ok(())
}

fn open_dir(dir: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

fn entries(from: &OwnedFd, to: &OwnedFd, space: &mut Space, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let mut buffer = [MaybeUninit::<u8>::uninit(); ENTRIES_BYTES];
    let mut dir = RawDir::new(from, &mut buffer);
    while let Some(entry) = dir.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let (below, made) = (open_dir(from, name)?, open_dir(to, name)?);
                entries(&below, &made, space, depth + 1)?;
                attributes(&below, &made, space)?;
            }
            FileType::RegularFile => file(from, to, name, space)?,
            FileType::Symlink => link(from, to, name, &stat, space)?,
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(to, name, uid(&stat), gid(&stat), flags)?;
            }
        }
    }
    Ok(())
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr, space: &mut Space) -> Result<()> {
    // O_NONBLOCK: it may have become a FIFO in the meantime.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&from)?.st_mode) != FileType::RegularFile {
        return Err(Errno::STALE);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    loop {
        let length = match rustix::io::read(&from, &mut space.data) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut rest = space.data.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let written = match rustix::io::write(&to, rest) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            rest = rest.get(written..).unwrap_or_default();
        }
    }
    attributes(&from, &to, space)
}

fn link(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat, space: &mut Space) -> Result<()> {
    let length = rustix::fs::readlinkat_raw(from, name, &mut space.data)?;
    // A name fills less than a page: there is room for the end.
    if let Some(end) = space.data.get_mut(length) {
        *end = 0;
    }
    let text = CStr::from_bytes_until_nul(&space.data).map_err(|_| Errno::NAMETOOLONG)?;
    rustix::fs::symlinkat(text, to, name)?;
    rustix::fs::chownat(to, name, uid(stat), gid(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, mode, extended attributes and times.
fn attributes(from: &OwnedFd, to: &OwnedFd, space: &mut Space) -> Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, uid(&stat), gid(&stat))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    extended(from, to, space)?;
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

fn extended(from: &OwnedFd, to: &OwnedFd, space: &mut Space) -> Result<()> {
    let length = match rustix::fs::flistxattr(from, &mut space.names) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
        result => result?,
    };
    let mut names = space.names.get(..length).unwrap_or_default();
    while let Ok(name) = CStr::from_bytes_until_nul(names) {
        let length = rustix::fs::fgetxattr(from, name, &mut space.data)?;
        let value = space.data.get(..length).unwrap_or_default();
        match rustix::fs::fsetxattr(to, name, value, XattrFlags::empty()) {
            // The kernel's tmpfs has none of this kind, or the label is the mount's.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
        names = names.get(name.count_bytes() + 1..).unwrap_or_default();
    }
    Ok(())
}

fn time(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<i64>) -> Timespec {
    Timespec {
        tv_sec: seconds.try_into().unwrap_or_default(),
        tv_nsec: nanoseconds.try_into().unwrap_or_default(),
    }
}

fn uid(stat: &Stat) -> Option<Uid> {
    Some(Uid::from_raw(stat.st_uid))
}

fn gid(stat: &Stat) -> Option<Gid> {
    Some(Gid::from_raw(stat.st_gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn copy_tree_keeps_kinds_owners_modes_links_and_attributes() {
        let base = std::env::temp_dir().join(format!("hull-copy-up-{}", std::process::id()));
        let (from, to) = (base.join("from"), base.join("to"));
        std::fs::create_dir_all(from.join("a/b")).expect("mkdir");
        std::fs::create_dir_all(&to).expect("mkdir");
        std::fs::write(from.join("a/b/file"), vec![7; 200_000]).expect("write");
        let mode = std::fs::Permissions::from_mode(0o4751);
        std::os::unix::fs::chown(from.join("a/b/file"), Some(12), Some(34)).expect("chown");
        std::fs::set_permissions(from.join("a/b/file"), mode).expect("chmod");
        symlink("/etc/shadow", from.join("link")).expect("symlink");
        let dir = rustix::fs::open(&from, OFlags::PATH, Mode::empty()).expect("open");
        rustix::fs::mknodat(&dir, "pipe", FileType::Fifo, Mode::RWXU, 0).expect("mkfifo");
        let marked = from.join("a");
        let has_attributes =
            rustix::fs::setxattr(&marked, "trusted.t", b"value", XattrFlags::empty()).is_ok();
        std::os::unix::fs::chown(&from, Some(56), Some(78)).expect("chown");
        let made = rustix::fs::open(&to, OFlags::PATH, Mode::empty()).expect("open");
        copy(dir.as_fd(), made.as_fd(), true).expect("copy");

        let file = std::fs::metadata(to.join("a/b/file")).expect("file");
        assert_eq!((file.uid(), file.gid(), file.len()), (12, 34, 200_000));
        assert_eq!(file.mode() & 0o7777, 0o4751);
        let text = std::fs::read_link(to.join("link")).expect("link");
        assert_eq!(text, std::path::Path::new("/etc/shadow"));
        let kind = std::fs::symlink_metadata(to.join("pipe")).expect("pipe");
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind.file_type()));
        assert_eq!(std::fs::metadata(&to).expect("to").uid(), 56);
        if has_attributes {
            let mut value = [0u8; 16];
            let length = rustix::fs::getxattr(to.join("a"), "trusted.t", &mut value);
            assert_eq!(length, Ok(5));
        }
        std::fs::remove_dir_all(&base).expect("clean");
    }

    #[test]
    fn copy_too_deep_tree_is_refused() {
        let base = std::env::temp_dir().join(format!("hull-copy-deep-{}", std::process::id()));
        let deep = base.join("from").join("d/".repeat(MAX_DEPTH + 2));
        std::fs::create_dir_all(deep).expect("mkdir");
        std::fs::create_dir_all(base.join("to")).expect("mkdir");
        let open = |name: &str| rustix::fs::open(base.join(name), OFlags::PATH, Mode::empty());
        let (from, to) = (open("from").expect("open"), open("to").expect("open"));
        assert_eq!(
            copy(from.as_fd(), to.as_fd(), false),
            Err(Errno::NAMETOOLONG)
        );
        std::fs::remove_dir_all(&base).expect("clean");
    }
}
