//! A group as one directory of the v2 tree.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hull_model::limits::CgroupExtra;
use hull_model::{Resources, Stats};
use rustix::fs::OFlags;

use super::below::{self, Below};
use super::detect::Hierarchies;
use super::dir::{Dir, io, value};
use super::extra::Asked;
use super::{Cgroup, CgroupError, CgroupResult, DeviceRule, Entry, View, v2_limits};
use crate::Errno;
use crate::bpf;
use crate::features::{Feature, Features};

/// Controllers that groups get where the host has them.
const WANTED: [&str; 5] = ["memory", "cpu", "pids", "io", "cpuset"];

/// How long freezing and killing may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Group {
    dir: Dir,
    procs: [OwnedFd; 1],
    features: Features,
    /// Parents that were not there before.
    made: Vec<PathBuf>,
}

impl Group {
    pub(crate) fn create(
        hierarchies: &Hierarchies,
        path: &str,
        asked: &Asked,
        features: Features,
    ) -> CgroupResult<Self> {
        let base = hierarchies.v2_base_for(path);
        let mut made = Vec::new();
        let dir = Dir::create(&base, path, &mut made, |_| Ok(()));
        let dir = dir.inspect_err(|_| Dir::unmake(&made))?;
        if !dir.has("memory.max")
            || !dir.has("pids.max")
            || !dir.has("cpu.max")
            || !asked.controllers.is_empty()
        {
            let further = asked.controllers.iter().map(String::as_str);
            enable_controllers(&base, path, WANTED.into_iter().chain(further))?;
        }
        Ok(Self {
            made,
            ..Self::new(dir, features)?
        })
    }

    pub(crate) fn open(
        hierarchies: &Hierarchies,
        path: &str,
        features: Features,
    ) -> CgroupResult<Option<Self>> {
        let full = hierarchies
            .v2_base_for(path)
            .join(path.trim_start_matches('/'));
        let group = match Dir::open(full)? {
            Some(dir) => Self::new(dir, features),
            None => return Ok(None),
        };
        match group {
            // Removed in the meantime.
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(None),
            group => group.map(Some),
        }
    }

    /// A group below that of `path` which is there already.
    pub(crate) fn open_below(
        hierarchies: &Hierarchies,
        path: &str,
        below: &[Below],
        features: Features,
    ) -> CgroupResult<Self> {
        if let Some(named) = below.iter().find(|b| !b.is_for_all()) {
            return Err(named.unusable("cgroup v2 has one tree: leave the controller away"));
        }
        let own = hierarchies
            .v2_base_for(path)
            .join(path.trim_start_matches('/'));
        let dir = match below.first() {
            Some(inner) => below::open(&own, inner)?,
            None => Dir::open(own.clone())?.ok_or_else(|| io("open", own, Errno::NOENT))?,
        };
        Self::new(dir, features)
    }

    fn new(dir: Dir, features: Features) -> CgroupResult<Self> {
        let procs = [dir.file("cgroup.procs", OFlags::WRONLY)?];
        Ok(Self {
            dir,
            procs,
            features,
            made: Vec::new(),
        })
    }

