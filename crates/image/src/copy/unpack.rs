//! A tar stream is unpacked into a folder whose surroundings may be hostile and change meanwhile.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat, mknodat,
    openat, openat2, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::files::{Node, carried, names_reversed, node};
use super::{CopyError, show};
use crate::compress::{Bound, Decoder};
use crate::limits::{Limits, MAX_PATH_BYTES};
use crate::tar::{Entry, Kind, Mtime, NoTap, SparseMap, TarReader};
use crate::unpack::{PathProblem, clean};

/// Mode of folders that an archive uses without naming them.
const IMPLIED_DIR_MODE: u32 = 0o755;
/// Mode of folders while they are filled.
const OPEN_DIR_MODE: u32 = 0o700;
/// Piece in which the stream is read.
const BUFFER_BYTES: usize = 256 << 10;
/// How often a resolution that raced with a rename is tried again.
const MAX_RETRIES: usize = 64;

/// Where symbolic links of the tree that is unpacked into lead.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The root that absolute links and `..` stay beneath.
    pub root: BorrowedFd<'a>,
    /// Path of the folder from there.
    pub path: &'a [u8],
}

/// Whose the files shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As the archive says.
    Archive,
    /// The caller's.
    Caller,
    /// This user's and group's.
    Ids(u32, u32),
}

/// How names are changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rename<'a> {
    /// Not at all.
    #[default]
    Keep,
    /// The first component becomes this.
    First(&'a [u8]),
    /// This is put before each.
    Prefix(&'a [u8]),
}

/// Where and how an archive is unpacked.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The folder.
    pub dir: BorrowedFd<'a>,
    /// Where links lead; without it none is followed.
    pub scope: Option<Scope<'a>>,
    /// Whose the files shall be.
    pub owner: Owner,
    /// It is an error to replace a folder by something else, or something else by a folder.
    pub keep_kinds: bool,
    /// Changes names.
    pub rename: Rename<'a>,
    /// Folders in which nothing may be made.
    pub closed: &'a dyn Fn(BorrowedFd<'_>) -> bool,
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("owner", &self.owner)
            .field("keep_kinds", &self.keep_kinds)
            .field("rename", &self.rename)
            .finish_non_exhaustive()
    }
}

/// Unpacks `input`, plain, gzip or zstd, to its end. Returns the bytes of contents.
///
/// # Errors
/// See [`CopyError`]. What was unpacked by then stays.
pub fn unpack(input: &mut dyn Read, place: Place<'_>, limits: &Limits) -> Result<u64, CopyError> {
    let decoder = Decoder::new(input, Bound::archive(limits)).map_err(CopyError::Stream)?;
    let mut unpacker = Unpacker {
        reader: TarReader::new(BufReader::with_capacity(BUFFER_BYTES, decoder), NoTap),
        folders: Folders {
            place,
            cached: None,
        },
        late: Vec::new(),
        privileged: rustix::process::geteuid().is_root(),
        bytes: 0,
    };
    while let Some(entry) = unpacker.reader.next_entry()? {
        unpacker.entry(&entry)?;
    }
    unpacker.finish()?;
    Ok(unpacker.bytes)
}

/// The folders of the tree, found by descriptors.
struct Folders<'a> {
    place: Place<'a>,
    /// The one used last: most members follow one another in the same one.
    cached: Option<(Vec<u8>, Rc<OwnedFd>)>,
}

impl Folders<'_> {
    /// Opens the folder `path` (cleaned), making what is missing of it.
    fn open(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, CopyError> {
        if let Some((known, fd)) = &self.cached
            && known == path
        {
            return Ok(fd.clone());
        }
        let fd = match self.find(path)? {
            Some(fd) => fd,
            None => {
                let (parent, name) = split(path);
                let parent = self.open(parent)?;
                match mkdirat(&*parent, name, Mode::from_raw_mode(IMPLIED_DIR_MODE)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(CopyError::io("make directory", path, e)),
                }
                // A dangling link is in the way if it still cannot be found.
                self.find(path)?
                    .ok_or_else(|| CopyError::io("open directory", path, Errno::NOENT))?
            }
        };
        if (self.place.closed)(fd.as_fd()) {
            return Err(CopyError::Closed { path: show(path) });
        }
        let fd = Rc::new(fd);
        self.cached = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Opens the folder `path` if it is there.
    fn find(&self, path: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if path.is_empty() {
            let dir = openat(self.place.dir, ".", flags, Mode::empty());
            return dir
                .map(Some)
                .map_err(|e| CopyError::io("open directory", path, e));
        }
        let plain = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(self.place.dir, path, flags, Mode::empty(), plain) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => match self.place.scope {
                Some(scope) => in_scope(scope, path),
                None => Err(CopyError::ThroughLink { path: show(path) }),
            },
            Err(e) => Err(CopyError::io("open directory", path, e)),
        }
    }
}

