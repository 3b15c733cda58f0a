//! The directory tree that a layer is unpacked into. Every path is resolved beneath the root
//! descriptor, and no symbolic link is ever followed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dev, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec,
    Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat,
    lsetxattr, mkdirat, mknodat, openat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::UnpackError;
use super::dirtimes::DirTimes;
use super::path::{clean, split};
use super::records::Records;
use crate::limits::{LimitError, MAX_REPLACED};
use crate::split::{ODD_DIR, TREE_DIR};
use crate::tar::{Entry, Kind, Mtime};

/// Mode of directories that an archive uses without naming them.
const IMPLIED_DIR_MODE: RawMode = 0o755;
/// Most warnings kept; more are counted only.
const MAX_WARNINGS: usize = 100;
/// Longest warning, and longest name in a message.
const MAX_TEXT: usize = 512;
/// Overlayfs attribute of a directory that hides the same directory of lower layers.
const OPAQUE: &str = "trusted.overlay.opaque";

/// A tree under construction.
pub(crate) struct Tree {
    layer: OwnedFd,
    root: Rc<OwnedFd>,
    /// The directory used last: most entries follow one another in the same one.
    cached: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Times of directories, set when nothing is created in them any more.
    dir_times: DirTimes,
    /// Which split record holds the content of an inode.
    records: Records,
    /// Records whose file was replaced, with the number of the kept file.
    pub(crate) moved: Vec<(u64, u64)>,
    pub(crate) warnings: Vec<String>,
    privileged: bool,
}

impl Tree {
    /// Makes `fs` in an empty layer directory.
    pub(crate) fn create(layer: BorrowedFd<'_>) -> Result<Self, UnpackError> {
        let io = |source| UnpackError::io("prepare the layer directory", b"", source);
        mkdirat(layer, TREE_DIR, Mode::from_raw_mode(IMPLIED_DIR_MODE)).map_err(io)?;
        let root = openat(layer, TREE_DIR, dir_flags(), Mode::empty()).map_err(io)?;
        // The umask may have taken bits away.
        fchmod(&root, Mode::from_raw_mode(IMPLIED_DIR_MODE)).map_err(io)?;
        Ok(Self {
            layer: layer.try_clone_to_owned().map_err(|e| UnpackError::Io {
                what: "prepare the layer directory",
                path: String::new(),
                source: e,
            })?,
            root: Rc::new(root),
            cached: None,
            dir_times: DirTimes::default(),
            records: Records::default(),
            moved: Vec::new(),
            warnings: Vec::new(),
            privileged: rustix::process::geteuid().is_root(),
        })
    }

