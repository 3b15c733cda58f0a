//! Limits of a control group that OCI bundles alone name.
//!
//! Source: the OCI runtime specification, `config-linux.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A throttle of one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes or operations a second, or a weight.
    pub value: u64,
}

/// Limits beyond [`crate::Resources`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupExtra {
    /// cgroup v2 files written as they are, last.
    pub unified: BTreeMap<String, String>,
    /// Page size such as `2MB` → bytes.
    pub hugetlb: BTreeMap<String, u64>,
    /// RDMA device → (handles, objects); none is no limit.
    pub rdma: BTreeMap<String, (Option<u32>, Option<u32>)>,
    /// Leaf weight of block I/O (v1).
    pub blkio_leaf_weight: Option<u16>,
    /// Weights of single devices.
    pub blkio_weight_device: Vec<DeviceLimit>,
    /// Leaf weights of single devices (v1).
    pub blkio_leaf_weight_device: Vec<DeviceLimit>,
    /// Bytes read a second.
    pub blkio_read_bps: Vec<DeviceLimit>,
    /// Bytes written a second.
    pub blkio_write_bps: Vec<DeviceLimit>,
    /// Reads a second.
    pub blkio_read_iops: Vec<DeviceLimit>,
    /// Writes a second.
    pub blkio_write_iops: Vec<DeviceLimit>,
    /// CFS burst, µs.
    pub cpu_burst: Option<u64>,
    /// `SCHED_IDLE` group: 1 or 0.
    pub cpu_idle: Option<i64>,
    /// Real-time runtime, µs (v1).
    pub cpu_rt_runtime: Option<i64>,
    /// Real-time period, µs (v1).
    pub cpu_rt_period: Option<u64>,
    /// Kernel memory of TCP buffers, bytes (v1).
    pub memory_kernel_tcp: Option<i64>,
    /// Hierarchical accounting (v1).
    pub memory_use_hierarchy: Option<bool>,
    /// Refuse a memory limit below what is used already.
    pub memory_check_before_update: bool,
    /// Class of network packets (v1).
    pub net_class_id: Option<u32>,
    /// Network interface → priority (v1).
    pub net_priorities: BTreeMap<String, u32>,
    /// As the OCI specification has it and not the Docker Engine API: swap is what
    /// `memory_swap` says and nothing if it says nothing, quota and period change one by one, and
    /// a limit that the host cannot honour is an error.
    pub exact: bool,
    /// systemd has made directories of the group that are to be joined, too (v1).
    pub systemd: bool,
}
