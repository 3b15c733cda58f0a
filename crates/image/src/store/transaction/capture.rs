//! A layer from the writable part of a container. The upper directory of its overlay is copied
//! into a layer's tree, and in the same pass its tar is put together, digested and noted in the
//! split file: nothing is packed to be unpacked again.
//!
//! ```text
//! upper, on disk                      tar (OCI)                    tree of the layer, on disk
//! character device 0:0                .wh.NAME                     the same
//! trusted.overlay.opaque=y            .wh..wh..opq in it           the same
//! trusted.overlay.redirect, metacopy  content of the merged tree   a whole directory or file
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hull_model::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fgetxattr, fsetxattr, fstat, futimens,
    ioctl_ficlone, linkat, major, minor, mkdirat, mknodat, openat, openat2, readlinkat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::{LayerOut, META_FILE, StoreError, Transaction};
use crate::copy::{Node, entry_of, names_reversed, node, xattrs};
use crate::hash::Hasher;
use crate::split::{SPLIT_FILE, SplitWriter, TREE_DIR};
use crate::store::LayerMeta;
use crate::tar::{Kind, Tap, TarWriter, WriteEntry};

/// Size of a piece of the tar, and how many wait to be digested.
const CHUNK_BYTES: usize = 256 << 10;
const QUEUE: usize = 4;
/// Smallest file that is worth a try to share its blocks.
const SHARE_BYTES: u64 = 64 << 10;
/// Mode of a tree's root if nothing else is said.
const ROOT_MODE: u32 = 0o755;
const WHITEOUT_MODE: u32 = 0o600;
const OPAQUE: &str = "trusted.overlay.opaque";
const REDIRECT: &str = "trusted.overlay.redirect";
const METACOPY: &str = "trusted.overlay.metacopy";

/// What a container wrote.
#[derive(Clone, Copy)]
pub struct Upper<'a> {
    /// The upper directory.
    pub dir: BorrowedFd<'a>,
    /// Gives the merged tree, for what the upper directory holds in part only.
    pub merged: &'a dyn Fn() -> io::Result<OwnedFd>,
}

impl std::fmt::Debug for Upper<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upper").finish_non_exhaustive()
    }
}

