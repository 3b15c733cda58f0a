//! Parts of a launch plan that OCI bundles alone ask for. Each is absent from a plan that does
//! not use it.
//!
//! Source: the OCI runtime specification, `config-linux.md`.

use std::collections::BTreeMap;

pub use hull_model::limits::{CgroupExtra, DeviceLimit};
use serde::{Deserialize, Serialize};

/// Whether a field need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A range of ids of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Both mappings of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdMappings {
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
}

/// An id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountIdMap {
    /// Own mappings; none takes the container's.
    pub mappings: Option<IdMappings>,
    /// For the mounts below, too (`ridmap`).
    pub recursive: bool,
}

/// A clock of a time namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_BOOTTIME`.
    Boottime,
}

/// Offset of a clock against the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// Which.
    pub clock: Clock,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 10⁹.
    pub nanoseconds: u32,
}

/// Resource director technology of Intel's processors (resctrl).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntelRdt {
    /// Class of service; empty is one named after the container.
    pub clos_id: String,
    /// Lines written to `schemata` as they are.
    pub schemata: Vec<String>,
    /// L3 cache line for `schemata`.
    pub l3_cache_schema: String,
    /// Memory bandwidth line for `schemata`.
    pub mem_bw_schema: String,
    /// A monitoring group of its own.
    pub monitoring: bool,
}

/// Memory policy of the first process (set_mempolicy(2)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPolicy {
    /// `MPOL_*` mode.
    pub mode: i32,
    /// `MPOL_F_*` flags.
    pub flags: i32,
    /// Nodes as a bit mask, lowest first.
    pub nodes: Vec<u64>,
}

/// I/O priority (ioprio_set(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// 1 real time, 2 best effort, 3 idle.
    pub class: u8,
    /// 0, the highest, to 7.
    pub level: u8,
}

/// Scheduling (sched_setattr(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// −20 to 19.
    pub nice: i32,
    /// Static priority of the real-time policies.
    pub priority: u32,
    /// Deadline policy, ns.
    pub runtime: u64,
    /// Deadline policy, ns.
    pub deadline: u64,
    /// Deadline policy, ns.
    pub period: u64,
}

/// Processors of a process that joins (`execCPUAffinity`), each as a list such as `0-2,4`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before it is in the container's control group.
    pub initial: String,
    /// From then on.
    pub last: String,
}

/// Where the descriptor of a filter that notifies goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompListener {
    /// Unix socket.
    pub path: String,
    /// Opaque text handed on.
    pub metadata: String,
}

/// A transient unit of systemd that holds the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SystemdUnit {
    /// Slice such as `system.slice`.
    pub slice: String,
    /// Unit such as `runc-abc.scope`.
    pub unit: String,
    /// The user's manager and not the system's.
    pub user: bool,
    /// Further properties of annotations `org.systemd.property.*`, as GVariant text.
    pub properties: BTreeMap<String, String>,
}
