//! What is recorded of a container, and what is found out about it anew each time.
//!
//! ```text
//! ROOT/ID/            made by create or run: whoever makes it owns the name
//! ROOT/ID/start.fifo  while the container waits for start
//! ROOT/ID/state.json  appears by rename; pid 0 until the first process is there
//!
//! creating ─▶ created ──start──▶ running ◀──pause, resume──▶ paused
//!               └──────kill───▶ stopped ◀────its end────┘
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use hull_container::Host;
use hull_model::Resources;
use hull_proto::oci::{CgroupExtra, SystemdUnit};
use hull_proto::plan::ProcessPlan;
use hull_sys::cgroup::{self, Cgroup, Hierarchies};
use hull_sys::clone3::Namespaces;
use hull_sys::pidfd;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::hooks::Hooks;
use crate::rdt;

const STATE_FILE: &str = "state.json";
const FIFO: &str = "start.fifo";
const ANSWER: &str = "hooks.fifo";
/// Where compiled system call filters are kept; no container can have this name.
const SECCOMP_CACHE: &str = ".seccomp";
/// Longest name of a container: that of a file.
const MAX_ID_BYTES: usize = 255;

/// The record on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Version of the specification the bundle follows.
    pub(crate) oci_version: String,
    /// Name.
    pub(crate) id: String,
    /// First process; 0 until there is one.
    pub(crate) pid: u32,
    /// When it was started, in clock ticks since boot: tells it from a later one with its id.
    pub(crate) start_time: u64,
    /// Folder of the bundle.
    pub(crate) bundle: PathBuf,
    /// Root file system.
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    /// Who created it.
    pub(crate) owner: String,
    /// From the bundle.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Control group, below the root of each hierarchy; empty is none.
    pub(crate) cgroup: String,
    /// The unit of systemd that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) systemd: Option<SystemdUnit>,
    /// It has a user namespace, or a namespace of clocks, that is not its maker's.
    #[serde(default)]
    pub(crate) own_users: bool,
    #[serde(default)]
    pub(crate) own_clocks: bool,
    /// Its root is one by chroot.
    #[serde(default)]
    pub(crate) chroot: bool,
    /// Id of the mount that is its root, where that lies in the mount namespace of its maker.
    #[serde(default)]
    pub(crate) root_mount: Option<u64>,
    /// Its share of the processor's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rdt: Option<rdt::Group>,
    /// Programs run at points of its life.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub(crate) hooks: Hooks,
    /// The first process as planned: what `exec` starts from.
    pub(crate) process: ProcessPlan,
}

/// The state of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The folder of all containers.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    /// Control groups are made by systemd.
    pub(crate) systemd: bool,
    /// Whether containers do without a control group if need be; none leaves it to the caller's
    /// rights.
    pub(crate) rootless: Option<bool>,
}

/// The folder of one container.
#[derive(Debug)]
pub(crate) struct Entry {
    dir: PathBuf,
}

impl Store {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            systemd: false,
            rootless: None,
        }
    }

    pub(crate) fn seccomp_cache(&self) -> PathBuf {
        self.root.join(SECCOMP_CACHE)
    }

    /// Takes a name that is free.
    pub(crate) fn create(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
            .recursive(true)
            .create(&self.root)
            .with_context(|| format!("cannot make {}", self.root.display()))?;
        let dir = self.root.join(id);
        match builder.recursive(false).create(&dir) {
            Ok(()) => Ok(Entry { dir }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("container with given ID already exists: {id:?}")
            }
            Err(error) => Err(error).with_context(|| format!("cannot make {}", dir.display())),
        }
    }

    /// Finds a container.
    pub(crate) fn open(&self, id: &str) -> Result<(Entry, Record)> {
        check_id(id)?;
        let entry = Entry {
            dir: self.root.join(id),
        };
        match entry.read()? {
            Some(record) => Ok((entry, record)),
            None => bail!("container does not exist: {id:?}"),
        }
    }

    /// The folder of a name, whether or not anything is recorded in it.
    pub(crate) fn entry(&self, id: &str) -> Result<Entry> {
        check_id(id)?;
        Ok(Entry {
            dir: self.root.join(id),
        })
    }

    /// All containers, sorted by name.
    pub(crate) fn list(&self) -> Result<Vec<(Entry, Record)>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {}", self.root.display()))?,
        };
        let mut list = Vec::new();
        for entry in entries {
            let entry = Entry {
                dir: entry
                    .with_context(|| format!("cannot read {}", self.root.display()))?
                    .path(),
            };
            if let Some(record) = entry.read()? {
                list.push((entry, record));
            }
        }
        list.sort_by(|(_, left), (_, right)| left.id.cmp(&right.id));
        Ok(list)
    }
}

