//! Files of a tree that others may change at the same moment: opened without access, looked at,
//! and only then opened for what they are.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, flistxattr_query, fstat, openat,
};
use rustix::io::Errno;

use crate::tar::{Kind, Mtime, WriteEntry};

/// Largest attribute value, and list of names, that Linux knows.
const XATTR_BYTES: usize = 64 << 10;

/// Something in a folder, held without access to it.
#[derive(Debug)]
pub struct Node {
    /// Opened with `O_PATH`.
    pub fd: OwnedFd,
    /// What it was when it was opened, and is: the descriptor does not move.
    pub stat: Stat,
}

/// Looks at `name` in `parent` without following a link.
///
/// # Errors
/// `ENOENT` if it is not there.
pub fn node(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Node> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(parent, name, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    Ok(Node { fd, stat })
}

impl Node {
    /// What it is.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens the folder or file for reading: the very one that was looked at.
    ///
    /// # Errors
    /// Those of open(2); `EINVAL` for what is neither.
    pub(crate) fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        match self.kind() {
            FileType::Directory => openat(&self.fd, ".", flags, Mode::empty()),
            FileType::RegularFile => {
                // The name in procfs leads to the open file itself and to nothing else.
                let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
                openat(CWD, path, flags, Mode::empty())
            }
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn open_file(&self) -> rustix::io::Result<File> {
        self.open().map(File::from)
    }
}

/// Names in a folder without `.` and `..`, the last first.
pub(crate) fn names_reversed(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(dir)? {
        let name = item?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// A header for what `stat` describes.
pub(crate) fn entry_of<'a>(path: &'a [u8], kind: Kind, stat: &Stat) -> WriteEntry<'a> {
    let mut entry = WriteEntry::new(path, kind, stat.st_mode & 0o7777, 0);
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.mtime = Mtime {
        secs: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    entry
}

/// Whether an attribute goes with a file into an archive and out of it. Nothing of `trusted` and
/// nothing of overlayfs does: it could redirect to other places.
pub(crate) fn carried(name: &[u8]) -> bool {
    name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// The attributes that an archive may carry; file systems without attributes have none.
pub(crate) fn xattrs(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // Most files have none, which a call without buffer tells.
    match flistxattr_query(fd) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(_) => {}
        Err(e) => return Err(e),
    }
    let mut names = vec![0u8; XATTR_BYTES];
    let n = flistxattr(fd, &mut names[..])?;
    names.truncate(n);
    let mut found = Vec::new();
    for name in names.split(|&b| b == 0).filter(|name| carried(name)) {
        let mut value = vec![0u8; XATTR_BYTES];
        match fgetxattr(fd, name, &mut value[..]) {
            Ok(n) => {
                value.truncate(n);
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_unstable();
    Ok(found)
}
