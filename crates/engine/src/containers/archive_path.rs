//! Paths in a container: what the user's text means there, found beneath its root.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_image::copy::{Node, names, node};
use hull_model::{Error, Result};
use hull_sys::{Errno, path as beneath};
use rustix::fs::{FileType, Mode, OFlags, readlinkat};

use super::archive::PathStat;
use super::archive_root::{Root, is_kernel};

/// Most links on the way to the end of one path, as the kernel's own bound.
const MAX_LINKS: usize = 40;
/// Longest path, the kernel's PATH_MAX.
const MAX_PATH: usize = 4095;

/// Something in a container.
#[derive(Debug)]
pub(super) struct Found {
    /// It.
    pub node: Node,
    /// The path asked for, absolute, with its end kept.
    pub path: String,
}

/// Bounds what is resolved.
fn checked(path: &str) -> Result<String> {
    if path.is_empty() {
        return Err(Error::invalid("bad parameter: path cannot be empty"));
    }
    if path.contains('\0') || path.len() > MAX_PATH {
        return Err(Error::invalid(
            "bad parameter: path is too long or has a zero byte",
        ));
    }
    Ok(names::clean_keeping_end(path))
}

fn missing(path: &str, key: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {key}"))
}

fn refused(path: &str, key: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => missing(path, key),
        Errno::NOTDIR => Error::invalid(format!("{path}: not a directory")),
        Errno::LOOP => Error::invalid(format!("{path}: too many levels of symbolic links")),
        Errno::NAMETOOLONG => Error::invalid(format!("{path}: file name too long")),
        errno => Error::internal(format!("cannot open {path} in container {key}"), errno),
    }
}

/// Finds what `path` names. Links on the way are followed beneath the root, one at the end only if
/// a `/` or `/.` follows.
pub(super) fn find(root: &Root, path: &str, key: &str) -> Result<Found> {
    let whole = checked(path)?;
    let fail = |e| refused(path, key, e);
    let (dir, last) = match whole.rsplit_once('/') {
        Some((dir, last)) if last != "." => (dir, last),
        Some((dir, _)) => (dir, ""),
        None => ("", ""),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let from = if dir.is_empty() { "/" } else { dir };
    let parent = beneath::open_in_root(root.as_fd(), from, flags, Mode::empty()).map_err(fail)?;
    if !last.is_empty() && is_kernel(parent.as_fd()) {
        return Err(missing(path, key));
    }
    let name = if last.is_empty() { "." } else { last };
    let node = node(parent.as_fd(), name.as_bytes()).map_err(fail)?;
    Ok(Found { node, path: whole })
}

/// Opens the folder that an archive is unpacked into, links followed. Returns its path, too.
pub(super) fn find_folder(root: &Root, path: &str, key: &str) -> Result<(OwnedFd, String)> {
    let whole = checked(path)?;
    let found = beneath::resolve(root.as_fd(), &whole[..]).map_err(|e| refused(path, key, e))?;
    if !beneath::is_dir(&found).map_err(|e| refused(path, key, e))? {
        return Err(Error::invalid("extraction point is not a directory"));
    }
    if is_kernel(found.as_fd()) {
        return Err(missing(path, key));
    }
    Ok((found, whole))
}

/// Describes it as the header of the API does.
pub(super) fn describe(root: &Root, found: &Found) -> PathStat {
    let stat = &found.node.stat;
    let link_target = if found.node.kind() == FileType::Symlink {
        evaluate(root.as_fd(), &found.path)
    } else {
        String::new()
    };
    PathStat {
        name: names::base(&found.path).to_owned(),
        size: stat.st_size,
        mode: go_mode(stat.st_mode),
        mtime: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        link_target,
    }
}

/// Go's `os.FileMode`: permission bits below, what it is above.
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let mut bits = mode & 0o777 | kind;
    for (from, to) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
        if mode & from != 0 {
            bits |= to;
        }
    }
    bits
}

/// Where a path leads once all its links are followed beneath the root: a text for the client, by
/// which nothing is opened here. What does not exist is taken by its letters.
fn evaluate(root: BorrowedFd<'_>, path: &str) -> String {
    let mut pending: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut resolved: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = pending.pop_front() {
        match &part[..] {
            "" | "." => continue,
            ".." => {
                resolved.pop();
                continue;
            }
            _ => {}
        }
        let here = format!("/{}", resolved.join("/"));
        let target = link_in(root, &here, &part).filter(|_| links < MAX_LINKS);
        let Some(target) = target else {
            resolved.push(part);
            continue;
        };
        links += 1;
        if target.starts_with('/') {
            resolved.clear();
        }
        for piece in target.split('/').rev() {
            pending.push_front(piece.to_owned());
        }
    }
    format!("/{}", resolved.join("/"))
}

fn link_in(root: BorrowedFd<'_>, dir: &str, name: &str) -> Option<String> {
    let dir = beneath::resolve(root, dir).ok()?;
    let link = readlinkat(&dir, name, Vec::new()).ok()?;
    link.into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_mode_tells_what_it_is() {
        assert_eq!(go_mode(0o40755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o104711), 1 << 23 | 0o711);
        assert_eq!(go_mode(0o41777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o20666), 1 << 26 | 1 << 21 | 0o666);
        assert_eq!(go_mode(0o120777), 1 << 27 | 0o777);
    }

    #[test]
    fn evaluate_stays_beneath_the_root() {
        let base = std::env::temp_dir().join(format!("hull-evaluate-{}", std::process::id()));
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        for (target, name) in [
            ("../../../../etc/x", "a/up"),
            ("/a/b", "abs"),
            ("loop", "loop"),
            ("nowhere/y", "dangling"),
        ] {
            let _ = std::fs::remove_file(base.join(name));
            std::os::unix::fs::symlink(target, base.join(name)).unwrap();
        }
        let root = rustix::fs::open(&base, OFlags::PATH, Mode::empty()).unwrap();
        let at = |path| evaluate(root.as_fd(), path);
        assert_eq!(at("/a/up"), "/etc/x");
        assert_eq!(at("/abs/f"), "/a/b/f");
        assert_eq!(at("/dangling"), "/nowhere/y");
        assert_eq!(at("/loop"), "/loop");
        std::fs::remove_dir_all(base).unwrap();
    }
}
