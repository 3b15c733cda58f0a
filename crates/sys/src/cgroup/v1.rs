//! A group as directories in the v1 hierarchies.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_model::limits::CgroupExtra;
use hull_model::{Resources, Stats};
use rustix::fs::OFlags;

use super::below::{self, Below};
use super::detect::{Hierarchies, V1};
use super::dir::{Dir, io, value};
use super::extra::Asked;
use super::{
    Cgroup, CgroupError, CgroupResult, DeviceRule, Entry, View, v1_devices, v1_limits, v2,
};
use crate::{Errno, check};

/// Controllers whose directories every group has. That of `cpuset` is made when asked for: each
/// directory costs on the way up and down.
const ALWAYS: [&str; 7] = [
    "memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio",
];

/// Controllers that a hybrid host may have in the v2 tree.
const SHARED: [&str; 2] = ["hugetlb", "rdma"];

/// How often processes that are forked meanwhile are brought into a directory made late.
const EXTEND_LOOKS: u32 = 8;

/// How long freezing and killing may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Parents above a cpuset that others may be making right now.
const MAX_NEW_PARENTS: usize = 16;

/// A limit at or above this is none: the kernel writes 2⁶³ rounded down to a page.
const NO_LIMIT: u64 = 1 << 62;

#[derive(Debug)]
struct Member {
    controllers: Vec<String>,
    name: String,
    dir: Dir,
    /// A directory of the v2 tree, on a host that has some of the controllers there.
    is_v2: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    members: Vec<Member>,
    tasks: Vec<OwnedFd>,
    /// Parents that were not there before.
    made: Vec<PathBuf>,
}

impl Group {
    pub(crate) fn create(
        hierarchies: &Hierarchies,
        path: &str,
        asked: &Asked,
    ) -> CgroupResult<Self> {
        let (mut members, mut made) = (Vec::new(), Vec::new());
        let done = Self::create_members(hierarchies, path, asked, &mut members, &mut made);
        if let Err(error) = done {
            // Half a group is no group.
            for member in &members {
                let _ = member.dir.remove(Dir::remove_deadline());
            }
            Dir::unmake(&made);
            return Err(error);
        }
        Self::from_members(members, made)
    }

    fn create_members(
        hierarchies: &Hierarchies,
        path: &str,
        asked: &Asked,
        members: &mut Vec<Member>,
        made: &mut Vec<PathBuf>,
    ) -> CgroupResult<()> {
        for v1 in &hierarchies.v1 {
            let needed = v1
                .controllers
                .iter()
                .any(|name| ALWAYS.contains(&name.as_str()) || asked.has(name));
            let there = || asked.existing && v1.mount.join(path.trim_start_matches('/')).is_dir();
            if needed || there() {
                members.push(Self::create_member(v1, path, made)?);
            }
        }
        let Some(mount) = hierarchies.v2.as_ref() else {
            return Ok(());
        };
        // Controllers that no v1 hierarchy has may be in the v2 tree.
        let has = |name: &str| {
            let mut all = members.iter().flat_map(|member| &member.controllers);
            all.any(|controller| controller == name)
        };
        let missing: Vec<&str> = SHARED
            .into_iter()
            .filter(|c| asked.has(c) && !has(c))
            .collect();
        if !missing.is_empty()
            || (asked.existing && mount.join(path.trim_start_matches('/')).is_dir())
        {
            let dir = Dir::create(mount, path, made, |_| Ok(()))?;
            v2::enable_controllers(mount, path, missing.iter().copied())?;
            members.push(Member {
                controllers: missing.into_iter().map(str::to_owned).collect(),
                name: "unified".to_owned(),
                dir,
                is_v2: true,
            });
        }
        Ok(())
    }

    fn create_member(v1: &V1, path: &str, made: &mut Vec<PathBuf>) -> CgroupResult<Member> {
        let is_cpuset = v1
            .controllers
            .iter()
            .any(|controller| controller == "cpuset");
        let is_memory = v1
            .controllers
            .iter()
            .any(|controller| controller == "memory");
        let dir = Dir::create(&v1.mount, path, made, |parent| {
            if is_cpuset {
                inherit_cpuset(parent)?;
            }
            if is_memory {
                // The only way since 5.11; before, without it a parent's limit counts nothing.
                let _ = parent.write("memory.use_hierarchy", "1");
            }
            Ok(())
        })?;
        if is_cpuset {
            inherit_cpuset(&dir)?;
        }
        Ok(member(v1, dir))
    }

