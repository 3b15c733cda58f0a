//! `export`: a directory tree becomes a tar. The tree is read by descriptors and no link in it is
//! followed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, flistxattr_query, fstat,
    major, minor, openat, readlinkat, statat,
};
use rustix::io::Errno;

use crate::tar::{Kind, Mtime, TarWriter, WriteEntry};

/// Largest attribute value, and list of names, that Linux knows.
const XATTR_BYTES: usize = 64 << 10;

/// Pieces in which contents are read and headers gathered.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a tree could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A part of the tree cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The tar cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

impl From<ExportError> for hull_model::Error {
    fn from(error: ExportError) -> Self {
        crate::store::from_chain(hull_model::ErrorKind::Internal, error)
    }
}

/// Writes everything below `root` to `out`, names sorted, hard links kept. Sockets are left out.
///
/// # Errors
/// See [`ExportError`].
pub fn export_tree(root: BorrowedFd<'_>, out: &mut dyn Write) -> Result<(), ExportError> {
    let mut export = Export {
        tar: TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, out)),
        seen: HashMap::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let first = openat(root, ".", dir_flags(), Mode::empty()).map_err(|e| read(b"/", e))?;
    let mut stack = vec![Frame::open(first, Vec::new())?];
    while let Some(frame) = stack.last_mut() {
        let Some(name) = frame.names.pop() else {
            stack.pop();
            continue;
        };
        let path = if frame.path.is_empty() {
            name.clone()
        } else {
            [&frame.path[..], b"/", &name].concat()
        };
        if let Some(dir) = export.member(frame.dir.as_fd(), &name, &path)? {
            stack.push(Frame::open(dir, path)?);
        }
    }
    export.tar.finish().map_err(ExportError::Write)?;
    Ok(())
}

/// A directory being walked; names in reverse order.
struct Frame {
    dir: OwnedFd,
    path: Vec<u8>,
    names: Vec<Vec<u8>>,
}

impl Frame {
    fn open(dir: OwnedFd, path: Vec<u8>) -> Result<Self, ExportError> {
        let list = || -> rustix::io::Result<Vec<Vec<u8>>> {
            let mut names = Vec::new();
            for item in Dir::read_from(&dir)? {
                let name = item?.file_name().to_bytes().to_vec();
                if !matches!(&name[..], b"." | b"..") {
                    names.push(name);
                }
            }
            names.sort_unstable_by(|a, b| b.cmp(a));
            Ok(names)
        };
        let names = list().map_err(|e| read(&path, e))?;
        Ok(Self { dir, path, names })
    }
}

struct Export<'a> {
    tar: TarWriter<BufWriter<&'a mut dyn Write>>,
    /// First path of each inode that has several.
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl Export<'_> {
    /// Writes one member; returns the descriptor of a directory.
    fn member(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<OwnedFd>, ExportError> {
        let fail = |e| read(path, e);
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // A running container may remove what it listed.
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)) {
                let mut entry = entry_of(path, Kind::HardLink, &stat);
                let link = first.clone();
                entry.link = &link;
                self.header(&entry)?;
                return Ok(None);
            }
            self.seen.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind {
            FileType::Directory => {
                let dir = openat(parent, name, dir_flags(), Mode::empty()).map_err(fail)?;
                let xattrs = xattrs(dir.as_fd()).map_err(fail)?;
                let mut entry = entry_of(path, Kind::Dir, &stat);
                entry.xattrs = &xattrs;
                self.header(&entry)?;
                return Ok(Some(dir));
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = openat(parent, name, flags, Mode::empty()).map_err(fail)?;
                self.file(File::from(file), path)?;
            }
            FileType::Symlink => {
                let link = readlinkat(parent, name, Vec::new()).map_err(fail)?;
                let mut entry = entry_of(path, Kind::Symlink, &stat);
                entry.link = link.as_bytes();
                self.header(&entry)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let tar_kind = if kind == FileType::CharacterDevice {
                    Kind::Char
                } else {
                    Kind::Block
                };
                let mut entry = entry_of(path, tar_kind, &stat);
                entry.major = major(stat.st_rdev);
                entry.minor = minor(stat.st_rdev);
                self.header(&entry)?;
            }
            FileType::Fifo => self.header(&entry_of(path, Kind::Fifo, &stat))?,
            FileType::Socket | FileType::Unknown => {}
        }
        Ok(None)
    }

    /// Writes a file at the size it has when opened: what grows is cut, what shrinks is filled
    /// with zeros, since the header stands before the content.
    fn file(&mut self, mut file: File, path: &[u8]) -> Result<(), ExportError> {
        let fail = |e| read(path, e);
        let stat = fstat(&file).map_err(fail)?;
        let xattrs = xattrs(file.as_fd()).map_err(fail)?;
        let mut entry = entry_of(path, Kind::File, &stat);
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = &xattrs;
        self.header(&entry)?;
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let most = most.min(self.buffer.len());
            let buffer = self.buffer.get_mut(..most).unwrap_or_default();
            let n = match file.read(buffer) {
                Ok(0) => {
                    buffer.fill(0);
                    most
                }
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ExportError::Read {
                        path: String::from_utf8_lossy(path).into_owned(),
                        source,
                    });
                }
            };
            self.tar
                .get_mut()
                .write_all(buffer.get(..n).unwrap_or_default())
                .map_err(ExportError::Write)?;
            left -= n as u64;
        }
        self.tar.pad(entry.size).map_err(ExportError::Write)
    }

    fn header(&mut self, entry: &WriteEntry<'_>) -> Result<(), ExportError> {
        self.tar.header(entry).map_err(ExportError::Write)
    }
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn read(path: &[u8], source: Errno) -> ExportError {
    ExportError::Read {
        path: String::from_utf8_lossy(path).into_owned(),
        source: source.into(),
    }
}

fn entry_of<'a>(path: &'a [u8], kind: Kind, stat: &Stat) -> WriteEntry<'a> {
    let mut entry = WriteEntry::new(path, kind, stat.st_mode & 0o7777, 0);
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.mtime = Mtime {
        secs: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    entry
}

/// The attributes that an image may carry; file systems without attributes have none.
fn xattrs(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
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
    for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let wanted = name == b"security.capability"
            || name.starts_with(b"user.")
            || name.starts_with(b"system.posix_acl_");
        if !wanted {
            continue;
        }
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
