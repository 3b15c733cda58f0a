//! A tree becomes a tar stream. No link in it is followed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Stat, fstat, major, minor, readlinkat};
use rustix::io::Errno;

use super::files::{Node, entry_of, names_reversed, node, xattrs};
use super::{CopyError, show};
use crate::limits::MAX_PATH_BYTES;
use crate::tar::{Kind, TarWriter, WriteEntry};

/// Pieces in which contents are read and headers gathered.
const BUFFER_BYTES: usize = 256 << 10;

/// What is packed.
#[derive(Clone, Copy)]
pub struct Pack<'a> {
    /// The name that stands first in the names of the members; empty puts none before them.
    pub called: &'a [u8],
    /// Folders that are packed without what is in them: asked where another file system begins,
    /// with the folder and what it is.
    pub hidden: &'a dyn Fn(BorrowedFd<'_>, &Stat) -> bool,
}

impl std::fmt::Debug for Pack<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pack")
            .field("called", &show(self.called))
            .finish_non_exhaustive()
    }
}

/// Writes `what` and all below it to `out`, names sorted, hard links kept; sockets are left out.
/// Returns the bytes of contents.
///
/// # Errors
/// See [`CopyError`].
pub fn pack(what: Node, how: Pack<'_>, out: &mut dyn Write) -> Result<u64, CopyError> {
    let mut packer = Packer::new(how, out);
    let called = how.called.to_vec();
    let hidden = what.kind() == FileType::Directory && (how.hidden)(what.fd.as_fd(), &what.stat);
    if let Some(dir) = packer.member(&what, &called)?
        && !hidden
    {
        packer.walk(dir, called, what.stat.st_dev)?;
    }
    packer.finish()
}

/// As [`pack`] for what is in a folder, without the folder itself.
///
/// # Errors
/// See [`CopyError`].
pub fn pack_content(
    dir: BorrowedFd<'_>,
    how: Pack<'_>,
    out: &mut dyn Write,
) -> Result<u64, CopyError> {
    let mut packer = Packer::new(how, out);
    let this = node(dir, b".").map_err(|e| read(b"/", e))?;
    let opened = this.open().map_err(|e| read(b"/", e))?;
    packer.walk(opened, how.called.to_vec(), this.stat.st_dev)?;
    packer.finish()
}

/// A folder being walked; names in reverse order.
struct Frame {
    dir: OwnedFd,
    path: Vec<u8>,
    device: u64,
    names: Vec<Vec<u8>>,
}

impl Frame {
    fn new(dir: OwnedFd, path: Vec<u8>, device: u64) -> Result<Self, CopyError> {
        let names = names_reversed(&dir).map_err(|e| read(&path, e))?;
        Ok(Self {
            dir,
            path,
            device,
            names,
        })
    }
}

struct Packer<'a> {
    how: Pack<'a>,
    tar: TarWriter<BufWriter<&'a mut dyn Write>>,
    /// First path of each inode that has several.
    seen: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl<'a> Packer<'a> {
    fn new(how: Pack<'a>, out: &'a mut dyn Write) -> Self {
        Self {
            how,
            tar: TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, out)),
            seen: HashMap::new(),
            buffer: vec![0; BUFFER_BYTES],
            bytes: 0,
        }
    }

    fn finish(self) -> Result<u64, CopyError> {
        self.tar.finish().map_err(CopyError::Write)?;
        Ok(self.bytes)
    }

    fn walk(&mut self, dir: OwnedFd, path: Vec<u8>, device: u64) -> Result<(), CopyError> {
        let mut stack = vec![Frame::new(dir, path, device)?];
        while let Some(frame) = stack.last_mut() {
            let Some(name) = frame.names.pop() else {
                stack.pop();
                continue;
            };
            let path = match &frame.path[..] {
                b"" => name.clone(),
                base if base.ends_with(b"/") => [base, &name[..]].concat(),
                base => [base, b"/", &name[..]].concat(),
            };
            // No reader takes a longer one, and it bounds the folders that are open at once.
            if path.len() > MAX_PATH_BYTES {
                return Err(read(&path, Errno::NAMETOOLONG));
            }
            let child = match node(frame.dir.as_fd(), &name) {
                Ok(child) => child,
                // A running container may remove what it listed.
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(read(&path, e)),
            };
            let other_device = child.stat.st_dev != frame.device;
            let Some(dir) = self.member(&child, &path)? else {
                continue;
            };
            if !(other_device && (self.how.hidden)(child.fd.as_fd(), &child.stat)) {
                stack.push(Frame::new(dir, path, child.stat.st_dev)?);
            }
        }
        Ok(())
    }

    /// Writes one member; returns the descriptor of a folder.
    fn member(&mut self, node: &Node, path: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
        let fail = |e| read(path, e);
        let (kind, stat) = (node.kind(), &node.stat);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)) {
                let mut entry = entry_of(path, Kind::HardLink, stat);
                let link = first.clone();
                entry.link = &link;
                self.header(&entry)?;
                return Ok(None);
            }
            self.seen.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        match kind {
            FileType::Directory => {
                let dir = node.open().map_err(fail)?;
                let xattrs = xattrs(dir.as_fd()).map_err(fail)?;
                let mut entry = entry_of(path, Kind::Dir, stat);
                entry.xattrs = &xattrs;
                self.header(&entry)?;
                return Ok(Some(dir));
            }
            FileType::RegularFile => {
                let file = node.open_file().map_err(fail)?;
                self.file(file, path)?;
            }
            FileType::Symlink => {
                let link = readlinkat(&node.fd, "", Vec::new()).map_err(fail)?;
                let mut entry = entry_of(path, Kind::Symlink, stat);
                entry.link = link.as_bytes();
                self.header(&entry)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let tar_kind = if kind == FileType::CharacterDevice {
                    Kind::Char
                } else {
                    Kind::Block
                };
                let mut entry = entry_of(path, tar_kind, stat);
                entry.major = major(stat.st_rdev);
                entry.minor = minor(stat.st_rdev);
                self.header(&entry)?;
            }
            FileType::Fifo => self.header(&entry_of(path, Kind::Fifo, stat))?,
            FileType::Socket | FileType::Unknown => {}
        }
        Ok(None)
    }

    /// Writes a file at the size it has when opened: what grows is cut, what shrinks is filled
    /// with zeros, since the header stands before the content.
    fn file(&mut self, mut file: File, path: &[u8]) -> Result<(), CopyError> {
        let fail = |e| read(path, e);
        let stat = fstat(&file).map_err(fail)?;
        let xattrs = xattrs(file.as_fd()).map_err(fail)?;
        let mut entry = entry_of(path, Kind::File, &stat);
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = &xattrs;
        self.header(&entry)?;
        self.bytes = self.bytes.saturating_add(entry.size);
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
                    return Err(CopyError::Read {
                        path: show(path),
                        source,
                    });
                }
            };
            self.tar
                .get_mut()
                .write_all(buffer.get(..n).unwrap_or_default())
                .map_err(CopyError::Write)?;
            left -= n as u64;
        }
        self.tar.pad(entry.size).map_err(CopyError::Write)
    }

    fn header(&mut self, entry: &WriteEntry<'_>) -> Result<(), CopyError> {
        self.tar.header(entry).map_err(CopyError::Write)
    }
}

fn read(path: &[u8], source: Errno) -> CopyError {
    CopyError::Read {
        path: show(path),
        source: source.into(),
    }
}