    pub(crate) fn open(hierarchies: &Hierarchies, path: &str) -> CgroupResult<Option<Self>> {
        let mut members = Vec::new();
        for v1 in &hierarchies.v1 {
            if let Some(dir) = Dir::open(v1.mount.join(path.trim_start_matches('/')))? {
                members.push(member(v1, dir));
            }
        }
        if let Some(mount) = &hierarchies.v2
            && !members.is_empty()
            && let Some(dir) = Dir::open(mount.join(path.trim_start_matches('/')))?
        {
            members.push(Member {
                controllers: SHARED.map(str::to_owned).to_vec(),
                name: "unified".to_owned(),
                dir,
                is_v2: true,
            });
        }
        if members.is_empty() {
            Ok(None)
        } else {
            Self::from_members(members, Vec::new()).map(Some)
        }
    }

    /// Groups below that of `path` which are there already; hierarchies that `below` does not name
    /// keep to the group itself.
    pub(crate) fn open_below(
        hierarchies: &Hierarchies,
        path: &str,
        below: &[Below],
    ) -> CgroupResult<Self> {
        let path = path.trim_start_matches('/');
        let mut members = Vec::new();
        for v1 in &hierarchies.v1 {
            let own = v1.mount.join(path);
            let Some(dir) = Dir::open(own.clone())? else {
                continue;
            };
            let dir = match below::of_hierarchy(below, &v1.controllers)? {
                Some(inner) => below::open(&own, inner)?,
                None => dir,
            };
            members.push(member(v1, dir));
        }
        let has = |name: &str| {
            let mut all = members.iter().flat_map(|member| &member.controllers);
            all.any(|controller| below::is_name(controller, name))
        };
        if let Some(missing) = below
            .iter()
            .find(|b| !b.is_for_all() && !has(&b.controller))
        {
            return Err(missing.unusable("the container has no group of that controller"));
        }
        if members.is_empty() {
            return Err(CgroupError::NotAllowed);
        }
        if let Some(mount) = &hierarchies.v2
            && let Some(dir) = Dir::open(mount.join(path))?
        {
            members.push(Member {
                controllers: SHARED.map(str::to_owned).to_vec(),
                name: "unified".to_owned(),
                dir,
                is_v2: true,
            });
        }
        Self::from_members(members, Vec::new())
    }

    /// Makes the directories that are missing and brings the processes into them.
    pub(crate) fn extend(
        hierarchies: &Hierarchies,
        path: &str,
        asked: &Asked,
    ) -> CgroupResult<Self> {
        // Unlike for a new group, a failure removes nothing: processes are in it.
        let (mut members, mut made) = (Vec::new(), Vec::new());
        Self::create_members(hierarchies, path, asked, &mut members, &mut made)?;
        let group = Self::from_members(members, made)?;
        for member in &group.members {
            // What was forked meanwhile is found by the next look.
            for _ in 0..EXTEND_LOOKS {
                let inside = member.dir.pids(0)?;
                let missing: Vec<i32> = group
                    .pids()?
                    .into_iter()
                    .filter(|pid| !inside.contains(pid))
                    .collect();
                if missing.is_empty() {
                    break;
                }
                for pid in missing {
                    match member.dir.write("cgroup.procs", &pid.to_string()) {
                        // It has ended.
                        Err(error) if error.errno() == Some(Errno::SRCH) => {}
                        result => result?,
                    }
                }
            }
        }
        Ok(group)
    }

    fn from_members(members: Vec<Member>, made: Vec<PathBuf>) -> CgroupResult<Self> {
        let tasks = members
            .iter()
            .map(|member| {
                let file = if member.is_v2 {
                    "cgroup.procs"
                } else {
                    "tasks"
                };
                member.dir.file(file, OFlags::WRONLY)
            })
            .collect::<CgroupResult<_>>()?;
        Ok(Self {
            members,
            tasks,
            made,
        })
    }

