//! What a sandbox uses at one moment, read from its cgroup (or, later, from a guest).

use serde::{Deserialize, Serialize};

/// A reading. Counters grow from the sandbox's start; sizes are bytes, times nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// CPU time used by all tasks.
    pub cpu_total_ns: u64,
    /// CPU time in user mode.
    pub cpu_user_ns: u64,
    /// CPU time in the kernel.
    pub cpu_system_ns: u64,
    /// Scheduling periods seen.
    pub cpu_periods: u64,
    /// Periods in which it was throttled.
    pub cpu_throttled_periods: u64,
    /// Time throttled.
    pub cpu_throttled_ns: u64,
    /// Memory charged now.
    pub memory_usage: u64,
    /// Highest memory charged, zero where the kernel does not say.
    pub memory_max_usage: u64,
    /// Memory limit; `u64::MAX` is none.
    pub memory_limit: u64,
    /// Page cache that can be reclaimed at once (`inactive_file`).
    pub memory_inactive_file: u64,
    /// Anonymous memory.
    pub memory_anon: u64,
    /// File cache.
    pub memory_file: u64,
    /// Times the limit was hit.
    pub memory_failcnt: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Tasks now.
    pub pids_current: u64,
    /// Most tasks allowed; `u64::MAX` is no limit.
    pub pids_limit: u64,
    /// Bytes read from block devices.
    pub blkio_read: u64,
    /// Bytes written to block devices.
    pub blkio_write: u64,
}
