//! The machine around a sandbox: what the shim boots before it hands the plan to the agent inside.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::guest::Prepare;
use crate::plan::CgroupPlan;

/// A virtual machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmPlan {
    /// The program that runs it.
    pub hypervisor: PathBuf,
    /// By the processor, through KVM; else by emulation.
    pub kvm: bool,
    /// Its kernel.
    pub kernel: PathBuf,
    /// Archive with the agent.
    pub initrd: PathBuf,
    /// Words for the kernel besides those that every guest gets.
    pub command_line: String,
    /// Processors.
    pub processors: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Disks in their order.
    pub disks: Vec<VmDisk>,
    /// Index of the descriptor of a network namespace among those sent along: the guest takes the
    /// place of each of its interfaces, with its addresses and routes. Without it the guest has
    /// none.
    pub netns: Option<usize>,
    /// What the agent makes ready; the shim adds the time, random bytes, and interfaces.
    pub prepare: Prepare,
    /// Control group of the hypervisor. A limit of memory that is missing is made to fit.
    pub cgroup: CgroupPlan,
    /// Folder for the hypervisor's own root file system, which is empty; made if missing.
    pub dir: PathBuf,
    /// User and group that the hypervisor runs as; they own nothing.
    pub uid: u32,
    /// Folder in which compiled seccomp programs are kept.
    pub seccomp_cache: PathBuf,
    /// Folders and files of the host that the guest gets by the share [`SHARES_TAG`].
    pub shares: Vec<VmShare>,
    /// The program that serves them.
    pub file_server: PathBuf,
}

/// Tag of the share in which all of a machine's shares are.
pub const SHARES_TAG: &str = "hull";

/// A folder or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmShare {
    /// Where it is.
    pub source: PathBuf,
    /// Its name in the share.
    pub name: String,
    /// Cannot be written.
    pub read_only: bool,
    /// With the mounts below it.
    pub recursive: bool,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VmDisk {
    /// File with its content.
    pub path: PathBuf,
    /// Cannot be written, and is shared with others.
    pub read_only: bool,
    /// By which the guest finds it, at most 20 bytes.
    pub serial: String,
}