    pub(crate) fn warn(&mut self, text: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(text.chars().take(MAX_TEXT).collect());
        }
    }

    /// Opens the directory `path` (cleaned), making what is missing of it.
    pub(crate) fn dir(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, UnpackError> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((known, fd)) = &self.cached
            && known == path
        {
            return Ok(fd.clone());
        }
        let fd = match open_dir(&self.root, path) {
            Ok(fd) => Rc::new(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                let (parent, name) = split(path);
                let parent = self.dir(parent)?;
                Rc::new(self.make_dir(&parent, name, path, true)?)
            }
            Err(Errno::LOOP) => {
                return Err(UnpackError::ThroughSymlink { path: show(path) });
            }
            Err(e) => return Err(UnpackError::io("open directory", path, e)),
        };
        self.cached = Some((path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Makes a directory or takes the one that is there; replaces anything else, except that a
    /// file in the way of an implied directory is an error.
    fn make_dir(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        implied: bool,
    ) -> Result<OwnedFd, UnpackError> {
        let io = |e| UnpackError::io("make directory", path, e);
        let mode = Mode::from_raw_mode(IMPLIED_DIR_MODE);
        match mkdirat(parent, name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {}
                    _ if is_whiteout(&stat) => {
                        // Removed below and made anew here: nothing of the lower one may show.
                        unlinkat(parent, name, AtFlags::empty()).map_err(io)?;
                        mkdirat(parent, name, mode).map_err(io)?;
                        let dir = openat(parent, name, dir_flags(), Mode::empty()).map_err(io)?;
                        set_opaque(&dir, path)?;
                    }
                    FileType::Symlink if implied => {
                        return Err(UnpackError::ThroughSymlink { path: show(path) });
                    }
                    _ if implied => {
                        return Err(UnpackError::ThroughFile { path: show(path) });
                    }
                    _ => {
                        self.displace(parent, name, path)?;
                        mkdirat(parent, name, mode).map_err(io)?;
                    }
                }
            }
            Err(e) => return Err(io(e)),
        }
        let dir = openat(parent, name, dir_flags(), Mode::empty()).map_err(io)?;
        if implied {
            fchmod(&dir, mode).map_err(io)?;
        }
        Ok(dir)
    }

    /// Unpacks a directory entry; the empty path is the root itself.
    pub(crate) fn add_dir(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let fd = if path.is_empty() {
            self.root.clone()
        } else {
            let (parent, name) = split(path);
            let parent = self.dir(parent)?;
            Rc::new(self.make_dir(&parent, name, path, false)?)
        };
        self.apply_meta(fd.as_fd(), path, entry)?;
        self.dir_times
            .note(&self.layer, path, entry.mtime)
            .map_err(|e| UnpackError::io("note the times of", path, e))?;
        if !path.is_empty() {
            self.cached = Some((path.to_vec(), fd));
        }
        Ok(())
    }

    /// Creates an empty file, replacing what is there. Give it its content, then call
    /// [`Self::finish_file`]. With the permissions it is to have, so that they need not be set
    /// later: nobody but us gets into the store.
    pub(crate) fn create_file(&mut self, path: &[u8], mode: u32) -> Result<File, UnpackError> {
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        let fd = self.replacing(&parent, name, path, "create file", || {
            openat(
                &parent,
                name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::from_raw_mode(mode & 0o777),
            )
        })?;
        Ok(File::from(fd))
    }

    /// Sets owner, mode, attributes and time of a file after its content was written.
    pub(crate) fn finish_file(
        &mut self,
        file: &File,
        path: &[u8],
        entry: &Entry,
        record: Option<u64>,
    ) -> Result<(), UnpackError> {
        let inode = self.apply_meta(file.as_fd(), path, entry)?;
        futimens(file, &times(entry.mtime))
            .map_err(|e| UnpackError::io("set times of", path, e))?;
        if let Some(record) = record {
            self.records.note(record, inode);
        }
        Ok(())
    }

    pub(crate) fn add_symlink(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        self.replacing(&parent, name, path, "make symbolic link", || {
            symlinkat(&entry.link[..], &parent, name)
        })?;
        self.finish_node(&parent, name, path, entry)
    }

    /// Unpacks a device or pipe. Where the host forbids making it, a warning takes its place.
    pub(crate) fn add_node(
        &mut self,
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: Dev,
    ) -> Result<(), UnpackError> {
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        let made = self.replacing(&parent, name, path, "make device node", || {
            mknodat(&parent, name, kind, Mode::from_raw_mode(0o600), device)
        });
        match made {
            Err(UnpackError::Io { source, .. })
                if source.raw_os_error() == Some(Errno::PERM.raw_os_error()) =>
            {
                self.warn(format!(
                    "device node {} left out: the host does not permit making it",
                    show(path)
                ));
                return Ok(());
            }
            made => made?,
        }
        rustix::fs::chmodat(
            &parent,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )
        .map_err(|e| UnpackError::io("set mode of", path, e))?;
        self.finish_node(&parent, name, path, entry)
    }

    /// Owner, attributes and times of something that cannot be opened.
    fn finish_node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        if self.privileged {
            // Even for root: the group may be inherited from the folder.
            chownat(
                parent,
                name,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|e| UnpackError::io("set owner of", path, e))?;
            // Changing the owner clears the set-id bits of a device or pipe.
            if entry.kind != Kind::Symlink && entry.mode & 0o6000 != 0 {
                rustix::fs::chmodat(
                    parent,
                    name,
                    Mode::from_raw_mode(entry.mode),
                    AtFlags::empty(),
                )
                .map_err(|e| UnpackError::io("set mode of", path, e))?;
            }
        }
        for (key, value) in &entry.xattrs {
            let link = self_path(parent, name);
            self.xattr(path, key, |key| {
                lsetxattr(&link[..], key, value, XattrFlags::empty())
            })?;
        }
        let times = match entry.kind {
            Kind::Symlink => exact_times(entry.mtime),
            _ => times(entry.mtime),
        };
        utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| UnpackError::io("set times of", path, e))
    }

    /// Links `path` to an earlier member. The link's own owner, mode and time count, as in Docker:
    /// they become those of all names.
    pub(crate) fn add_hard_link(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let target = &entry.link[..];
        let missing = || UnpackError::HardLinkTarget {
            path: show(path),
            target: show(target),
        };
        let target = clean(target).map_err(|problem| UnpackError::Name {
            path: show(target),
            problem,
        })?;
        if target.is_empty() {
            return Err(missing());
        }
        let (target_parent, target_name) = split(&target);
        let from = if target_parent.is_empty() {
            self.root.clone()
        } else {
            match open_dir(&self.root, target_parent) {
                Ok(fd) => Rc::new(fd),
                Err(Errno::LOOP) => {
                    return Err(UnpackError::ThroughSymlink {
                        path: show(&target),
                    });
                }
                Err(_) => return Err(missing()),
            }
        };
        let source = match statat(&*from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if !is_whiteout(&stat) => stat,
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            Err(e) => return Err(UnpackError::io("stat", &target, e)),
        };
        if FileType::from_raw_mode(source.st_mode) == FileType::Directory {
            return Err(UnpackError::HardLinkDirectory {
                path: show(path),
                target: show(&target),
            });
        }
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        let same = statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|there| there.st_ino == source.st_ino);
        if !same {
            match self.replacing(&parent, name, path, "make hard link", || {
                linkat(&*from, target_name, &parent, name, AtFlags::empty())
            }) {
                Err(UnpackError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    return Err(missing());
                }
                done => done?,
            }
        }
        self.finish_link(&parent, name, path, entry, &source)
    }

    /// Gives an inode with several names what its newest name says, where that is something else.
    fn finish_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        stat: &Stat,
    ) -> Result<(), UnpackError> {
        let symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let chown = self.privileged && (entry.uid, entry.gid) != (stat.st_uid, stat.st_gid);
        if chown {
            chownat(
                parent,
                name,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(|e| UnpackError::io("set owner of", path, e))?;
        }
        for (key, value) in &entry.xattrs {
            let link = self_path(parent, name);
            self.xattr(path, key, |key| {
                lsetxattr(&link[..], key, value, XattrFlags::empty())
            })?;
        }
        let mode_differs = stat.st_mode & 0o7777 != entry.mode;
        if !symlink && (chown || !entry.xattrs.is_empty() || mode_differs) {
            let mode = Mode::from_raw_mode(entry.mode);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(|e| UnpackError::io("set mode of", path, e))?;
        }
        let wanted = times(entry.mtime);
        let Timespec { tv_sec, tv_nsec } = wanted.last_modification;
        if symlink || (stat.st_mtime, stat.st_mtime_nsec as i64) == (tv_sec, tv_nsec) {
            return Ok(());
        }
        utimensat(parent, name, &wanted, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| UnpackError::io("set times of", path, e))
    }

    /// Turns `.wh.NAME` into overlayfs terms. True if the name was a whiteout.
    pub(crate) fn add_whiteout(&mut self, path: &[u8]) -> Result<bool, UnpackError> {
        let (parent, name) = split(path);
        let Some(hidden) = name.strip_prefix(b".wh.") else {
            return Ok(false);
        };
        if hidden == b".wh..opq" {
            let dir = self.dir(parent)?;
            set_opaque(&dir, parent)?;
            return Ok(true);
        }
        if hidden.starts_with(b".wh.") {
            // Bookkeeping of aufs, which old Docker versions left in layers.
            return Ok(true);
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(UnpackError::Whiteout { path: show(path) });
        }
        let dir = self.dir(parent)?;
        let io = |e| UnpackError::io("make whiteout", path, e);
        match statat(&*dir, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {
                mknodat(&*dir, hidden, FileType::CharacterDevice, Mode::empty(), 0).map_err(io)?
            }
            Err(e) => return Err(io(e)),
            // A whiteout hides what lower layers have, never what its own layer has.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let child = openat(&*dir, hidden, dir_flags(), Mode::empty()).map_err(io)?;
                set_opaque(&child, path)?;
            }
            Ok(_) => {}
        }
        Ok(true)
    }

    /// Sets the times of all directories, now that nothing changes in them.
    pub(crate) fn finish(&mut self) -> Result<(), UnpackError> {
        self.cached = None;
        let root = Rc::clone(&self.root);
        self.dir_times.drain(|path, mtime| {
            let fd = if path.is_empty() {
                Rc::clone(&root)
            } else {
                match openat2(&root, path, dir_flags(), Mode::empty(), resolve()) {
                    Ok(fd) => Rc::new(fd),
                    // A later entry replaced it.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
                    Err(e) => return Err(UnpackError::io("open directory", path, e)),
                }
            };
            futimens(&*fd, &times(mtime)).map_err(|e| UnpackError::io("set times of", path, e))
        })
    }

    /// Runs `make`; where something is in the way, moves it off and runs it again.
    fn replacing<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        what: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                self.displace(parent, name, path)?;
                make().map_err(|e| UnpackError::io(what, path, e))
            }
            made => made.map_err(|e| UnpackError::io(what, path, e)),
        }
    }

    /// Removes what an earlier entry of this layer left at a name. Contents that the split file
    /// refers to are kept in the `odd` directory.
    fn displace(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), UnpackError> {
        let io = |e| UnpackError::io("replace", path, e);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return match self.records.take(stat.st_ino) {
                Some(record) => self.keep_odd(parent, name, record),
                None => unlinkat(parent, name, AtFlags::empty()).map_err(io),
            };
        }
        self.cached = None;
        // Depth first with an own stack, by descriptors: the depth is the archive's choice.
        let first = openat(parent, name, dir_flags(), Mode::empty()).map_err(io)?;
        let mut stack = vec![(names(&first).map_err(io)?, first)];
        while let Some((children, dir)) = stack.last_mut() {
            let Some(child) = children.last().cloned() else {
                stack.pop();
                continue;
            };
            let stat = statat(&*dir, &child[..], AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                match unlinkat(&*dir, &child[..], AtFlags::REMOVEDIR) {
                    Ok(()) => {
                        children.pop();
                    }
                    // Emptied next, and removed when its turn comes again.
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        let next =
                            openat(&*dir, &child[..], dir_flags(), Mode::empty()).map_err(io)?;
                        stack.push((names(&next).map_err(io)?, next));
                    }
                    Err(e) => return Err(io(e)),
                }
                continue;
            }
            children.pop();
            if let Some(record) = self.records.take(stat.st_ino) {
                let dir = dir
                    .try_clone()
                    .map_err(|e| UnpackError::io("replace", path, e))?;
                self.keep_odd(&dir, &child, record)?;
            } else {
                unlinkat(&*dir, &child[..], AtFlags::empty()).map_err(io)?;
            }
        }
        unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(io)
    }

    fn keep_odd(&mut self, parent: &OwnedFd, name: &[u8], record: u64) -> Result<(), UnpackError> {
        if self.moved.len() >= MAX_REPLACED {
            return Err(LimitError::Replaced.into());
        }
        let io = |e| UnpackError::io("replace", name, e);
        let number = self.moved.len() as u64;
        if number == 0 {
            mkdirat(&self.layer, ODD_DIR, Mode::from_raw_mode(0o700)).map_err(io)?;
        }
        renameat(parent, name, &self.layer, format!("{ODD_DIR}/{number}")).map_err(io)?;
        self.moved.push((record, number));
        Ok(())
    }

    /// Owner, then attributes (a change of owner clears file capabilities), then mode (it clears
    /// set-id bits too); what is right already is left alone. A group may be wrong without having
    /// been set: it is inherited from a folder with the set-group bit. Returns the inode's number.
    fn apply_meta(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &[u8],
        entry: &Entry,
    ) -> Result<u64, UnpackError> {
        let stat = fstat(fd).map_err(|e| UnpackError::io("stat", path, e))?;
        let chown = self.privileged && (entry.uid, entry.gid) != (stat.st_uid, stat.st_gid);
        if chown {
            fchown(
                fd,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )
            .map_err(|e| UnpackError::io("set owner of", path, e))?;
        }
        for (key, value) in &entry.xattrs {
            self.xattr(path, key, |key| {
                fsetxattr(fd, key, value, XattrFlags::empty())
            })?;
        }
        // Among the attributes may be a list of access rights, which changes the mode.
        if chown || !entry.xattrs.is_empty() || stat.st_mode & 0o7777 != entry.mode {
            fchmod(fd, Mode::from_raw_mode(entry.mode))
                .map_err(|e| UnpackError::io("set mode of", path, e))?;
        }
        Ok(stat.st_ino)
    }

    /// Sets an attribute if an image may carry it. `trusted.overlay.*` and `user.overlay.*` could
    /// redirect overlayfs to other places, so nothing of `trusted` is taken.
    fn xattr(
        &mut self,
        path: &[u8],
        key: &[u8],
        set: impl FnOnce(&[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), UnpackError> {
        let allowed = key == b"security.capability"
            || key == b"system.posix_acl_access"
            || key == b"system.posix_acl_default"
            || (key.starts_with(b"user.") && !key.starts_with(b"user.overlay."));
        let shown = || String::from_utf8_lossy(key).into_owned();
        if !allowed {
            self.warn(format!(
                "attribute {} of {} left out: images may not set it",
                shown(),
                show(path)
            ));
            return Ok(());
        }
        match set(key) {
            Ok(()) => Ok(()),
            Err(
                e @ (Errno::OPNOTSUPP | Errno::PERM | Errno::INVAL | Errno::RANGE | Errno::TOOBIG),
            ) => {
                self.warn(format!(
                    "attribute {} of {} left out: {e}",
                    shown(),
                    show(path)
                ));
                Ok(())
            }
            Err(e) => Err(UnpackError::io("set an attribute of", path, e)),
        }
    }
}

/// Names in a directory without `.` and `..`.
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

/// A name for messages; bytes that are not UTF-8 are replaced, and what is long is cut.
pub(crate) fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{:?}…", text.get(..at).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn open_dir(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    openat2(
        root,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve(),
    )
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn set_opaque(dir: &OwnedFd, path: &[u8]) -> Result<(), UnpackError> {
    // An O_PATH descriptor takes no attribute, so go through its name in procfs, which leads to
    // exactly this directory.
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(dir));
    rustix::fs::setxattr(name, OPAQUE, b"y", XattrFlags::empty())
        .map_err(|e| UnpackError::io("mark as opaque", path, e))
}

fn self_path(parent: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(parent);
    [format!("/proc/self/fd/{fd}/").as_bytes(), name].concat()
}

/// A time as it is set: what lies before 1970, or beyond nanoseconds in 64 bits, becomes 1970, as
/// Docker and containerd have it.
fn times(mtime: Mtime) -> Timestamps {
    const LAST: i64 = i64::MAX / 1_000_000_000;
    if (0..LAST).contains(&mtime.secs) {
        exact_times(mtime)
    } else {
        exact_times(Mtime::default())
    }
}

/// A symbolic link's time is never bent.
fn exact_times(mtime: Mtime) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.secs,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