fn check_id(id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.starts_with('.') || !id.chars().all(plain) {
        bail!("invalid container ID {id:?}: use letters, digits and any of _ + - . (not first)");
    }
    Ok(())
}

impl Entry {
    fn read(&self) -> Result<Option<Record>> {
        let path = self.dir.join(STATE_FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
                format!(
                    "{} is damaged: remove {}",
                    path.display(),
                    self.dir.display()
                )
            }),
            // Not a folder: something else lies in the root folder.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Folder of the container.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).context("cannot write the state")?;
        write_by_rename(&self.dir.join(STATE_FILE), &text)
    }

    /// Makes the pipe on which the container waits. Open for reading and writing, it neither ends
    /// nor keeps the opener waiting.
    pub(crate) fn make_fifo(&self) -> Result<OwnedFd> {
        let path = self.dir.join(FIFO);
        let fail = || format!("cannot make {}", path.display());
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .with_context(fail)?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).with_context(fail)
    }

    /// Makes the pipe by which hooks in the first process tell how they ended.
    pub(crate) fn make_answer(&self) -> Result<OwnedFd> {
        let path = self.dir.join(ANSWER);
        let fail = || format!("cannot make {}", path.display());
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .with_context(fail)?;
        rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).with_context(fail)
    }

    /// That pipe, if the first process runs the hooks of the start itself.
    pub(crate) fn answer(&self) -> Option<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.dir.join(ANSWER), flags, Mode::empty()).ok()
    }

    /// Lets the container go on. The rename decides who of several callers does.
    pub(crate) fn release(&self) -> Result<()> {
        let taken = self.dir.join("start.taken");
        fs::rename(self.dir.join(FIFO), &taken)
            .context("cannot start a container that is not waiting for it")?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let written = rustix::fs::open(&taken, flags, Mode::empty())
            .and_then(|fifo| rustix::io::write(&fifo, b"1"));
        let _ = fs::remove_file(&taken);
        written.context("the container ended before it was started")?;
        Ok(())
    }

    /// One caller after the other.
    pub(crate) fn lock(&self) -> Result<fs::File> {
        let fail = || format!("cannot lock {}", self.dir.display());
        let dir = fs::File::open(&self.dir).with_context(fail)?;
        rustix::fs::flock(&dir, rustix::fs::FlockOperation::LockExclusive).with_context(fail)?;
        Ok(dir)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.dir.join(FIFO).exists()
    }

    /// Forgets the container. What is gone already counts as removed.
    pub(crate) fn remove(&self) -> Result<bool> {
        match fs::remove_dir_all(&self.dir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(error).with_context(|| format!("cannot remove {}", self.dir.display()))
            }
        }
    }
}

impl Record {
    /// Namespaces that an exec joins besides those of every container.
    pub(crate) fn own_namespaces(&self) -> Namespaces {
        let pick = |own: bool, kind| if own { kind } else { Namespaces::NONE };
        pick(self.own_users, Namespaces::USER).with(pick(self.own_clocks, Namespaces::TIME))
    }

