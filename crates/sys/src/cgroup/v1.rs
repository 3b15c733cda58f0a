//! A group as directories in the v1 hierarchies.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_model::{Resources, Stats};
use rustix::fs::OFlags;

use super::detect::{Hierarchies, V1};
use super::dir::{Dir, io, value};
use super::{
    Cgroup, CgroupError, CgroupResult, DeviceRule, Entry, View, cpu_quota, memory_and_swap,
};
use crate::{Errno, check};

/// Controllers whose directories every group has. That of `cpuset` is made when asked for: each
/// directory costs on the way up and down.
const ALWAYS: [&str; 7] = [
    "memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio",
];

/// How long freezing and killing may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A limit at or above this is none: the kernel writes 2⁶³ rounded down to a page.
const NO_LIMIT: u64 = 1 << 62;

#[derive(Debug)]
struct Member {
    controllers: Vec<String>,
    name: String,
    dir: Dir,
}

#[derive(Debug)]
pub(crate) struct Group {
    members: Vec<Member>,
    tasks: Vec<OwnedFd>,
}

impl Group {
    pub(crate) fn create(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &Resources,
    ) -> CgroupResult<Self> {
        let wants_cpuset = resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some();
        let mut members: Vec<Member> = Vec::new();
        for v1 in &hierarchies.v1 {
            let needed = v1.controllers.iter().any(|controller| {
                ALWAYS.contains(&controller.as_str()) || (controller == "cpuset" && wants_cpuset)
            });
            if !needed {
                continue;
            }
            match Self::create_member(v1, path) {
                Ok(member) => members.push(member),
                Err(error) => {
                    // Half a group is no group.
                    for member in &members {
                        let _ = member.dir.remove();
                    }
                    return Err(error);
                }
            }
        }
        Self::from_members(members)
    }

    fn create_member(v1: &V1, path: &str) -> CgroupResult<Member> {
        let is_cpuset = v1
            .controllers
            .iter()
            .any(|controller| controller == "cpuset");
        let is_memory = v1
            .controllers
            .iter()
            .any(|controller| controller == "memory");
        let dir = Dir::create(&v1.mount, path, |parent| {
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
        if members.is_empty() {
            Ok(None)
        } else {
            Self::from_members(members).map(Some)
        }
    }

    fn from_members(members: Vec<Member>) -> CgroupResult<Self> {
        let tasks = members
            .iter()
            .map(|member| member.dir.file("tasks", OFlags::WRONLY))
            .collect::<CgroupResult<_>>()?;
        Ok(Self { members, tasks })
    }

    fn find(&self, controller: &str) -> Option<&Dir> {
        self.members
            .iter()
            .find(|member| member.controllers.iter().any(|name| name == controller))
            .map(|member| &member.dir)
    }

    fn need(&self, controller: &'static str) -> CgroupResult<&Dir> {
        self.find(controller)
            .ok_or(CgroupError::NoController { controller })
    }

    fn apply_memory(&self, resources: &Resources, warnings: &mut Vec<String>) -> CgroupResult<()> {
        let both = memory_and_swap(resources);
        let asked = resources.memory.is_some()
            || resources.memory_reservation.is_some()
            || both.is_some()
            || resources.memory_swappiness.is_some()
            || resources.oom_kill_disable;
        if !asked {
            return Ok(());
        }
        let dir = self.need("memory")?;
        let memory = resources.memory.filter(|memory| *memory != 0);
        let set_both = |warnings: &mut Vec<String>| -> CgroupResult<()> {
            let Some(both) = both else { return Ok(()) };
            if !dir.has("memory.memsw.limit_in_bytes") {
                warnings.push("the kernel does not account swap: no limit on it".to_owned());
                return Ok(());
            }
            dir.write("memory.memsw.limit_in_bytes", &both.to_string())
        };
        if let Some(memory) = memory {
            // Memory must never be above memory plus swap, so the order depends on the direction.
            match dir.write("memory.limit_in_bytes", &memory.to_string()) {
                Err(error) if error.errno() == Some(Errno::INVAL) => {
                    set_both(warnings)?;
                    dir.write("memory.limit_in_bytes", &memory.to_string())?;
                }
                result => {
                    result?;
                    set_both(warnings)?;
                }
            }
        } else {
            set_both(warnings)?;
        }
        if let Some(soft) = resources.memory_reservation.filter(|soft| *soft != 0) {
            dir.write("memory.soft_limit_in_bytes", &soft.to_string())?;
        }
        if let Some(swappiness) = resources.memory_swappiness
            && dir
                .write("memory.swappiness", &swappiness.to_string())
                .is_err()
        {
            warnings.push("the kernel does not let swappiness be set for a group".to_owned());
        }
        if resources.oom_kill_disable && dir.write("memory.oom_control", "1").is_err() {
            warnings.push("the kernel does not let the OOM killer be disabled".to_owned());
        }
        Ok(())
    }

    fn apply_cpu(&self, resources: &Resources) -> CgroupResult<()> {
        if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
            self.need("cpu")?.write("cpu.shares", &shares.to_string())?;
        }
        if let Some((quota, period)) = cpu_quota(resources) {
            let dir = self.need("cpu")?;
            let set_period = || dir.write("cpu.cfs_period_us", &period.to_string());
            if period != 100_000 || dir.number("cpu.cfs_period_us") != Some(period) {
                // Refused while the old quota is larger than the parent's with the new period.
                if set_period().is_err() {
                    dir.write("cpu.cfs_quota_us", "-1")?;
                    set_period()?;
                }
            }
            dir.write("cpu.cfs_quota_us", &quota.to_string())?;
        }
        for (file, list) in [
            ("cpuset.cpus", &resources.cpuset_cpus),
            ("cpuset.mems", &resources.cpuset_mems),
        ] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.need("cpuset")?.write(file, list)?;
            }
        }
        Ok(())
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
    }
}

/// A new v1 cpuset is empty and takes no process: fill it from its parent.
fn inherit_cpuset(dir: &Dir) -> CgroupResult<()> {
    let Some(parent) = dir.path.parent().map(std::path::Path::to_owned) else {
        return Ok(());
    };
    let Some(parent) = Dir::open(parent)? else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.read(file)?.trim().is_empty() {
            dir.write(file, parent.read(file)?.trim())?;
        }
    }
    Ok(())
}

impl Cgroup for Group {
    fn apply(&self, resources: &Resources) -> CgroupResult<Vec<String>> {
        let mut warnings = Vec::new();
        self.apply_memory(resources, &mut warnings)?;
        self.apply_cpu(resources)?;
        if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
            let value = if limit < 0 {
                "max".to_owned()
            } else {
                limit.to_string()
            };
            self.need("pids")?.write("pids.max", &value)?;
        }
        if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
            let file = self.find("blkio").and_then(|dir| {
                let file = ["blkio.weight", "blkio.bfq.weight"]
                    .into_iter()
                    .find(|f| dir.has(f))?;
                dir.write(file, &weight.to_string()).ok()
            });
            if file.is_none() {
                warnings.push("the host has no weights for block I/O".to_owned());
            }
        }
        Ok(warnings)
    }

    fn set_devices(&self, rules: &[DeviceRule]) -> CgroupResult<()> {
        if rules.is_empty() {
            return Ok(());
        }
        let dir = self.need("devices")?;
        let deny = dir.file("devices.deny", OFlags::WRONLY)?;
        let allow = dir.file("devices.allow", OFlags::WRONLY)?;
        for rule in rules {
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
        for member in &self.members {
            if let Err(error) = member.dir.remove() {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}
