//! Control groups of both versions behind one trait.
//!
//! [`Hierarchies::detect`] reads what is mounted: on a hybrid host the v1 hierarchies carry the
//! limits, on a pure v2 host the one tree does. A group is a path such as `/hull/ID` below the
//! mount point of each hierarchy (v2: below the caller's own group where the root of the tree may
//! not be written, that is under delegation).

mod absent;
mod below;
mod detect;
mod dir;
mod extra;
mod v1;
mod v1_devices;
mod v1_limits;
mod v2;
mod v2_limits;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use hull_model::limits::CgroupExtra;
use hull_model::{Resources, Stats};

pub use below::Below;
pub use detect::Hierarchies;
pub use dir::CgroupError;
pub use v2_limits::weight_of_shares;

use crate::features::Features;

/// Result of an operation on a group.
pub type CgroupResult<T> = std::result::Result<T, CgroupError>;

/// Type of device a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// A rule of the device controller; of several that match the last one decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Type of device.
    pub kind: DeviceKind,
    /// Major number; none is all.
    pub major: Option<u32>,
    /// Minor number; none is all.
    pub minor: Option<u32>,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// The node may be made.
    pub mknod: bool,
}

impl DeviceRule {
    /// A rule about everything.
    #[must_use]
    pub fn everything(allow: bool) -> Self {
        let kind = DeviceKind::All;
        Self {
            allow,
            kind,
            major: None,
            minor: None,
            read: true,
            write: true,
            mknod: true,
        }
    }

    /// `BPF_DEVCG_ACC_*` bits.
    pub(crate) fn access_bits(&self) -> i32 {
        i32::from(self.mknod) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }

    /// As `devices.allow` and `devices.deny` take it; those know `a` for all alone.
    pub(crate) fn v1_line(&self) -> String {
        use std::fmt::Write as _;
        let kind = match self.kind {
            DeviceKind::All => return "a".to_owned(),
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let mut line = format!("{kind} ");
        for (number, end) in [(self.major, ':'), (self.minor, ' ')] {
            // Writing to a String cannot fail.
            let _ = match number {
                Some(number) => write!(line, "{number}{end}"),
                None => write!(line, "*{end}"),
            };
        }
        for (set, letter) in [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')] {
            if set {
                line.push(letter);
            }
        }
        line
    }
}

/// Docker's device rules: all nodes may be made, few can be used.
#[must_use]
pub fn default_devices() -> Vec<DeviceRule> {
    let mut rules = vec![DeviceRule::everything(false)];
    for kind in [DeviceKind::Char, DeviceKind::Block] {
        let all = DeviceRule::everything(true);
        rules.push(DeviceRule {
            kind,
            read: false,
            write: false,
            ..all
        });
    }
    // null, zero, full, random, urandom, tty, console, ptmx, pts/*
    let usable = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    for (major, minor) in usable {
        let all = DeviceRule::everything(true);
        rules.push(DeviceRule {
            kind: DeviceKind::Char,
            major: Some(major),
            minor,
            ..all
        });
    }
    rules
}

/// What a process does to be in the group.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// It is cloned into the group of this directory.
    Clone(BorrowedFd<'a>),
    /// It writes `0` to each of these files. (v1: the `tasks` files. A thread that moves itself
    /// that way skips the kernel's global lock, which costs milliseconds when one process moves
    /// another.)
    Write(&'a [OwnedFd]),
}

/// A directory of the group as the container may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Name below `/sys/fs/cgroup`; empty for the v2 tree itself.
    pub name: String,
    /// Path on the host.
    pub path: PathBuf,
}

/// One control group.
pub trait Cgroup: std::fmt::Debug + Send {
    /// Sets the limits that are given; returns what the host could not do, in words.
    ///
    /// # Errors
    /// If a limit was refused that must not be missed.
    fn apply(&self, resources: &Resources) -> CgroupResult<Vec<String>> {
        self.apply_with(resources, &CgroupExtra::default())
    }

    /// As [`Cgroup::apply`], with limits that OCI bundles alone name.
    ///
    /// # Errors
    /// If a limit was refused that must not be missed.
    fn apply_with(&self, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<Vec<String>>;

    /// Sets the device rules, in their order.
    ///
    /// # Errors
    /// If one was refused.
    fn set_devices(&self, rules: &[DeviceRule]) -> CgroupResult<()>;

    /// How a new process gets in.
    fn entry(&self) -> Entry<'_>;

    /// The files to which a process writes `0` to get in, on either version.
    fn join_files(&self) -> &[OwnedFd];

    /// Freezes all processes and waits until they are.
    ///
    /// # Errors
    /// If they are not after some seconds.
    fn freeze(&self) -> CgroupResult<()>;

    /// Lets them go on.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn thaw(&self) -> CgroupResult<()>;

    /// Kills every process in the group and in those below it, frozen ones too.
    ///
    /// # Errors
    /// If some are still there after some seconds.
    fn kill_all(&self) -> CgroupResult<()>;

    /// Ids of the processes in the group and in those below it.
    ///
    /// # Errors
    /// If the list cannot be read.
    fn pids(&self) -> CgroupResult<Vec<i32>>;

    /// Counters. What the host does not count stays zero.
    ///
    /// # Errors
    /// If the group is gone.
    fn stats(&self) -> CgroupResult<Stats>;

    /// How many processes were killed for want of memory.
    ///
    /// # Errors
    /// If the group is gone.
    fn oom_kills(&self) -> CgroupResult<u64>;

    /// A descriptor that becomes readable when memory ran out (and may do so without need): then
    /// drain it with [`drain`] and ask [`Cgroup::oom_kills`].
    ///
    /// # Errors
    /// Where the memory controller is missing.
    fn watch_oom(&self) -> CgroupResult<OwnedFd>;

    /// The directories as a container may see them.
    fn views(&self) -> Vec<View>;

    /// Removes the group and those below it; all processes must be gone. A group that is not
    /// there counts as removed.
    ///
    /// # Errors
    /// If it is still busy after some tries.
    fn remove(&self) -> CgroupResult<()>;

    /// Removes the group, as far as that goes, and the parents that were made for it: for one that
    /// failed on its way.
    fn abandon(&self);
}

/// No group, for a caller who may make none, if no limit is set.
#[must_use]
pub fn absent(resources: &Resources, extra: &CgroupExtra) -> Option<Box<dyn Cgroup>> {
    absent::is_nothing(resources, extra).then(|| Box::new(absent::Absent) as _)
}

/// Empties a descriptor of [`Cgroup::watch_oom`].
pub fn drain(watch: BorrowedFd<'_>) {
    let mut buffer = [0u8; 1024];
    while matches!(rustix::io::read(watch, &mut buffer), Ok(length) if length > 0) {}
}

impl Hierarchies {
    /// Makes a group with the directories that the limits need.
    ///
    /// # Errors
    /// If a directory cannot be made, or no hierarchy is mounted.
    pub fn create(
        &self,
        path: &str,
        resources: &Resources,
        features: Features,
    ) -> CgroupResult<Box<dyn Cgroup>> {
        self.create_with(path, resources, &CgroupExtra::default(), features)
    }