    /// A handle on the first process, if it still runs.
    pub(crate) fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        // First the handle, then the check: the id cannot come to mean another process between.
        let handle = pidfd::open(pid).ok()?;
        (start_time(self.pid)? == self.start_time).then_some(handle)
    }

    /// Takes away what a container without a mount namespace of its own left mounted.
    pub(crate) fn detach_root(&self) {
        if let Some(id) = self.root_mount {
            // Gone already, or something else is mounted there by now.
            let _ = hull_container::detach_root(&self.rootfs, id);
        }
    }

    /// Takes away its share of the processor's cache.
    pub(crate) fn leave_class(&self) {
        if let Some(class) = &self.rdt {
            class.remove();
        }
    }

    pub(crate) fn open_cgroup(&self, host: &Host) -> Result<Option<Box<dyn Cgroup>>> {
        if self.cgroup.is_empty() {
            // Its maker could make none.
            return Ok(no_group());
        }
        Ok(self.hierarchies(host).open(&self.cgroup, host.features)?)
    }

    /// Its processes: those of its control group, or, where it has none, of its first process's pid
    /// namespace.
    pub(crate) fn pids(&self, host: &Host) -> Result<Vec<i32>> {
        if !self.cgroup.is_empty() {
            return match self.open_cgroup(host)? {
                Some(group) => Ok(group.pids()?),
                None => Ok(Vec::new()),
            };
        }
        // While this is open, the id cannot come to mean another process.
        match self.process() {
            Some(_process) => Ok(crate::rootless::pids(self.pid)),
            None => Ok(Vec::new()),
        }
    }

    /// The hierarchies as the group's path is meant.
    pub(crate) fn hierarchies(&self, host: &Host) -> Hierarchies {
        let hierarchies = host.hierarchies.clone();
        match self.systemd {
            Some(_) => hierarchies.from_mount_points(),
            None => hierarchies,
        }
    }

    pub(crate) fn status(&self, entry: &Entry, host: &Host) -> Result<Status> {
        if self.pid == 0 {
            return Ok(Status::Creating);
        }
        if self.process().is_none() {
            return Ok(Status::Stopped);
        }
        if entry.is_waiting() {
            return Ok(Status::Created);
        }
        let frozen = self
            .open_cgroup(host)?
            .is_some_and(|group| is_frozen(group.as_ref()));
        Ok(if frozen {
            Status::Paused
        } else {
            Status::Running
        })
    }
}

/// A control group that is none.
pub(crate) fn no_group() -> Option<Box<dyn Cgroup>> {
    cgroup::absent(&Resources::default(), &CgroupExtra::default())
}

fn is_frozen(group: &dyn Cgroup) -> bool {
    group.views().iter().any(|view| {
        let (file, frozen) = match view.name.as_str() {
            "" => ("cgroup.freeze", "1"),
            "freezer" => ("freezer.state", "FROZEN"),
            _ => return false,
        };
        fs::read_to_string(view.path.join(file)).is_ok_and(|text| text.trim() == frozen)
    })
}

/// When a process was started, in clock ticks since boot; none if it is gone or a zombie.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows it does not.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Field 22 of proc(5); the state is field 3.
    fields.nth(18)?.parse().ok()
}

/// Name of the user who calls, or the number where /etc/passwd has none.
pub(crate) fn owner() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
        .unwrap_or(uid)
}

/// A file that is either absent or whole.
pub(crate) fn write_by_rename(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| anyhow!("{} names no file", path.display()))?;
    let temporary = path.with_file_name(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_id_only_plain_names_pass() {
        for good in ["a", "web-1", "A_b.c+d"] {
            check_id(good).expect(good);
        }
        for bad in ["", ".", "..", ".seccomp", "a/b", "a b", "é"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn start_time_own_process_is_known_and_missing_is_not() {
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn release_works_once() {
        let dir = tempfile::tempdir().expect("dir");
        let entry = Store::new(dir.path()).create("c").expect("create");
        let fifo = entry.make_fifo().expect("fifo");
        assert!(entry.is_waiting());
        entry.release().expect("release");
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&fifo, &mut byte), Ok(1));
        assert!(entry.release().is_err());
        assert!(!entry.is_waiting());
    }

    #[test]
    fn create_taken_name_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let store = Store::new(dir.path());
        let entry = store.create("c").expect("create");
        assert!(
            store
                .create("c")
                .expect_err("taken")
                .to_string()
                .contains("already exists")
        );
        assert!(
            store
                .open("c")
                .expect_err("no record")
                .to_string()
                .contains("does not exist")
        );
        assert!(entry.remove().expect("remove"));
        assert!(!entry.remove().expect("remove"));
    }
}
