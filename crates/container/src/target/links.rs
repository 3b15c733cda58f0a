//! Targets behind symbolic links that lead nowhere, such as an image's /etc/resolv.conf: what they
//! name is made, inside the root. Nothing is allocated.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use hull_sys::path::resolve;
use hull_sys::{Errno, Result};

use super::make;

/// Symbolic links followed, as the kernel has it.
const MAX_LINKS: usize = 40;
/// Longest path of the kernel, with its end.
const PATH_BYTES: usize = 4096;

/// A path that changes as links in it are replaced by what they say.
#[derive(Clone, Copy)]
struct Walk {
    bytes: [u8; PATH_BYTES],
    length: usize,
}

impl Walk {
    fn empty() -> Self {
        Self {
            bytes: [0; PATH_BYTES],
            length: 0,
        }
    }

    fn push(&mut self, part: &[u8]) -> Result<()> {
        let end = self.length + part.len();
        // The last byte stays zero.
        if end >= PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let free = self.bytes.get_mut(self.length..end);
        free.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(part);
        self.length = end;
        Ok(())
    }

    fn part(&self, start: usize, end: usize) -> &[u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// Calls with the text from `start` to `end`.
    fn with<T>(
        &mut self,
        start: usize,
        end: usize,
        call: impl FnOnce(&CStr) -> Result<T>,
    ) -> Result<T> {
        let byte = self.bytes.get_mut(end).ok_or(Errno::NAMETOOLONG)?;
        let kept = std::mem::replace(byte, 0);
        let text = CStr::from_bytes_until_nul(self.bytes.get(start..).unwrap_or_default());
        let result = text.map_err(|_| Errno::NAMETOOLONG).and_then(call);
        if let Some(byte) = self.bytes.get_mut(end) {
            *byte = kept;
        }
        result
    }

    /// Start and end of the first name from `from` on.
    fn name(&self, from: usize) -> Option<(usize, usize)> {
        let rest = self.part(from, self.length);
        let start = from + rest.iter().position(|byte| *byte != b'/')?;
        let rest = self.part(start, self.length);
        let length = rest.iter().position(|byte| *byte == b'/');
        Some((start, length.map_or(self.length, |length| start + length)))
    }
}

/// What is at `path`, made with its parents where missing. Runs in the child.
pub(super) fn ensure(root: BorrowedFd<'_>, path: &CStr, dir: bool) -> Result<OwnedFd> {
    let mut walk = Walk::empty();
    walk.push(path.to_bytes())?;
    for _ in 0..MAX_LINKS {
        match step(root, &mut walk, dir)? {
            Some(found) => return Ok(found),
            None => continue,
        }
    }
    Err(Errno::LOOP)
}

/// Walks to the end, or to the first link that leads nowhere and into it.
fn step(root: BorrowedFd<'_>, walk: &mut Walk, dir: bool) -> Result<Option<OwnedFd>> {
    let mut parent = resolve(root, c"/")?;
    let mut at = 0;
    while let Some((start, end)) = walk.name(at) {
        let is_last = walk.name(end).is_none();
        let look = |walk: &mut Walk| walk.with(0, end, |prefix| resolve(root, prefix));
        let found = match look(walk) {
            Err(Errno::NOENT) => {
                walk.with(start, end, |name| make(&parent, name, dir || !is_last))?;
                look(walk)
            }
            result => result,
        };
        match found {
            Ok(found) => parent = found,
            Err(Errno::NOENT) => {
                *walk = replaced(walk, &parent, start, end)?;
                return Ok(None);
            }
            Err(errno) => return Err(errno),
        }
        at = end;
    }
    Ok(Some(parent))
}

/// The path with the link in it replaced by what it says.
fn replaced(walk: &mut Walk, parent: &OwnedFd, start: usize, end: usize) -> Result<Walk> {
    let mut text = [0u8; PATH_BYTES];
    let read = |name: &CStr| rustix::fs::readlinkat_raw(parent, name, &mut text);
    // It may have become something else in the meantime.
    let length = walk.with(start, end, read).map_err(|_| Errno::NOENT)?;
    let text = text.get(..length).unwrap_or_default();
    let mut next = Walk::empty();
    if text.first() != Some(&b'/') {
        next.push(walk.part(0, start))?;
    }
    next.push(text)?;
    next.push(walk.part(end, walk.length))?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    struct Root(std::path::PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("hull-links-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("root/etc")).expect("mkdir");
            Self(path)
        }

        fn ensure(&self, path: &CStr, dir: bool) -> Result<OwnedFd> {
            let root = rustix::fs::open(self.0.join("root"), OFlags::PATH, Mode::empty());
            ensure(root.expect("open").as_fd(), path, dir)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn ensure_dangling_relative_link_makes_what_it_names() {
        let root = Root::new("relative");
        symlink("../run/x/stub", root.0.join("root/etc/resolv.conf")).expect("symlink");
        root.ensure(c"/etc/resolv.conf", false).expect("made");
        assert!(root.0.join("root/run/x/stub").is_file());
    }

    #[test]
    fn ensure_links_out_of_the_root_stay_inside() {
        let root = Root::new("outside");
        symlink("/a/b", root.0.join("root/etc/one")).expect("symlink");
        symlink("../../../../c/../etc/one", root.0.join("root/etc/two")).expect("symlink");
        root.ensure(c"/etc/two/sub", true).expect("made");
        assert!(root.0.join("root/a/b/sub").is_dir());
        assert!(!root.0.join("c").exists() && !root.0.join("etc").exists());
    }

    #[test]
    fn ensure_loop_is_refused() {
        let root = Root::new("loop");
        symlink("y", root.0.join("root/etc/x")).expect("symlink");
        symlink("x", root.0.join("root/etc/y")).expect("symlink");
        assert_eq!(root.ensure(c"/etc/x", false).map(drop), Err(Errno::LOOP));
        symlink("endless/more", root.0.join("root/etc/endless")).expect("symlink");
        assert!(root.ensure(c"/etc/endless", true).is_err());
    }
}