    /// As [`Hierarchies::create`], with what further limits need.
    ///
    /// # Errors
    /// As [`Hierarchies::create`].
    pub fn create_with(
        &self,
        path: &str,
        resources: &Resources,
        extra: &CgroupExtra,
        features: Features,
    ) -> CgroupResult<Box<dyn Cgroup>> {
        dir::check_path(path)?;
        let asked = extra::Asked::of(resources, extra);
        asked.check(self, extra)?;
        if self.is_v2() {
            Ok(Box::new(v2::Group::create(self, path, &asked, features)?))
        } else {
            Ok(Box::new(v1::Group::create(self, path, &asked)?))
        }
    }

    /// Opens a group that exists, with the directories that are there. `None` if there are none.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&self, path: &str, features: Features) -> CgroupResult<Option<Box<dyn Cgroup>>> {
        dir::check_path(path)?;
        if self.is_v2() {
            Ok(v2::Group::open(self, path, features)?.map(|group| Box::new(group) as _))
        } else {
            Ok(v1::Group::open(self, path)?.map(|group| Box::new(group) as _))
        }
    }
}

impl Hierarchies {
    /// As [`Hierarchies::open`], to set limits: directories that they need and that are not there
    /// are made, and the processes of the group brought into them.
    ///
    /// # Errors
    /// If that fails, or a controller is missing.
    pub fn open_for(
        &self,
        path: &str,
        resources: &Resources,
        extra: &CgroupExtra,
        features: Features,
    ) -> CgroupResult<Option<Box<dyn Cgroup>>> {
        dir::check_path(path)?;
        let asked = extra::Asked::of(resources, extra);
        asked.check(self, extra)?;
        let Some(group) = self.open(path, features)? else {
            return Ok(None);
        };
        if asked.controllers.is_empty() {
            return Ok(Some(group));
        }
        if self.is_v2() {
            v2::enable_asked(self, path, &asked)?;
            return Ok(Some(group));
        }
        v1::Group::extend(self, path, &asked).map(|group| Some(Box::new(group) as _))
    }
}

/// Quota and period in µs from whichever of the two notations is given.
pub(crate) fn cpu_quota(resources: &Resources) -> Option<(i64, u64)> {
    const DEFAULT_PERIOD_US: u64 = 100_000;
    let period = resources.cpu_period.filter(|period| *period > 0);
    if let Some(nano) = resources.nano_cpus.filter(|nano| *nano > 0) {
        let period = period.unwrap_or(DEFAULT_PERIOD_US);
        let quota = i128::from(nano) * i128::from(period) / 1_000_000_000;
        return Some((i64::try_from(quota).unwrap_or(i64::MAX).max(1000), period));
    }
    match resources.cpu_quota.filter(|quota| *quota != 0) {
        Some(quota) => Some((quota, period.unwrap_or(DEFAULT_PERIOD_US))),
        None => period.map(|period| (-1, period)),
    }
}

/// Limit of memory plus swap: twice the memory where only that is limited, as Docker has it.
pub(crate) fn memory_and_swap(resources: &Resources) -> Option<i64> {
    match (resources.memory, resources.memory_swap) {
        (_, Some(both)) if both != 0 => Some(both),
        (Some(memory), _) if memory > 0 => Some(memory.saturating_mul(2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_line_wildcards_and_access() {
        let all = DeviceRule::everything(true);
        assert_eq!(all.v1_line(), "a");
        let rule = DeviceRule {
            kind: DeviceKind::Char,
            major: Some(136),
            mknod: false,
            ..all
        };
        assert_eq!(rule.v1_line(), "c 136:* rw");
    }

    #[test]
    fn cpu_quota_one_and_a_half_cpus() {
        let resources = Resources {
            nano_cpus: Some(1_500_000_000),
            ..Resources::default()
        };
        assert_eq!(cpu_quota(&resources), Some((150_000, 100_000)));
        assert_eq!(cpu_quota(&Resources::default()), None);
    }

    #[test]
    fn memory_and_swap_memory_alone_is_doubled() {
        let mut resources = Resources {
            memory: Some(100),
            ..Resources::default()
        };
        assert_eq!(memory_and_swap(&resources), Some(200));
        resources.memory_swap = Some(-1);
        assert_eq!(memory_and_swap(&resources), Some(-1));
    }
}