    pub(crate) fn find(&self, controller: &str) -> Option<&Dir> {
        self.find_with_version(controller).map(|(dir, _)| dir)
    }

    /// The directory, and whether it is of the v2 tree.
    pub(crate) fn find_with_version(&self, controller: &str) -> Option<(&Dir, bool)> {
        self.members
            .iter()
            .find(|member| member.controllers.iter().any(|name| name == controller))
            .map(|member| (&member.dir, member.is_v2))
    }

    pub(crate) fn need(&self, controller: &'static str) -> CgroupResult<&Dir> {
        self.find(controller)
            .ok_or(CgroupError::NoController { controller })
    }
}

fn member(v1: &V1, dir: Dir) -> Member {
    let name = v1
        .mount
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Member {
        controllers: v1.controllers.clone(),
        name: name.unwrap_or_default(),
        dir,
        is_v2: false,
    }
}

/// A new v1 cpuset is empty and takes no process: fill it from its parent, which may be as new.
fn inherit_cpuset(dir: &Dir) -> CgroupResult<()> {
    inherit_cpuset_within(dir, MAX_NEW_PARENTS)
}

fn inherit_cpuset_within(dir: &Dir, levels: usize) -> CgroupResult<()> {
    let Some(parent) = dir.path.parent().map(std::path::Path::to_owned) else {
        return Ok(());
    };
    let Some(parent) = Dir::open(parent)? else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.read(file)?.trim().is_empty() {
            if parent.read(file)?.trim().is_empty() && levels > 0 {
                inherit_cpuset_within(&parent, levels - 1)?;
            }
            dir.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

impl Cgroup for Group {
    fn apply_with(&self, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<Vec<String>> {
        v1_limits::apply(self, resources, extra)
    }

    fn set_devices(&self, rules: &[DeviceRule]) -> CgroupResult<()> {
        if rules.is_empty() {
            return Ok(());
        }
        let dir = self.need("devices")?;
        let deny = dir.file("devices.deny", OFlags::WRONLY)?;
        let allow = dir.file("devices.allow", OFlags::WRONLY)?;
        for rule in v1_devices::writes(rules)? {
            let (file, name) = if rule.allow {
                (&allow, "devices.allow")
            } else {
                (&deny, "devices.deny")
            };
            let line = rule.v1_line();
            rustix::io::write(file, line.as_bytes()).map_err(|error| CgroupError::Write {
                path: dir.path.join(name),
                value: line.clone(),
                source: error.into(),
            })?;
        }
        Ok(())
    }

    fn entry(&self) -> Entry<'_> {
        Entry::Write(&self.tasks)
    }

    fn join_files(&self) -> &[OwnedFd] {
        &self.tasks
    }

    fn freeze(&self) -> CgroupResult<()> {
        let dir = self.need("freezer")?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        // A process that was forking meanwhile leaves the state at FREEZING: writing again helps.
        loop {
            dir.write("freezer.state", "FROZEN")?;
            if dir.read("freezer.state")?.trim() == "FROZEN" {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let _ = dir.write("freezer.state", "THAWED");
                return Err(CgroupError::Timeout {
                    action: "freeze",
                    path: dir.path.clone(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn thaw(&self) -> CgroupResult<()> {
        self.need("freezer")?.write("freezer.state", "THAWED")
    }

    fn kill_all(&self) -> CgroupResult<()> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if self.pids()?.is_empty() {
                let _ = self.thaw();
                return Ok(());
            }
            // Frozen processes neither fork nor give their ids away while the list is read.
            let frozen = self
                .find("freezer")
                .is_some_and(|dir| dir.write("freezer.state", "FROZEN").is_ok());
            for pid in self.pids()? {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if frozen {
                self.thaw()?;
            }
            if start.elapsed() > PATIENCE {
                let path = self
                    .members
                    .first()
                    .map(|m| m.dir.path.clone())
                    .unwrap_or_default();
                return Err(CgroupError::Timeout {
                    action: "end",
                    path,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn pids(&self) -> CgroupResult<Vec<i32>> {
        let dir = self
            .find("pids")
            .or_else(|| self.members.first().map(|member| &member.dir));
        dir.map_or(Ok(Vec::new()), |dir| dir.pids(0))
    }

    fn stats(&self) -> CgroupResult<Stats> {
        let mut stats = Stats {
            memory_limit: u64::MAX,
            pids_limit: u64::MAX,
            ..Stats::default()
        };
        if let Some(dir) = self.find("cpuacct") {
            stats.cpu_total_ns = dir.number("cpuacct.usage").unwrap_or(0);
            stats.cpu_user_ns = dir.number("cpuacct.usage_user").unwrap_or(0);
            stats.cpu_system_ns = dir.number("cpuacct.usage_sys").unwrap_or(0);
        }
        if let Some(text) = self.find("cpu").and_then(|dir| dir.read("cpu.stat").ok()) {
            stats.cpu_periods = value(&text, "nr_periods").unwrap_or(0);
            stats.cpu_throttled_periods = value(&text, "nr_throttled").unwrap_or(0);
            stats.cpu_throttled_ns = value(&text, "throttled_time").unwrap_or(0);
        }
        if let Some(dir) = self.find("memory") {
            stats.memory_usage = dir.number("memory.usage_in_bytes").unwrap_or(0);
            stats.memory_max_usage = dir.number("memory.max_usage_in_bytes").unwrap_or(0);
            stats.memory_limit = dir
                .number("memory.limit_in_bytes")
                .filter(|limit| *limit < NO_LIMIT)
                .unwrap_or(u64::MAX);
            stats.memory_failcnt = dir.number("memory.failcnt").unwrap_or(0);
            let text = dir.read("memory.stat").unwrap_or_default();
            stats.memory_inactive_file = value(&text, "total_inactive_file").unwrap_or(0);
            stats.memory_anon = value(&text, "total_rss").unwrap_or(0);
            stats.memory_file = value(&text, "total_cache").unwrap_or(0);
            stats.oom_kills = self.oom_kills().unwrap_or(0);
        }
        if let Some(dir) = self.find("pids") {
            stats.pids_current = dir.number("pids.current").unwrap_or(0);
            stats.pids_limit = dir.number("pids.max").unwrap_or(u64::MAX);
        }
        if let Some(dir) = self.find("blkio") {
            let file = [
                "blkio.throttle.io_service_bytes_recursive",
                "blkio.throttle.io_service_bytes",
            ]
            .into_iter()
            .find_map(|file| dir.read(file).ok());
            for line in file.unwrap_or_default().lines() {
                let mut words = line.split(' ').skip(1);
                let counted =
                    |word: Option<&str>| word.and_then(|w| w.parse().ok()).unwrap_or(0u64);
                match words.next() {
                    Some("Read") => stats.blkio_read += counted(words.next()),
                    Some("Write") => stats.blkio_write += counted(words.next()),
                    _ => {}
                }
            }
        }
        Ok(stats)
    }

    fn oom_kills(&self) -> CgroupResult<u64> {
        let text = self.need("memory")?.read("memory.oom_control")?;
        Ok(value(&text, "oom_kill").unwrap_or(0))
    }

    fn watch_oom(&self) -> CgroupResult<OwnedFd> {
        let dir = self.need("memory")?;
        // SAFETY: integers alone.
        let event = check(unsafe {
            libc::syscall(
                libc::SYS_eventfd2,
                0,
                libc::EFD_CLOEXEC | libc::EFD_NONBLOCK,
            )
        })
        .map_err(|error| io("watch", dir.path.clone(), error))?;
        // SAFETY: the kernel just made this descriptor for us.
        let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
        let control = dir.file("memory.oom_control", OFlags::RDONLY)?;
        let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        dir.write("cgroup.event_control", &line)?;
        Ok(event)
    }

    fn views(&self) -> Vec<View> {
        self.members
            .iter()
            .map(|member| View {
                name: member.name.clone(),
                path: member.dir.path.clone(),
            })
            .collect()
    }

    fn remove(&self) -> CgroupResult<()> {
        let mut first = None;
        let deadline = Dir::remove_deadline();
        for member in &self.members {
            if let Err(error) = member.dir.remove(deadline) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    fn abandon(&self) {
        let _ = self.remove();
        Dir::unmake(&self.made);
    }
}

#[cfg(test)]
mod tests;
