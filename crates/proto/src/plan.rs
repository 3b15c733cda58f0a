//! The launch plan: everything that the sandbox half needs to make a process, as plain data.
//! The engine (or `hull-oci`) writes it, the `container` crate executes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hull_model::{Resources, Ulimit};
use serde::{Deserialize, Serialize};

use crate::oci::{
    CgroupExtra, CpuAffinity, IdMappings, IntelRdt, IoPriority, MemoryPolicy, MountIdMap,
    Scheduler, SeccompListener, SystemdUnit, TimeOffset, is_default,
};
use crate::vm::VmPlan;

/// A sandbox to be made, with its first process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaunchPlan {
    /// Id of the container, 64 hex digits (free text for `hull-oci`).
    pub id: String,
    /// Where the root file system comes from.
    pub rootfs: RootFs,
    /// Remount the root read-only once all mount targets exist.
    pub readonly_rootfs: bool,
    /// Host name, set in a new UTS namespace alone.
    pub hostname: String,
    /// NIS domain name, likewise.
    pub domainname: String,
    /// The namespaces.
    pub namespaces: Namespaces,
    /// Mounts in the order they are made, /proc and /dev included.
    pub mounts: Vec<PlanMount>,
    /// Device nodes made in /dev; the default links (fd, stdin, …, ptmx) are always made.
    pub devices: Vec<PlanDevice>,
    /// Paths hidden where they exist.
    pub masked_paths: Vec<String>,
    /// Paths made read-only where they exist.
    pub readonly_paths: Vec<String>,
    /// Kernel parameters, `net.core.somaxconn` → value.
    pub sysctls: BTreeMap<String, String>,
    /// The control group.
    pub cgroup: CgroupPlan,
    /// A static init bound to `/sbin/docker-init` and run as process 1 before `process.args`
    /// (as `/sbin/docker-init -- args…`).
    pub init: Option<PathBuf>,
    /// The first process.
    pub process: ProcessPlan,
    /// Folder in which compiled seccomp programs are kept.
    pub seccomp_cache: PathBuf,
    /// Mappings of a new user namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub id_mappings: IdMappings,
    /// Clocks of a new time namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub time_offsets: Vec<TimeOffset>,
    /// Propagation of the root mount, one word as in [`MountOptions::propagation`].
    #[serde(skip_serializing_if = "is_default")]
    pub rootfs_propagation: String,
    /// Change the root by chroot: where `/` is the initramfs, which no other root can replace.
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot: bool,
    /// Interfaces moved in: name on the host → name inside, empty for the same.
    #[serde(skip_serializing_if = "is_default")]
    pub net_devices: BTreeMap<String, String>,
    /// Cache and memory bandwidth.
    #[serde(skip_serializing_if = "is_default")]
    pub intel_rdt: Option<IntelRdt>,
    /// The mounts may go after the end is told, since nothing of the user's is among them: taking
    /// them down keeps the kernel a third of a millisecond.
    #[serde(skip_serializing_if = "is_default")]
    pub mounts_go_late: bool,
    /// A virtual machine around it: all else of the plan is then carried out by the guest's agent,
    /// so that its paths are the guest's.
    #[serde(skip_serializing_if = "is_default")]
    pub vm: Option<Box<VmPlan>>,
}

/// Source of a root file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// Layers under a writable one.
    Overlay {
        /// Read-only layers, the topmost first. Paths are short so that a hundred fit a mount page.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// overlayfs' working folder, on the same file system.
        work: PathBuf,
        /// Do not sync on unmount: the container vanishes with its exit.
        volatile: bool,
    },
    /// A folder as it is (`hull-oci`).
    Directory {
        /// Its path.
        path: PathBuf,
    },
    /// The host's own root as lower layer, an upper layer in memory.
    Host {
        /// Folders of the host shown empty (Hull's own data and sockets).
        hidden: Vec<PathBuf>,
        /// Size of the memory layer, bytes; half of the memory if none.
        size: Option<u64>,
    },
}

impl Default for RootFs {
    fn default() -> Self {
        Self::Directory {
            path: PathBuf::new(),
        }
    }
}

