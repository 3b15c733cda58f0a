//! Limits of a container, in the units of the Docker Engine API.

use serde::{Deserialize, Serialize};

/// Resource limits. `None` leaves the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Hard memory limit, bytes.
    pub memory: Option<i64>,
    /// Memory plus swap, bytes; -1 is unlimited.
    pub memory_swap: Option<i64>,
    /// Soft memory limit, bytes.
    pub memory_reservation: Option<i64>,
    /// CPU quota in units of 10⁻⁹ CPUs (`--cpus 1.5` is 1 500 000 000).
    pub nano_cpus: Option<i64>,
    /// CFS period, µs.
    pub cpu_period: Option<u64>,
    /// CFS quota per period, µs.
    pub cpu_quota: Option<i64>,
    /// Relative weight, 2 to 262144; 1024 is the default.
    pub cpu_shares: Option<u64>,
    /// CPUs allowed, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes allowed.
    pub cpuset_mems: Option<String>,
    /// Processes allowed; -1 is unlimited.
    pub pids_limit: Option<i64>,
    /// Relative block I/O weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Swappiness 0 to 100 (cgroup v1 alone).
    pub memory_swappiness: Option<u64>,
    /// Do not kill on out of memory (cgroup v1 alone).
    pub oom_kill_disable: bool,
}

/// One resource limit of `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name as in `ulimit`: `nofile`, `core`, `nproc`, …
    pub name: String,
    /// Soft value; -1 is unlimited.
    pub soft: i64,
    /// Hard value; -1 is unlimited.
    pub hard: i64,
}
