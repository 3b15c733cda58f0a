//! One cgroup directory: made, read, written and removed through a descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::CgroupResult;
use crate::Errno;

/// An operation on a group failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// The host's mounts could not be read.
    #[error("cannot read {path} to find the control groups")]
    Detect {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing is mounted.
    #[error("no control group file system is mounted: mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    /// The path of the group is not usable.
    #[error("invalid control group path {path:?}: it must be absolute, without '..'")]
    Path {
        /// The path.
        path: String,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value was refused.
    #[error("cannot set {} to {value:?}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A controller is missing.
    #[error(
        "there is no {controller} controller for the control group: the kernel lacks it, it is not \
         delegated to the caller, or (cgroup v2) a group above holds processes"
    )]
    NoController {
        /// Which.
        controller: &'static str,
    },
    /// A limit makes no sense here.
    #[error("cannot set {limit} to {value}: {reason}")]
    Limit {
        /// Which, as the OCI specification names it below `linux.resources`.
        limit: &'static str,
        /// To what.
        value: String,
        /// Why not.
        reason: String,
    },
    /// The caller may make no group.
    #[error(
        "the caller may not make control groups, which limits and freezing need: delegate a part \
         of the cgroup v2 tree, or be root"
    )]
    NotAllowed,
    /// A group below another cannot be used.
    #[error("cannot use the control group {path:?} below the container's: {reason}")]
    Below {
        /// As it was given.
        path: String,
        /// Why not.
        reason: String,
    },
    /// Waiting took too long.
    #[error("processes of control group {} did not {action} in time", path.display())]
    Timeout {
        /// What they should have done.
        action: &'static str,
        /// The group.
        path: PathBuf,
    },
}

impl CgroupError {
    /// The errno behind it, if a system call failed.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Detect { source, .. } | Self::Io { source, .. } | Self::Write { source, .. } => {
                Errno::from_io_error(source)
            }
            _ => None,
        }
    }
}

/// Largest file that is read: `cgroup.procs` of a big group.
const MAX_FILE_BYTES: usize = 4 << 20;
/// Deepest nesting below a group that is walked.
const MAX_DEPTH: usize = 16;
/// How often a group is made whose parents vanish.
const CREATE_TRIES: u32 = 64;
/// How long removal waits for dying processes to leave, and how often it looks.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);
const REMOVE_PAUSE: Duration = Duration::from_millis(10);
/// Looks after which a process that is still there is taken for one that came late.
const REMOVE_PATIENT_TRIES: u32 = 5;

/// Refuses paths that could leave the hierarchy.
pub(crate) fn check_path(path: &str) -> CgroupResult<()> {
    let inside = path.starts_with('/')
        && !path.trim_matches('/').is_empty()
        && !path.contains('\0')
        && path.split('/').all(|part| part != ".." && part != ".");
    if inside {
        Ok(())
    } else {
        Err(CgroupError::Path {
            path: path.to_owned(),
        })
    }
}

/// A directory of a hierarchy.
#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
}