/// Which namespace of each kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Namespace,
    /// System V IPC and message queues.
    pub ipc: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Network.
    pub net: Namespace,
    /// Control groups.
    pub cgroup: Namespace,
    /// Mounts.
    #[serde(skip_serializing_if = "is_default")]
    pub mount: Namespace,
    /// Users; the caller's unless said otherwise.
    pub user: Namespace,
    /// Clocks; the caller's unless said otherwise.
    pub time: Namespace,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            pid: Namespace::New,
            ipc: Namespace::New,
            uts: Namespace::New,
            net: Namespace::New,
            cgroup: Namespace::New,
            mount: Namespace::New,
            user: Namespace::Host,
            time: Namespace::Host,
        }
    }
}

/// One namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// A new one.
    #[default]
    New,
    /// The one the shim is in.
    Host,
    /// The descriptor with this index among those sent along.
    Fd(usize),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanMount {
    /// Absolute path inside; made (folder or file as the source is) where missing.
    pub target: String,
    /// What it shows.
    pub kind: MountKind,
    /// Options.
    #[serde(default)]
    pub options: MountOptions,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute path.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A detached mount: the descriptor with this index among those sent along.
    Descriptor {
        /// Index.
        fd: usize,
    },
    /// A tmpfs.
    Tmpfs {
        /// Options of the file system, such as `size=65536k,mode=1777`.
        data: String,
    },
    /// procfs.
    Proc,
    /// sysfs.
    Sysfs,
    /// POSIX message queues.
    Mqueue,
    /// A new instance of devpts.
    Devpts,
    /// The control groups, as the host has them (v1 folders or cgroup2).
    Cgroup,
    /// Any file system of the kernel's, mounted by the child in its namespaces.
    Filesystem {
        /// Type, such as `tmpfs` or `overlay`.
        kind: String,
        /// Source, often without meaning.
        source: String,
        /// Options of the file system, in order, `key=value` or a flag.
        data: Vec<String>,
    },
}

/// Options of a mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// Cannot be written.
    pub read_only: bool,
    /// setuid bits have no effect.
    pub nosuid: bool,
    /// Device nodes have no effect.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// `read_only` holds for the mounts below it, too (kernels from 5.12).
    pub recursive_read_only: bool,
    /// `private`, `slave`, `shared`, `unbindable`, each with or without an `r` before it, several
    /// with commas between them; empty is `rprivate`.
    pub propagation: String,
    /// When reading a file changes its access time. Relative leaves a bind as its source is.
    pub access_time: AccessTime,
    /// Further `MOUNT_ATTR_*` to set.
    #[serde(skip_serializing_if = "is_default")]
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    #[serde(skip_serializing_if = "is_default")]
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set on the mount and all below it (kernels from 5.12).
    #[serde(skip_serializing_if = "is_default")]
    pub recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount and all below it.
    #[serde(skip_serializing_if = "is_default")]
    pub recursive_clear: u64,
    /// Ids are mapped.
    #[serde(skip_serializing_if = "is_default")]
    pub idmap: Option<MountIdMap>,
    /// A tmpfs begins with what the root file system has at its target (`tmpcopyup`).
    #[serde(skip_serializing_if = "is_default")]
    pub copy_up: bool,
    /// A tmpfs has the mode of the folder it covers.
    #[serde(skip_serializing_if = "is_default")]
    pub copy_mode: bool,
    /// A bind has the options that are asked for and, where they may be taken off, none of its
    /// source's. Read-only stays unless it is cleared.
    #[serde(skip_serializing_if = "is_default")]
    pub exact: bool,
    /// A bind's source that is a symbolic link is mounted itself (`src-nofollow`).
    #[serde(skip_serializing_if = "is_default")]
    pub source_nofollow: bool,
    /// A target that is a symbolic link is covered itself (`dest-nofollow`).
    #[serde(skip_serializing_if = "is_default")]
    pub target_nofollow: bool,
    /// A bind's source that is a symbolic link is made anew at the target (`copy-symlink`).
    #[serde(skip_serializing_if = "is_default")]
    pub copy_symlink: bool,
    /// What is mounted at the target gets other options.
    #[serde(skip_serializing_if = "is_default")]
    pub remount: bool,
}