/// Why no layer could be made.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A part of the container cannot be read.
    #[error("cannot read {path:?} of the container")]
    Read {
        /// Which.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A part of the layer cannot be written.
    #[error("cannot write {path:?} of the new layer")]
    Write {
        /// Which.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn read(path: &[u8]) -> impl Fn(Errno) -> CaptureError {
    move |source| CaptureError::Read {
        path: String::from_utf8_lossy(path).into_owned(),
        source: source.into(),
    }
}

fn write<E: Into<io::Error>>(path: &[u8]) -> impl Fn(E) -> CaptureError {
    move |source| CaptureError::Write {
        path: String::from_utf8_lossy(path).into_owned(),
        source: source.into(),
    }
}

impl Transaction<'_> {
    /// Keeps layers that the store has from being removed while this transaction lives.
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`] for one that it has not.
    pub(crate) fn pin_all(&mut self, layers: &[Digest]) -> Result<(), StoreError> {
        for layer in layers {
            if !self.pin(layer) {
                return Err(StoreError::LayerMissing(*layer));
            }
        }
        Ok(())
    }

    /// Makes a layer of what a container wrote; none if it wrote nothing.
    ///
    /// # Errors
    /// See [`CaptureError`].
    pub(crate) fn capture(&mut self, upper: Upper<'_>) -> Result<Option<Digest>, CaptureError> {
        let number = self
            .numbers
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.dir.join(super::early::layer_name(number));
        fs::create_dir(&path).map_err(|e| StoreError::io("create", &path, e))?;
        let dir = openat(CWD, &path, dir_flags(), Mode::empty())
            .map_err(|e| StoreError::io("open", &path, e))?;
        let (fed, found) = captured(upper, dir.as_fd())?;
        if found.entries == 0 {
            super::files::delete(&path)?;
            return Ok(None);
        }
        let meta = LayerMeta {
            diff_id: fed.0,
            tar_bytes: fed.1,
            tree_bytes: found.bytes,
            entries: found.entries,
            link: self.store.new_link(),
            moved: Vec::new(),
            warnings: Vec::new(),
        };
        self.store.dirs.write_json(&path.join(META_FILE), &meta)?;
        let diff_id = meta.diff_id;
        let out: LayerOut = (path, meta);
        self.keep(out)?;
        Ok(Some(diff_id))
    }
}

/// What was found in the upper directory.
struct Found {
    entries: u64,
    bytes: u64,
}

/// Fills the empty directory `layer`; digest and size of the tar come from a thread of their own.
fn captured(
    upper: Upper<'_>,
    layer: BorrowedFd<'_>,
) -> Result<((Digest, u64), Found), CaptureError> {
    let fail = write::<Errno>(b"/");
    mkdirat(layer, TREE_DIR, Mode::from_raw_mode(ROOT_MODE)).map_err(&fail)?;
    let root = openat(layer, TREE_DIR, dir_flags(), Mode::empty()).map_err(&fail)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let split = openat(layer, SPLIT_FILE, flags, Mode::from_raw_mode(0o600)).map_err(&fail)?;
    let split = SplitWriter::new(File::from(split)).map_err(write(b"/"))?;
    let (to_digest, chunks) = sync_channel::<Vec<u8>>(QUEUE);
    let (give_back, empties) = sync_channel(QUEUE + 2);
    std::thread::scope(|scope| {
        let digest = std::thread::Builder::new()
            .name("layer-digest".into())
            .spawn_scoped(scope, move || {
                let mut hasher = Hasher::default();
                for chunk in chunks {
                    hasher.update(&chunk);
                    // Without a taker the buffer is dropped.
                    let _ = give_back.try_send(chunk);
                }
                let bytes = hasher.bytes();
                (hasher.finish(), bytes)
            })
            .map_err(write(b"/"))?;
        let mut capture = Capture {
            upper,
            merged: None,
            root,
            tar: TarWriter::new(Sink {
                feed: Feed {
                    chunk: Vec::with_capacity(CHUNK_BYTES),
                    to_digest,
                    empties,
                },
                split,
            }),
            seen: HashMap::new(),
            share: true,
            found: Found {
                entries: 0,
                bytes: 0,
            },
        };
        capture.walk()?;
        let sink = capture.tar.finish().map_err(write(b"/"))?;
        sink.split.finish().map_err(write(b"/"))?;
        sink.feed.finish().map_err(write(b"/"))?;
        let fed = digest
            .join()
            .map_err(|_| write(b"/")(io::Error::other("the digest broke off")))?;
        Ok((fed, capture.found))
    })
}

/// The pieces of the tar on their way to the digest.
struct Feed {
    chunk: Vec<u8>,
    to_digest: SyncSender<Vec<u8>>,
    empties: Receiver<Vec<u8>>,
}

impl Feed {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES.saturating_sub(self.chunk.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            self.send_if_full()?;
        }
        Ok(())
    }

    /// Reads at most `most` bytes into the tar and returns them.
    fn fill(&mut self, file: &mut File, most: u64) -> io::Result<&[u8]> {
        self.send_if_full()?;
        let start = self.chunk.len();
        let room = u64::try_from(CHUNK_BYTES - start).unwrap_or(0);
        Read::take(&mut *file, most.min(room)).read_to_end(&mut self.chunk)?;
        if self.chunk.len() == start {
            // It became shorter: its header has promised more.
            let zeros = usize::try_from(most.min(room)).unwrap_or(0);
            self.chunk.resize(start + zeros, 0);
        }
        Ok(self.chunk.get(start..).unwrap_or_default())
    }

    fn send_if_full(&mut self) -> io::Result<()> {
        if self.chunk.len() < CHUNK_BYTES {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let mut next = self
            .empties
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES));
        next.clear();
        let full = std::mem::replace(&mut self.chunk, next);
        self.to_digest
            .send(full)
            .map_err(|_| io::Error::other("the digest broke off"))
    }

    fn finish(mut self) -> io::Result<()> {
        self.send()
    }
}

/// Headers and padding go to the digest and to the split file.
struct Sink {
    feed: Feed,
    split: SplitWriter,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed.push(bytes)?;
        self.split.raw(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory being copied.
struct Frame {
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    path: Vec<u8>,
    /// The rest, the last first.
    names: Vec<Vec<u8>>,
    /// `from` is a directory of the merged tree.
    whole: bool,
}

struct Capture<'a> {
    upper: Upper<'a>,
    merged: Option<OwnedFd>,
    root: OwnedFd,
    tar: TarWriter<Sink>,
    /// First path of each inode that has several.
    seen: HashMap<(u64, u64), Vec<u8>>,
    /// Whether sharing blocks is worth another try.
    share: bool,
    found: Found,
}

impl Capture<'_> {
    fn walk(&mut self) -> Result<(), CaptureError> {
        let fail = read(b"/");
        let from = openat(self.upper.dir, ".", dir_flags(), Mode::empty()).map_err(&fail)?;
        let stat = fstat(&from).map_err(&fail)?;
        let to = self.root.try_clone().map_err(write(b"/"))?;
        let attributes = xattrs(from.as_fd()).map_err(&fail)?;
        let usual = (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid) == (ROOT_MODE, 0, 0);
        if !usual || !attributes.is_empty() {
            let mut entry = entry_of(b"./", Kind::Dir, &stat);
            entry.xattrs = &attributes;
            self.header(&entry)?;
        }
        put(to.as_fd(), &stat, &attributes).map_err(write(b"/"))?;
        let names = names_reversed(&from).map_err(&fail)?;
        let mut stack = vec![Frame {
            from,
            to,
            stat,
            path: Vec::new(),
            names,
            whole: false,
        }];
        while let Some(frame) = stack.last_mut() {
            let Some(name) = frame.names.pop() else {
                // Nothing is made in it any more, so its time stays.
                let times = times(&frame.stat);
                futimens(&frame.to, &times).map_err(write(&frame.path))?;
                stack.pop();
                continue;
            };
            if let Some(next) = self.member(frame, &name)? {
                stack.push(next);
            }
        }
        Ok(())
    }

    fn member(&mut self, frame: &Frame, name: &[u8]) -> Result<Option<Frame>, CaptureError> {
        let path = if frame.path.is_empty() {
            name.to_vec()
        } else {
            [&frame.path[..], b"/", name].concat()
        };
        let node = match node(frame.from.as_fd(), name) {
            Ok(node) => node,
            // A running container may remove what was listed.
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(read(&path)(e)),
        };
        let stat = node.stat;
        let kind = node.kind();
        let to = frame.to.as_fd();
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            if !frame.whole {
                self.whiteout(frame, name, &stat)?;
            }
            return Ok(None);
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)).cloned() {
                // The tree is ours and new, so no link can be on the way.
                linkat(&self.root, &first[..], to, name, AtFlags::empty()).map_err(write(&path))?;
                let mut entry = entry_of(&path, Kind::HardLink, &stat);
                entry.link = &first;
                self.header(&entry)?;
                return Ok(None);
            }
            self.seen.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            FileType::Directory => return self.directory(frame, name, path, &node).map(Some),
            FileType::RegularFile => self.file(frame, name, &path, &node)?,
            FileType::Symlink => {
                let link = readlinkat(&node.fd, "", Vec::new()).map_err(read(&path))?;
                symlinkat(&link, to, name).map_err(write(&path))?;
                put_node(to, name, &stat).map_err(write(&path))?;
                let mut entry = entry_of(&path, Kind::Symlink, &stat);
                entry.link = link.as_bytes();
                self.header(&entry)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                    .map_err(write(&path))?;
                put_node(to, name, &stat).map_err(write(&path))?;
                let tar_kind = match kind {
                    FileType::CharacterDevice => Kind::Char,
                    FileType::BlockDevice => Kind::Block,
                    _ => Kind::Fifo,
                };
                let mut entry = entry_of(&path, tar_kind, &stat);
                if tar_kind != Kind::Fifo {
                    entry.major = major(stat.st_rdev);
                    entry.minor = minor(stat.st_rdev);
                }
                self.header(&entry)?;
            }
            FileType::Socket | FileType::Unknown => {}
        }
        Ok(None)
    }

    fn directory(
        &mut self,
        frame: &Frame,
        name: &[u8],
        path: Vec<u8>,
        node: &Node,
    ) -> Result<Frame, CaptureError> {
        let place = path.clone();
        let fail = read(&place);
        let mut from = openat(&node.fd, ".", dir_flags(), Mode::empty()).map_err(&fail)?;
        let mut whole = frame.whole;
        let mut opaque = false;
        if !whole {
            opaque = attribute(from.as_fd(), OPAQUE).map_err(&fail)? == Some(b'y');
            if attribute(from.as_fd(), REDIRECT).map_err(&fail)?.is_some() {
                // It was moved here, and most of what is in it lies in lower layers elsewhere.
                from = self.merged(&path, dir_flags())?;
                (whole, opaque) = (true, true);
            }
        }
        let stat = node.stat;
        let attributes = xattrs(from.as_fd()).map_err(&fail)?;
        mkdirat(&frame.to, name, Mode::from_raw_mode(0o700)).map_err(write(&path))?;
        let to = openat(&frame.to, name, dir_flags(), Mode::empty()).map_err(write(&path))?;
        put(to.as_fd(), &stat, &attributes).map_err(write(&path))?;
        let mut entry = entry_of(&path, Kind::Dir, &stat);
        entry.xattrs = &attributes;
        self.header(&entry)?;
        if opaque {
            fsetxattr(&to, OPAQUE, b"y", XattrFlags::empty()).map_err(write(&path))?;
            let mark = [&path[..], b"/.wh..wh..opq"].concat();
            let mut entry = entry_of(&mark, Kind::File, &stat);
            entry.mode = WHITEOUT_MODE;
            self.header(&entry)?;
        }
        let names = names_reversed(&from).map_err(&fail)?;
        Ok(Frame {
            from,
            to,
            stat,
            path,
            names,
            whole,
        })
    }

    fn file(
        &mut self,
        frame: &Frame,
        name: &[u8],
        path: &[u8],
        node: &Node,
    ) -> Result<(), CaptureError> {
        let mut from = node.open_file().map_err(read(path))?;
        if !frame.whole
            && attribute(from.as_fd(), METACOPY)
                .map_err(read(path))?
                .is_some()
        {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            from = File::from(self.merged(path, flags)?);
        }
        let stat = fstat(&from).map_err(read(path))?;
        let attributes = xattrs(from.as_fd()).map_err(read(path))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(&frame.to, name, flags, Mode::from_raw_mode(0o600)).map_err(write(path))?;
        let to = File::from(to);
        let mut entry = entry_of(path, Kind::File, &stat);
        entry.size = size;
        entry.xattrs = &attributes;
        self.header(&entry)?;
        if size > 0 {
            let split = &mut self.tar.get_mut().split;
            split.file(path, size).map_err(write(path))?;
            self.content(&mut from, &to, size, path)?;
            self.tar.pad(size).map_err(write(path))?;
        }
        self.found.bytes = self.found.bytes.saturating_add(size);
        put(to.as_fd(), &stat, &attributes).map_err(write(path))?;
        futimens(&to, &times(&stat)).map_err(write(path))
    }

    /// Content into the digest, and into the new file unless the two can share it.
    fn content(
        &mut self,
        from: &mut File,
        to: &File,
        size: u64,
        path: &[u8],
    ) -> Result<(), CaptureError> {
        let mut shared = false;
        if self.share && size >= SHARE_BYTES {
            shared = ioctl_ficlone(to, &*from).is_ok();
            self.share = shared;
        }
        // What is shared does not change any more, whatever the container does.
        let mut again = match shared {
            true => Some(reopened(to).map_err(read(path))?),
            false => None,
        };
        let source = again.as_mut().unwrap_or(from);
        let mut offset = 0;
        while offset < size {
            let feed = &mut self.tar.get_mut().feed;
            let bytes = feed
                .fill(source, size - offset)
                .map_err(|source| CaptureError::Read {
                    path: String::from_utf8_lossy(path).into_owned(),
                    source,
                })?;
            // Holes stay holes.
            if !shared && bytes.iter().any(|&b| b != 0) {
                to.write_all_at(bytes, offset).map_err(write(path))?;
            }
            offset += bytes.len() as u64;
        }
        to.set_len(size).map_err(write(path))
    }

    fn whiteout(&mut self, frame: &Frame, name: &[u8], stat: &Stat) -> Result<(), CaptureError> {
        let path = match &frame.path[..] {
            b"" => [b".wh.", name].concat(),
            base => [base, b"/.wh.", name].concat(),
        };
        let kind = FileType::CharacterDevice;
        mknodat(&frame.to, name, kind, Mode::empty(), 0).map_err(write(&path))?;
        let mut entry = entry_of(&path, Kind::File, stat);
        entry.mode = WHITEOUT_MODE;
        self.header(&entry)
    }

    /// Opens something of the merged tree.
    fn merged(&mut self, path: &[u8], flags: OFlags) -> Result<OwnedFd, CaptureError> {
        let root = match &self.merged {
            Some(root) => root,
            None => {
                let root = (self.upper.merged)().map_err(|source| CaptureError::Read {
                    path: "/".into(),
                    source,
                })?;
                self.merged.insert(root)
            }
        };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(root, path, flags, Mode::empty(), resolve).map_err(read(path))
    }

    fn header(&mut self, entry: &WriteEntry<'_>) -> Result<(), CaptureError> {
        self.found.entries += 1;
        self.tar.header(entry).map_err(write(entry.path))
    }
}

fn reopened(file: &File) -> rustix::io::Result<File> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    openat(CWD, format!("/proc/self/fd/{fd}"), flags, Mode::empty()).map(File::from)
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The first byte of an attribute, zero for an empty one.
fn attribute(fd: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<u8>> {
    let mut value = [0u8; 4096];
    match fgetxattr(fd, name, &mut value[..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(value.first().copied()),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Owner, mode and attributes, in this order: a change of owner clears set-id bits, a change of
/// either a file's capabilities.
fn put(
    to: BorrowedFd<'_>,
    stat: &Stat,
    attributes: &[(Vec<u8>, Vec<u8>)],
) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fchown(to, Some(uid), Some(gid))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in attributes {
        fsetxattr(to, &name[..], value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Owner, mode and time of something that cannot be opened.
fn put_node(to: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