/// Follows links as the container itself would.
fn in_scope(scope: Scope<'_>, path: &[u8]) -> Result<Option<OwnedFd>, CopyError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let whole = [scope.path, b"/", path].concat();
    let mut tries = 0;
    loop {
        match openat2(scope.root, &whole[..], flags, Mode::empty(), inside) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_RETRIES => tries += 1,
            Err(Errno::NOENT) => return Ok(None),
            found => {
                return found
                    .map(Some)
                    .map_err(|e| CopyError::io("open directory", path, e));
            }
        }
    }
}

struct Unpacker<'a, R> {
    reader: TarReader<R, NoTap>,
    folders: Folders<'a>,
    /// Modes and times of folders, set when nothing is made in them any more.
    late: Vec<(Vec<u8>, u32, Mtime)>,
    privileged: bool,
    bytes: u64,
}

impl<R: std::io::BufRead> Unpacker<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), CopyError> {
        let bad = |path: &[u8], problem| CopyError::Name {
            path: show(path),
            problem,
        };
        let name = |path: &[u8]| clean(path).map_err(|problem| bad(path, problem));
        let place = self.folders.place;
        let path = renamed(&name(&entry.path)?, place.rename);
        if path.len() > MAX_PATH_BYTES {
            return Err(bad(&path, PathProblem::TooLong));
        }
        if path.is_empty() {
            // The folder itself: it is there, and its attributes are not the archive's business.
            return match entry.kind {
                Kind::Dir | Kind::Other(_) => Ok(()),
                _ => Err(bad(&entry.path, PathProblem::Empty)),
            };
        }
        let (parent, last) = split(&path);
        let parent = self.folders.open(parent)?;
        if entry.kind == Kind::Dir {
            return self.dir(&parent, last, &path, entry);
        }
        if let Kind::Other(_) = entry.kind {
            return Ok(());
        }
        // The link's target is found before what is in its place is removed.
        let target = if entry.kind == Kind::HardLink {
            Some(renamed(&name(&entry.link)?, place.rename))
        } else {
            None
        };
        self.clear(&parent, last, &path)?;
        match entry.kind {
            Kind::File => self.file(&parent, last, &path, entry),
            Kind::HardLink => self.hard_link(&parent, last, &path, &target.unwrap_or_default()),
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(CopyError::io("make symbolic link", &path, Errno::INVAL));
                }
                symlinkat(&entry.link[..], &*parent, last)
                    .map_err(|e| CopyError::io("make symbolic link", &path, e))?;
                self.finish_node(&parent, last, &path, entry)
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(entry.major, entry.minor);
                mknodat(&*parent, last, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(|e| CopyError::io("make device node", &path, e))?;
                self.finish_node(&parent, last, &path, entry)
            }
            Kind::Dir | Kind::Other(_) => Ok(()),
        }
    }

    /// Makes a folder or takes the one that is there.
    fn dir(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), CopyError> {
        let io = |e| CopyError::io("make directory", path, e);
        let make = || mkdirat(parent, name, Mode::from_raw_mode(OPEN_DIR_MODE));
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = node(parent.as_fd(), name).map_err(io)?;
                if there.kind() != FileType::Directory {
                    if self.folders.place.keep_kinds {
                        return Err(CopyError::OverwriteNonDir { path: show(path) });
                    }
                    unlinkat(parent, name, AtFlags::empty()).map_err(io)?;
                    make().map_err(io)?;
                }
            }
            Err(e) => return Err(io(e)),
        }
        let dir = open_dir(parent.as_fd(), name).map_err(io)?;
        if (self.folders.place.closed)(dir.as_fd()) {
            // It is there; what an archive has in it is refused when it comes.
            return Ok(());
        }
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| CopyError::io("set owner of", path, e))?;
        }
        // Its content may need what its mode does not grant.
        let open = entry.mode | OPEN_DIR_MODE;
        fchmod(&dir, Mode::from_raw_mode(open))
            .map_err(|e| CopyError::io("set mode of", path, e))?;
        set_xattrs(dir.as_fd(), path, entry)?;
        self.late.push((path.to_vec(), entry.mode, entry.mtime));
        self.folders.cached = None;
        Ok(())
    }

    /// Removes what is in the way of something that is no folder.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), CopyError> {
        let io = |e| CopyError::io("replace", path, e);
        let there = match node(parent.as_fd(), name) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(io(e)),
        };
        if there.kind() != FileType::Directory {
            return match unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(e) => Err(io(e)),
            };
        }
        if self.folders.place.keep_kinds {
            return Err(CopyError::OverwriteDir { path: show(path) });
        }
        self.folders.cached = None;
        remove_tree(parent.as_fd(), name, there).map_err(io)
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), CopyError> {
        // New, or not at all: a link that was put there meanwhile is not followed.
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::from_raw_mode(0o600))
            .map_err(|e| CopyError::io("create", path, e))?;
        let mut file = File::from(file);
        let write = |e| CopyError::io("write", path, e);
        match &entry.sparse {
            Some(map) => self.sparse(&file, path, map)?,
            None => loop {
                let chunk = self.reader.payload()?;
                if chunk.is_empty() {
                    break;
                }
                let n = file.write(chunk).map_err(write)?;
                self.reader.consume(n);
                self.bytes = self.bytes.saturating_add(n as u64);
            },
        }
        if let Some((uid, gid)) = self.owner(entry) {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| CopyError::io("set owner of", path, e))?;
        }
        fchmod(&file, Mode::from_raw_mode(entry.mode))
            .map_err(|e| CopyError::io("set mode of", path, e))?;
        set_xattrs(file.as_fd(), path, entry)?;
        futimens(&file, &times(entry.mtime)).map_err(|e| CopyError::io("set times of", path, e))
    }

    /// Writes the fragments of a sparse file to their places.
    fn sparse(&mut self, file: &File, path: &[u8], map: &SparseMap) -> Result<(), CopyError> {
        let write = |e| CopyError::io("write", path, e);
        file.set_len(map.real_size).map_err(write)?;
        for &(offset, length) in &map.fragments {
            let (mut offset, mut left) = (offset, length);
            while left > 0 {
                let chunk = self.reader.payload()?;
                let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let Some(piece @ [_, ..]) = chunk.get(..most) else {
                    return Ok(());
                };
                file.write_all_at(piece, offset).map_err(write)?;
                self.reader.consume(most);
                offset += most as u64;
                left -= most as u64;
                self.bytes = self.bytes.saturating_add(most as u64);
            }
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        target: &[u8],
    ) -> Result<(), CopyError> {
        let fail = |e: Errno| CopyError::HardLink {
            path: show(path),
            target: show(target),
            source: e.into(),
        };
        let (folder, last) = split(target);
        if last.is_empty() {
            return Err(fail(Errno::NOENT));
        }
        let from = self
            .folders
            .find(folder)?
            .ok_or_else(|| fail(Errno::NOENT))?;
        linkat(&from, last, parent, name, AtFlags::empty()).map_err(fail)
    }

    /// Owner, mode and times of something that is not opened.
    fn finish_node(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), CopyError> {
        if let Some((uid, gid)) = self.owner(entry) {
            chownat(
                parent,
                name,
                Some(Uid::from_raw(uid)),
                Some(Gid::from_raw(gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|e| CopyError::io("set owner of", path, e))?;
        }
        if entry.kind != Kind::Symlink {
            // By the descriptor of what is there now, for a name could have become a link.
            let made = node(parent.as_fd(), name).map_err(|e| CopyError::io("open", path, e))?;
            if made.kind() != FileType::Symlink {
                let through = format!("/proc/self/fd/{}", made.fd.as_raw_fd());
                chmodat(
                    rustix::fs::CWD,
                    through,
                    Mode::from_raw_mode(entry.mode),
                    AtFlags::empty(),
                )
                .map_err(|e| CopyError::io("set mode of", path, e))?;
            }
        }
        utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| CopyError::io("set times of", path, e))
    }

    fn owner(&self, entry: &Entry) -> Option<(u32, u32)> {
        match self.folders.place.owner {
            Owner::Archive if self.privileged => Some((entry.uid, entry.gid)),
            Owner::Archive | Owner::Caller => None,
            Owner::Ids(uid, gid) => Some((uid, gid)),
        }
    }

    /// Modes and times of folders, the innermost first: a mode may lock its folder.
    fn finish(&mut self) -> Result<(), CopyError> {
        self.folders.cached = None;
        for (path, mode, mtime) in std::mem::take(&mut self.late).into_iter().rev() {
            let (parent, name) = split(&path);
            let Some(parent) = self.folders.find(parent)? else {
                continue;
            };
            let dir = match open_dir(parent.as_fd(), name) {
                Ok(dir) => dir,
                // A later member replaced it, or the container did.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(e) => return Err(CopyError::io("open directory", &path, e)),
            };
            fchmod(&dir, Mode::from_raw_mode(mode))
                .map_err(|e| CopyError::io("set mode of", &path, e))?;
            futimens(&dir, &times(mtime)).map_err(|e| CopyError::io("set times of", &path, e))?;
        }
        Ok(())
    }
}

/// Deletes a folder with all in it, by descriptors.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8], dir: Node) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        done => return done,
    }
    let opened = dir.open()?;
    let mut stack = vec![(names_reversed(&opened)?, opened)];
    while let Some((names, dir)) = stack.last_mut() {
        let Some(child) = names.last().cloned() else {
            stack.pop();
            continue;
        };
        match unlinkat(&*dir, &child[..], AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => drop(names.pop()),
            Err(Errno::ISDIR) => match unlinkat(&*dir, &child[..], AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => drop(names.pop()),
                // Emptied next, and removed when its turn comes again.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    let next = open_dir(dir.as_fd(), &child)?;
                    let inside = names_reversed(&next)?;
                    // What cannot be emptied would come again and again.
                    if stack.len() >= MAX_PATH_BYTES / 2 {
                        return Err(Errno::NAMETOOLONG);
                    }
                    stack.push((inside, next));
                }
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e),
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

fn open_dir(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Attributes that an archive may carry; those that the file system does not take are left out.
fn set_xattrs(fd: BorrowedFd<'_>, path: &[u8], entry: &Entry) -> Result<(), CopyError> {
    for (key, value) in entry.xattrs.iter().filter(|(key, _)| carried(key)) {
        match fsetxattr(fd, &key[..], value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL | Errno::RANGE) => {}
            Err(e) => return Err(CopyError::io("set an attribute of", path, e)),
        }
    }
    Ok(())
}

fn renamed(path: &[u8], rename: Rename<'_>) -> Vec<u8> {
    match rename {
        Rename::Keep => path.to_vec(),
        Rename::Prefix(new) if path.is_empty() => new.to_vec(),
        Rename::Prefix(new) => [new, b"/", path].concat(),
        Rename::First(new) => match path.iter().position(|&b| b == b'/') {
            Some(at) => [new, path.get(at..).unwrap_or_default()].concat(),
            None if path.is_empty() => Vec::new(),
            None => new.to_vec(),
        },
    }
}

/// Folder (empty for the one unpacked into) and last component of a cleaned name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.secs,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_changes_the_first_component_or_puts_one_before() {
        assert_eq!(renamed(b"a/b", Rename::First(b"x")), b"x/b");
        assert_eq!(renamed(b"a", Rename::First(b"x")), b"x");
        assert_eq!(renamed(b"", Rename::Prefix(b"x")), b"x");
        assert_eq!(renamed(b"a/b", Rename::Prefix(b"x")), b"x/a/b");
        assert_eq!(renamed(b"a/b", Rename::Keep), b"a/b");
    }
}