/// When reading a file changes its access time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessTime {
    /// If it is older than the last change or than a day.
    #[default]
    Relative,
    /// Always.
    Strict,
    /// Never.
    Never,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDevice {
    /// Path inside.
    pub path: String,
    /// Block device, else a character device.
    pub block: bool,
    /// A named pipe and no device.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fifo: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The control group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupPlan {
    /// Path below the root of each hierarchy, such as `/hull/ID`.
    pub path: String,
    /// Limits.
    pub resources: Resources,
    /// Device rules in order; the first refuses all unless the sandbox is privileged.
    pub devices: Vec<DeviceRule>,
    /// Limits that OCI bundles alone name.
    #[serde(skip_serializing_if = "is_default")]
    pub extra: CgroupExtra,
    /// Whether to do without a group where none may be made and no limit is set; none leaves it to
    /// the caller's rights: who is not root of the host does.
    #[serde(skip_serializing_if = "is_default")]
    pub optional: Option<bool>,
    /// systemd makes the group; `path` is then where it will be.
    #[serde(skip_serializing_if = "is_default")]
    pub systemd: Option<SystemdUnit>,
}

/// A rule of the device cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `a`, `b` or `c`.
    pub kind: char,
    /// Major number; none is all.
    pub major: Option<u32>,
    /// Minor number; none is all.
    pub minor: Option<u32>,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// A process: the first one or one that joins later (`exec`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessPlan {
    /// Program and arguments; the program is searched in PATH of `env`.
    pub args: Vec<String>,
    /// `NAME=value`. HOME is added from the user's record where missing.
    pub env: Vec<String>,
    /// Working directory; made where missing.
    pub cwd: String,
    /// Who runs it.
    pub user: PlanUser,
    /// Additional groups, names or numbers.
    pub group_add: Vec<String>,
    /// Capabilities without `CAP_`: bounding, permitted and effective alike for root, bounding
    /// alone for others; inheritable and ambient are empty unless `ambient` names some.
    pub capabilities: Vec<String>,
    /// Ambient (and then inheritable) capabilities, for `hull-oci`.
    pub ambient: Vec<String>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Resource limits.
    pub rlimits: Vec<Ulimit>,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i32>,
    /// System call filter.
    pub seccomp: SeccompPlan,
    /// With a terminal as controlling terminal and stdio.
    pub tty: bool,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u16, u16)>,
    /// File mode creation mask; 0o022 if none.
    pub umask: Option<u32>,
    /// Keep the session keyring of the caller.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_keyring: bool,
    /// File that is executed; empty is what the first argument names.
    #[serde(skip_serializing_if = "is_default")]
    pub program: String,
    /// Inheritable capabilities besides the ambient ones, for `hull-oci`.
    #[serde(skip_serializing_if = "is_default")]
    pub inheritable: Vec<String>,
    /// Priority of its I/O.
    #[serde(skip_serializing_if = "is_default")]
    pub io_priority: Option<IoPriority>,
    /// Its scheduling.
    #[serde(skip_serializing_if = "is_default")]
    pub scheduler: Option<Scheduler>,
    /// Processors of a process that joins.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_affinity: Option<CpuAffinity>,
    /// AppArmor profile from execve on.
    #[serde(skip_serializing_if = "is_default")]
    pub apparmor_profile: String,
    /// SELinux label from execve on.
    #[serde(skip_serializing_if = "is_default")]
    pub selinux_label: String,
    /// NUMA policy.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_policy: Option<MemoryPolicy>,
    /// personality(2).
    #[serde(skip_serializing_if = "is_default")]
    pub personality: Option<u32>,
    /// Who gets the descriptor of a filter that notifies.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp_listener: Option<SeccompListener>,
}

/// Who runs a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanUser {
    /// `user[:group]`, looked up in the root file system; empty is root.
    Name(String),
    /// Numbers as they are.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Additional groups.
        groups: Vec<u32>,
    },
}

impl Default for PlanUser {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeccompPlan {
    /// The built-in profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in Docker's or the OCI's JSON.
    Profile(String),
}