impl Dir {
    /// Opens a directory; `None` if it does not exist.
    pub(crate) fn open(path: PathBuf) -> CgroupResult<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(io("open", path, error)),
        }
    }

    /// Makes `base/path` with its parents. If some are missing, `parent_made` is called with each
    /// of them, outermost first, and `made` gets those that were new.
    ///
    /// A parent may vanish meanwhile, with the last group in it: then it is made anew.
    pub(crate) fn create(
        base: &Path,
        path: &str,
        made: &mut Vec<PathBuf>,
        mut parent_made: impl FnMut(&Dir) -> CgroupResult<()>,
    ) -> CgroupResult<Self> {
        let full = base.join(path.trim_start_matches('/'));
        for _ in 0..CREATE_TRIES {
            match rustix::fs::mkdir(&full, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {
                    if let Some(dir) = Self::open(full.clone())? {
                        return Ok(dir);
                    }
                }
                Err(Errno::NOENT) => Self::create_parents(base, path, made, &mut parent_made)?,
                Err(error) => return Err(io("make control group", full, error)),
            }
        }
        Err(io("make control group", full, Errno::NOENT))
    }

    /// The directories above `base/path`. Returns early if one vanishes.
    fn create_parents(
        base: &Path,
        path: &str,
        made: &mut Vec<PathBuf>,
        parent_made: &mut impl FnMut(&Dir) -> CgroupResult<()>,
    ) -> CgroupResult<()> {
        let mut parent = base.to_owned();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                break;
            }
            parent.push(part);
            match rustix::fs::mkdir(&parent, Mode::from_raw_mode(0o755)) {
                Ok(()) if !made.contains(&parent) => made.push(parent.clone()),
                Ok(()) | Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(io("make control group", parent, error)),
            }
            if let Some(dir) = Self::open(parent.clone())? {
                match parent_made(&dir) {
                    Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NOENT)) => {
                        return Ok(());
                    }
                    done => done?,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn file(&self, name: &str, flags: OFlags) -> CgroupResult<OwnedFd> {
        rustix::fs::openat(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| io("open", self.path.join(name), error))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::accessat(&self.fd, name, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    pub(crate) fn write(&self, name: &str, value: &str) -> CgroupResult<()> {
        let file = self.file(name, OFlags::WRONLY)?;
        match rustix::io::write(&file, value.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) => Err(CgroupError::Write {
                path: self.path.join(name),
                value: value.to_owned(),
                source: error.into(),
            }),
        }
    }

    /// Writes values that bound one another, in whichever order the kernel takes them: what is
    /// invalid beside the others' old values is tried again after the others.
    pub(crate) fn write_in_any_order(&self, values: &[(&str, String)]) -> CgroupResult<()> {
        let mut left: Vec<&(&str, String)> = values.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            let mut refused = None;
            let mut again = Vec::new();
            for pair in left {
                match self.write(pair.0, &pair.1) {
                    Ok(()) => {}
                    Err(error) if error.errno() == Some(Errno::INVAL) => {
                        refused.get_or_insert(error);
                        again.push(pair);
                    }
                    Err(error) => return Err(error),
                }
            }
            match refused {
                Some(error) if again.len() == before => return Err(error),
                _ => left = again,
            }
        }
        Ok(())
    }

    pub(crate) fn read(&self, name: &str) -> CgroupResult<String> {
        let file = self.file(name, OFlags::RDONLY)?;
        let mut data = Vec::new();
        let mut chunk = [0u8; 4096];
        while data.len() < MAX_FILE_BYTES {
            match rustix::io::read(&file, &mut chunk) {
                Ok(0) => break,
                Ok(length) => data.extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io("read", self.path.join(name), error)),
            }
        }
        Ok(String::from_utf8_lossy(&data).into_owned())
    }

    /// A file with one number; `max` and missing files are `None`.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.read(name).ok()?.trim().parse().ok()
    }

    /// Directories directly below, by name.
    fn children(&self) -> CgroupResult<Vec<Dir>> {
        let list = |error| io("list", self.path.clone(), error);
        let mut entries = rustix::fs::Dir::read_from(self.fd.as_fd()).map_err(list)?;
        let mut found = Vec::new();
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(list)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_dir = entry.file_type() == rustix::fs::FileType::Directory;
            if is_dir
                && name != "."
                && name != ".."
                && let Some(child) = Self::open(self.path.join(name))?
            {
                found.push(child);
            }
        }
        Ok(found)
    }

    /// Ids in the group and those below.
    pub(crate) fn pids(&self, depth: usize) -> CgroupResult<Vec<i32>> {
        let mut pids: Vec<i32> = match self.read("cgroup.procs") {
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            // Removed in the meantime: nobody is in it.
            Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NOENT)) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        if depth < MAX_DEPTH {
            for child in self.children()? {
                pids.extend(child.pids(depth + 1)?);
            }
        }
        Ok(pids)
    }

    /// Removes the directory and those below it, until `deadline` at the latest.
    ///
    /// A process that comes in late, on its way from a caller that was killed, is killed as well.
    pub(crate) fn remove(&self, deadline: Instant) -> CgroupResult<()> {
        let mut tries = 0;
        loop {
            match rustix::fs::rmdir(&self.path) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Either groups are below, or the last process is not quite gone.
                Err(Errno::BUSY) if tries == 0 || Instant::now() < deadline => {
                    let children = self.children()?;
                    for child in &children {
                        child.remove(deadline)?;
                    }
                    tries += 1;
                    if children.is_empty() {
                        if tries >= REMOVE_PATIENT_TRIES {
                            self.kill_late();
                        }
                        std::thread::sleep(REMOVE_PAUSE);
                    }
                }
                Err(error) => return Err(io("remove", self.path.clone(), error)),
            }
        }
    }

    /// Removes parents that were made for a group that failed; others may use them by now.
    pub(crate) fn unmake(made: &[PathBuf]) {
        for parent in made.iter().rev() {
            let _ = rustix::fs::rmdir(parent);
        }
    }

    fn kill_late(&self) {
        for pid in self.pids(MAX_DEPTH).unwrap_or_default() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// When a removal that begins now has to be done.
    pub(crate) fn remove_deadline() -> Instant {
        Instant::now() + REMOVE_PATIENCE
    }
}

pub(crate) fn io(action: &'static str, path: PathBuf, error: Errno) -> CgroupError {
    CgroupError::Io {
        action,
        path,
        source: error.into(),
    }
}

/// Value of `key` in a file of `key value` lines.
pub(crate) fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key {
            value.trim().parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_path_escapes_are_refused() {
        assert!(check_path("/hull/abc").is_ok());
        for bad in ["", "/", "hull", "/a/../b", "/a/./b", "/..", "/a\0"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn value_key_must_match_whole() {
        let text = "oom 1\noom_kill 2\n";
        assert_eq!(value(text, "oom"), Some(1));
        assert_eq!(value(text, "oom_kill"), Some(2));
        assert_eq!(value(text, "kill"), None);
    }
}