    /// Waits for `key` of `cgroup.events` to become `wanted`.
    fn await_event(&self, key: &str, wanted: u64, action: &'static str) -> CgroupResult<()> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            match self.dir.read("cgroup.events") {
                Ok(text) if value(&text, key) == Some(wanted) => return Ok(()),
                Ok(_) => {}
                // Gone: systemd removes the groups of units that have ended.
                Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NOENT)) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            if start.elapsed() > PATIENCE {
                return Err(CgroupError::Timeout {
                    action,
                    path: self.dir.path.clone(),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// Enables what further limits of a group need.
pub(crate) fn enable_asked(
    hierarchies: &Hierarchies,
    path: &str,
    asked: &Asked,
) -> CgroupResult<()> {
    let further = asked.controllers.iter().map(String::as_str);
    enable_controllers(&hierarchies.v2_base_for(path), path, further)
}

/// Lets the children of each group on the way to `path` have the wanted controllers.
pub(crate) fn enable_controllers<'a>(
    base: &Path,
    path: &str,
    wanted: impl Iterator<Item = &'a str> + Clone,
) -> CgroupResult<()> {
    let mut current = base.to_owned();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    parts.pop();
    for part in std::iter::once("").chain(parts) {
        current.push(part);
        let Some(dir) = Dir::open(current.clone())? else {
            continue;
        };
        let available = dir.read("cgroup.controllers")?;
        let enabled = dir.read("cgroup.subtree_control")?;
        for controller in wanted.clone() {
            let listed = |text: &str| text.split_whitespace().any(|name| name == controller);
            if listed(&available) && !listed(&enabled) {
                // One by one, so that one the host refuses does not cost the others; a limit that
                // then lacks its file says so when it is asked for.
                let _ = dir.write("cgroup.subtree_control", &format!("+{controller}"));
            }
        }
    }
    Ok(())
}

impl Cgroup for Group {
    fn apply_with(&self, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<Vec<String>> {
        v2_limits::apply(&self.dir, resources, extra)
    }

    fn set_devices(&self, rules: &[DeviceRule]) -> CgroupResult<()> {
        if rules.is_empty() {
            return Ok(());
        }
        let fail = |action| {
            let path = self.dir.path.clone();
            move |error| io(action, path, error)
        };
        let program = bpf::load_device_program(&bpf::device_program(rules, true))
            .map_err(fail("load the device program of"))?;
        bpf::attach_device_program(&self.dir.fd, &program)
            .map_err(fail("attach the device program to"))
    }

    fn entry(&self) -> Entry<'_> {
        if self.features.has(Feature::CloneIntoCgroup) {
            Entry::Clone(self.dir.fd.as_fd())
        } else {
            Entry::Write(&self.procs)
        }
    }

    fn join_files(&self) -> &[OwnedFd] {
        &self.procs
    }

    fn freeze(&self) -> CgroupResult<()> {
        self.dir.write("cgroup.freeze", "1")?;
        self.await_event("frozen", 1, "freeze")
    }

    fn thaw(&self) -> CgroupResult<()> {
        self.dir.write("cgroup.freeze", "0")
    }

    fn kill_all(&self) -> CgroupResult<()> {
        if self.features.has(Feature::CgroupKill) && self.dir.has("cgroup.kill") {
            match self.dir.write("cgroup.kill", "1") {
                Err(error) if matches!(error.errno(), Some(Errno::NODEV | Errno::NOENT)) => {
                    return Ok(());
                }
                result => result?,
            }
            return self.await_event("populated", 0, "end");
        }
        let start = Instant::now();
        loop {
            // Freezing holds the list still; SIGKILL reaches frozen processes on v2.
            let _ = self.dir.write("cgroup.freeze", "1");
            let pids = self.dir.pids(0)?;
            for pid in &pids {
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = self.dir.write("cgroup.freeze", "0");
            if pids.is_empty() {
                return self.await_event("populated", 0, "end");
            }
            if start.elapsed() > PATIENCE {
                let path = self.dir.path.clone();
                return Err(CgroupError::Timeout {
                    action: "end",
                    path,
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pids(&self) -> CgroupResult<Vec<i32>> {
        self.dir.pids(0)
    }

    fn stats(&self) -> CgroupResult<Stats> {
        let mut stats = Stats {
            memory_limit: u64::MAX,
            pids_limit: u64::MAX,
            ..Stats::default()
        };
        let cpu = self.dir.read("cpu.stat")?;
        let micros = |key| value(&cpu, key).unwrap_or(0).saturating_mul(1000);
        stats.cpu_total_ns = micros("usage_usec");
        stats.cpu_user_ns = micros("user_usec");
        stats.cpu_system_ns = micros("system_usec");
        stats.cpu_periods = value(&cpu, "nr_periods").unwrap_or(0);
        stats.cpu_throttled_periods = value(&cpu, "nr_throttled").unwrap_or(0);
        stats.cpu_throttled_ns = micros("throttled_usec");
        stats.memory_usage = self.dir.number("memory.current").unwrap_or(0);
        stats.memory_max_usage = self.dir.number("memory.peak").unwrap_or(0);
        stats.memory_limit = self.dir.number("memory.max").unwrap_or(u64::MAX);
        let memory = self.dir.read("memory.stat").unwrap_or_default();
        stats.memory_inactive_file = value(&memory, "inactive_file").unwrap_or(0);
        stats.memory_anon = value(&memory, "anon").unwrap_or(0);
        stats.memory_file = value(&memory, "file").unwrap_or(0);
        let events = self.dir.read("memory.events").unwrap_or_default();
        stats.memory_failcnt = value(&events, "max").unwrap_or(0);
        stats.oom_kills = value(&events, "oom_kill").unwrap_or(0);
        stats.pids_current = self.dir.number("pids.current").unwrap_or(0);
        stats.pids_limit = self.dir.number("pids.max").unwrap_or(u64::MAX);
        for word in self
            .dir
            .read("io.stat")
            .unwrap_or_default()
            .split_whitespace()
        {
            let bytes = |text: &str| text.parse::<u64>().unwrap_or(0);
            if let Some(read) = word.strip_prefix("rbytes=") {
                stats.blkio_read += bytes(read);
            } else if let Some(written) = word.strip_prefix("wbytes=") {
                stats.blkio_write += bytes(written);
            }
        }
        Ok(stats)
    }

    fn oom_kills(&self) -> CgroupResult<u64> {
        Ok(value(&self.dir.read("memory.events")?, "oom_kill").unwrap_or(0))
    }

    fn watch_oom(&self) -> CgroupResult<OwnedFd> {
        use rustix::fs::inotify;
        let fail = |error| io("watch", self.dir.path.join("memory.events"), error);
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(fail)?;
        let events = self.dir.path.join("memory.events");
        inotify::add_watch(&watch, &events, inotify::WatchFlags::MODIFY).map_err(fail)?;
        Ok(watch)
    }

    fn views(&self) -> Vec<View> {
        vec![View {
            name: String::new(),
            path: self.dir.path.clone(),
        }]
    }

    fn remove(&self) -> CgroupResult<()> {
        self.dir.remove(Dir::remove_deadline())
    }

    fn abandon(&self) {
        let _ = self.remove();
        Dir::unmake(&self.made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The v2 tree of a hybrid host has no controllers of use, but all the rest.
    fn hierarchies() -> Option<Hierarchies> {
        let found = Hierarchies::detect().ok()?.v2_alone();
        found.is_v2().then_some(found)
    }

    fn with_group(name: &str, features: Features, test: impl FnOnce(&Group)) {
        let Some(hierarchies) = hierarchies() else {
            return;
        };
        let path = format!("/hull-v2-{name}-{}/leaf", std::process::id());
        let group =
            Group::create(&hierarchies, &path, &Asked::default(), features).expect("create");
        test(&group);
        group.remove().expect("remove");
        assert!(
            Group::open(&hierarchies, &path, features)
                .expect("open")
                .is_none()
        );
        let parent = group.dir.path.parent().expect("parent").to_owned();
        rustix::fs::rmdir(parent).expect("rmdir");
    }

    fn sleeper(group: &Group) -> crate::clone3::Cloned {
        let Entry::Clone(dir) = group.entry() else {
            panic!("no clone into the group")
        };
        let args = crate::clone3::Clone3 {
            namespaces: crate::clone3::Namespaces::NONE,
            cgroup: Some(dir),
            sibling: false,
        };
        crate::clone3::clone3(&args, || {
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        })
        .expect("clone3")
    }

    #[test]
    fn kill_all_process_cloned_into_a_frozen_group_is_gone() {
        for kill in [true, false] {
            let mut features = Features::probe();
            if !kill {
                features = features.without(Feature::CgroupKill);
            }
            with_group(if kill { "kill" } else { "list" }, features, |group| {
                let child = sleeper(group);
                let pid = child.pid.as_raw_nonzero().get();
                assert_eq!(group.pids().expect("pids"), vec![pid]);
                group.freeze().expect("freeze");
                group.kill_all().expect("kill");
                let ended = crate::pidfd::wait(&child.pidfd, true).expect("wait");
                assert_eq!(ended.map(|ended| ended.exit.status()), Some(137));
            });
        }
    }

    #[test]
    fn set_devices_program_decides_what_can_be_opened() {
        with_group("devices", Features::probe(), |group| {
            let mut rules = crate::cgroup::default_devices();
            let zero = DeviceRule {
                kind: crate::cgroup::DeviceKind::Char,
                major: Some(1),
                minor: Some(5),
                ..DeviceRule::everything(false)
            };
            rules.push(zero);
            group.set_devices(&rules).expect("attach");
            let Entry::Clone(dir) = group.entry() else {
                panic!("no clone into the group")
            };
            let args = crate::clone3::Clone3 {
                namespaces: crate::clone3::Namespaces::NONE,
                cgroup: Some(dir),
                sibling: false,
            };
            let child = crate::clone3::clone3(&args, || {
                let open = |path: &std::ffi::CStr| {
                    rustix::fs::open(path, OFlags::RDONLY, rustix::fs::Mode::empty())
                };
                let allowed = open(c"/dev/null").is_ok() && open(c"/dev/urandom").is_ok();
                let denied = open(c"/dev/zero").err() == Some(Errno::PERM)
                    && open(c"/dev/kmsg").err() == Some(Errno::PERM);
                i32::from(!allowed) + 2 * i32::from(!denied)
            })
            .expect("clone3");
            let ended = crate::pidfd::wait(&child.pidfd, true)
                .expect("wait")
                .expect("ended");
            assert_eq!(ended.exit.status(), 0);
        });
    }

    #[test]
    fn apply_limit_without_its_controller_names_it() {
        with_group("limit", Features::probe(), |group| {
            if group.dir.has("memory.max") {
                return;
            }
            let limits = Resources {
                memory: Some(1 << 20),
                ..Resources::default()
            };
            let error = group.apply(&limits).expect_err("no controller");
            assert!(
                error.to_string().contains("no memory controller"),
                "{error}"
            );
        });
    }
}
