//! Paths that come from images or users, resolved beneath a root descriptor.
//!
//! openat2(2) with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: symlinks and `..` are followed as if
//! the root were `/`, so nothing outside can be named. Results are descriptors; no path is
//! resolved twice.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Errno, Result};

/// Most components a path may have: more is an attack or a mistake.
pub const MAX_COMPONENTS: usize = 256;

/// How often an openat2 that raced with a rename (`EAGAIN`) is tried again.
const MAX_RETRIES: usize = 64;

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Opens `path` beneath `root` with the given flags; close-on-exec is added.
///
/// Does not allocate if `path` is shorter than rustix's stack buffer (256 bytes) or a `CStr`.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP`; `EXDEV` never, since the walk is held inside.
pub fn open_in_root<P: rustix::path::Arg + Copy>(
    root: BorrowedFd<'_>,
    path: P,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_RETRIES => tries += 1,
            result => return result,
        }
    }
}

/// A handle on what is at `path` beneath `root`, opened for no access (`O_PATH`).
///
/// # Errors
/// As [`open_in_root`].
pub fn resolve<P: rustix::path::Arg + Copy>(root: BorrowedFd<'_>, path: P) -> Result<OwnedFd> {
    open_in_root(root, path, OFlags::PATH, Mode::empty())
}

/// The directory at `path` beneath `root`, made with its parents if missing.
///
/// Existing symlinks are followed inside the root. A new component is made in a directory that is
/// held open, so a swap of an ancestor cannot lead outside.
///
/// # Errors
/// `ENOTDIR` if a component is a file, `ENAMETOOLONG` for too many components.
pub fn mkdir_all(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<OwnedFd> {
    if let Ok(existing) = resolve(root, path) {
        return directory(existing);
    }
    let mut walked = std::path::PathBuf::from("/");
    let mut current = resolve(root, Path::new("/"))?;
    for (depth, component) in path.components().enumerate() {
        if depth >= MAX_COMPONENTS {
            return Err(Errno::NAMETOOLONG);
        }
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            Component::ParentDir => {
                walked.push("..");
            }
            Component::Normal(name) => {
                walked.push(name);
                match resolve(root, walked.as_path()) {
                    Ok(next) => {
                        current = directory(next)?;
                        continue;
                    }
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
                match rustix::fs::mkdirat(&current, name, mode) {
                    Ok(()) => {}
                    // A dangling symlink, or somebody else was faster: the next look decides.
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        current = directory(resolve(root, walked.as_path())?)?;
    }
    Ok(current)
}

/// The regular file at `path` beneath `root`, made empty (with its parents) if missing.
///
/// # Errors
/// As [`mkdir_all`]; `EISDIR` if it is a directory.
pub fn create_file(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<OwnedFd> {
    match resolve(root, path) {
        Ok(existing) => {
            if is_dir(&existing)? {
                return Err(Errno::ISDIR);
            }
            return Ok(existing);
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let name = path.file_name().ok_or(Errno::ISDIR)?;
    let parent = mkdir_all(
        root,
        path.parent().unwrap_or(Path::new("/")),
        Mode::from_raw_mode(0o755),
    )?;
    // O_EXCL: a symlink put there in the meantime is not followed out of `parent`.
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&parent, name, flags, mode) {
        Ok(_) | Err(Errno::EXIST) => resolve(root, path),
        Err(error) => Err(error),
    }
}

/// Whether the file behind the descriptor is a directory.
///
/// # Errors
/// The errno of fstat(2).
pub fn is_dir(fd: impl AsFd) -> Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

fn directory(fd: OwnedFd) -> Result<OwnedFd> {
    if is_dir(&fd)? {
        Ok(fd)
    } else {
        Err(Errno::NOTDIR)
    }
}

/// Reads a regular file beneath `root`, at most `limit` bytes of it. Allocates.
///
/// # Errors
/// As [`open_in_root`]; `EFBIG` beyond the limit, `EINVAL` if it is no regular file.
pub fn read_file(root: BorrowedFd<'_>, path: &Path, limit: usize) -> Result<Vec<u8>> {
    // O_NONBLOCK: an image may have put a FIFO there.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(root, path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut data = Vec::new();
    let mut chunk = [0u8; 8192];
    loop {
        let length = match rustix::io::read(&file, &mut chunk) {
            Ok(0) => return Ok(data),
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        if data.len() + length > limit {
            return Err(Errno::FBIG);
        }
        data.extend_from_slice(chunk.get(..length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Root(std::path::PathBuf, OwnedFd);

    impl Root {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("hull-path-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root")).expect("mkdir");
            let fd = rustix::fs::open(
                path.join("root"),
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .expect("open");
            Self(path, fd)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const MODE: Mode = Mode::RWXU;

    #[test]
    fn mkdir_all_absolute_symlink_stays_inside() {
        let root = Root::new("abs");
        let outside = root.0.join("outside");
        std::fs::create_dir(&outside).expect("mkdir");
        std::fs::create_dir_all(
            root.0
                .join("root")
                .join(outside.strip_prefix("/").expect("abs")),
        )
        .expect("mkdir");
        symlink(&outside, root.0.join("root/link")).expect("symlink");
        mkdir_all(root.1.as_fd(), Path::new("/link/made"), MODE).expect("mkdir_all");
        assert!(!outside.join("made").exists());
    }

    #[test]
    fn mkdir_all_dot_dot_stays_inside() {
        let root = Root::new("dotdot");
        mkdir_all(root.1.as_fd(), Path::new("../../a/../b/c"), MODE).expect("mkdir_all");
        assert!(root.0.join("root/b/c").is_dir());
        assert!(!root.0.join("b").exists());
    }

    #[test]
    fn mkdir_all_dangling_symlink_is_an_error() {
        let root = Root::new("dangle");
        symlink("/nowhere", root.0.join("root/link")).expect("symlink");
        let error = mkdir_all(root.1.as_fd(), Path::new("/link/x"), MODE).expect_err("dangling");
        assert_eq!(error, Errno::NOENT);
    }

    #[test]
    fn create_file_through_escaping_symlink_is_contained() {
        let root = Root::new("file");
        symlink("../../outside", root.0.join("root/etc")).expect("symlink");
        assert!(create_file(root.1.as_fd(), Path::new("/etc/passwd"), MODE).is_err());
        assert!(!root.0.join("outside").exists());
        create_file(root.1.as_fd(), Path::new("/var/x/file"), MODE).expect("create");
        assert!(root.0.join("root/var/x/file").is_file());
    }

    #[test]
    fn read_file_fifo_is_refused_and_limit_holds() {
        let root = Root::new("read");
        rustix::fs::mknodat(&root.1, "fifo", rustix::fs::FileType::Fifo, MODE, 0).expect("mknod");
        let read = |name: &str, limit| read_file(root.1.as_fd(), Path::new(name), limit);
        assert_eq!(read("fifo", 10), Err(Errno::INVAL));
        std::fs::write(root.0.join("root/big"), [1; 11]).expect("write");
        assert_eq!(read("big", 10), Err(Errno::FBIG));
        assert_eq!(read("big", 11).map(|data| data.len()), Ok(11));
    }
}
