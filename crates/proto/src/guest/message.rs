//! The control messages of a guest's channel.

use std::net::IpAddr;
use std::path::PathBuf;

use hull_model::{Resources, Stats};
use serde::{Deserialize, Serialize};

use crate::message::Failure;
use crate::plan::{LaunchPlan, ProcessPlan};

/// Why a call failed: as on the daemon's side.
pub type Failed = Failure;

/// A call with the number its reply carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GuestCall {
    /// Chosen by the shim.
    pub seq: u64,
    /// What is asked for.
    pub request: GuestRequest,
}

/// Asked by the shim. Calls are carried out in order and may be sent ahead of the replies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestRequest {
    /// Make the guest ready. Once, before the launch. Answered by `Done` with warnings.
    Prepare(Box<Prepare>),
    /// Run the first process. Once. Answered by `Started`.
    Launch(Box<GuestLaunch>),
    /// Run one more process. Answered by `Started`.
    Exec(Box<GuestExec>),
    /// Signal a session's process.
    Signal {
        /// The session.
        session: u32,
        /// Number.
        signal: i32,
    },
    /// Kill every process of the container.
    KillAll,
    /// Set the size of a session's terminal.
    Resize {
        /// The session.
        session: u32,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Freeze all processes of the container.
    Pause,
    /// Let them go on.
    Resume,
    /// Change the container's limits; what is none stays. Answered by `Done` with warnings.
    Update(Box<Resources>),
    /// Read counters of the container.
    Stats,
    /// List the container's processes.
    Processes,
    /// Write files again whose content has changed (in place: who has them mounted sees it).
    Files(Vec<GuestFile>),
    /// Set the clock, ns since 1970: after the guest stood still.
    Clock(u64),
    /// Write everything to the disks.
    Sync,
    /// Kill what runs, write everything to the disks, answer, and power off.
    Shutdown,
}

/// What the guest has before its first process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepare {
    /// The time, ns since 1970; 0 leaves the clock.
    pub clock_ns: u64,
    /// Random bytes for the guest's generator.
    pub entropy: Vec<u8>,
    /// Host name of the guest itself; the container's is the plan's.
    pub hostname: String,
    /// Mounted in order.
    pub disks: Vec<Disk>,
    /// Mounted in order, after the disks.
    pub shares: Vec<Share>,
    /// Written after that.
    pub files: Vec<GuestFile>,
    /// Folders made after that where they are missing, such as the layers of an overlay on a
    /// disk that is new.
    pub folders: Vec<PathBuf>,
    /// Interfaces of the guest; the loopback is always up.
    pub interfaces: Vec<Interface>,
    /// Kernel parameters of the guest itself, name with dots → value.
    pub sysctls: Vec<(String, String)>,
}

/// Which disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskName {
    /// The one with this serial number, at most 20 bytes.
    Serial(String),
    /// The one with this name, such as `vda`.
    Device(String),
}

/// A disk to be mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Which one.
    pub name: DiskName,
    /// Where: below [`super::MOUNTS_PATH`], made if missing.
    pub target: PathBuf,
    /// Type of its file system, such as `erofs` or `ext4`.
    pub kind: String,
    /// Options of the file system, `key=value` or a flag.
    #[serde(default)]
    pub options: Vec<String>,
    /// Cannot be written.
    #[serde(default)]
    pub read_only: bool,
}

/// How a folder of the host is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareKind {
    /// virtio-fs.
    VirtioFs,
    /// 9p over virtio.
    NineP,
}

/// A folder of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its tag.
    pub tag: String,
    /// How it is shared.
    pub kind: ShareKind,
    /// Where: below [`super::MOUNTS_PATH`], made if missing.
    pub target: PathBuf,
    /// Options of the file system besides those of the transport.
    #[serde(default)]
    pub options: Vec<String>,
    /// Cannot be written.
    #[serde(default)]
    pub read_only: bool,
}

/// A file that the agent writes, for small ones that are not worth a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Where: below [`super::MOUNTS_PATH`].
    pub path: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    #[serde(default)]
    pub uid: u32,
    /// Group.
    #[serde(default)]
    pub gid: u32,
    /// Content.
    pub content: String,
}

/// A network interface of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Hardware address by which it is found, `02:42:…`; empty: by its name.
    pub mac: String,
    /// Name it gets, or by which it is found.
    pub name: String,
    /// Addresses with the length of their prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Largest packet; none leaves it.
    pub mtu: Option<u32>,
    /// Routes through it, the default one (to `0.0.0.0/0` or `::/0`) among them.
    pub routes: Vec<Route>,
}

/// A route through an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to, with the length of the prefix.
    pub to: (IpAddr, u8),
    /// By whom; none is on the link itself.
    #[serde(default)]
    pub via: Option<IpAddr>,
    /// Of several routes the one with the smallest number counts.
    #[serde(default)]
    pub metric: Option<u32>,
}

/// Which streams a process gets. A terminal is asked for by its plan, and is connected always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestStdio {
    /// All of them are /dev/null.
    #[default]
    Null,
    /// `Stdout` and `Stderr` of the session are its output (a terminal's is all `Stdout`, and there
    /// is no `Stderr`); standard input is /dev/null unless `stdin` (of a terminal: is there always).
    Connected {
        /// With standard input.
        stdin: bool,
    },
}

/// The first process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestLaunch {
    /// What to execute: paths are the guest's, and no descriptor is named. A network namespace
    /// that is the host's means the guest's. Compiled filters are kept where the agent keeps them.
    pub plan: LaunchPlan,
    /// Its streams.
    pub stdio: GuestStdio,
}

/// One more process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestExec {
    /// Number of the session, one that is free.
    pub session: u32,
    /// The process.
    pub process: ProcessPlan,
    /// Its streams.
    pub stdio: GuestStdio,
    /// Every capability and no filter.
    pub privileged: bool,
    /// Folder of the guest in which compiled seccomp programs are kept; empty is the agent's own.
    pub seccomp_cache: PathBuf,
}

/// What the agent writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestMessage {
    /// The first of all.
    Hello(Hello),
    /// Answer to the call of this number.
    Reply {
        /// Number of the call.
        seq: u64,
        /// The answer.
        reply: GuestReply,
    },
    /// Something happened.
    Event(GuestEvent),
}

/// The agent is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`super::VERSION`] of its build.
    pub version: u32,
    /// Release of the guest's kernel.
    pub kernel: String,
    /// How long it took.
    pub boot: BootTimes,
}

/// Times of the guest's start, ns since its kernel began to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimes {
    /// The agent's first instruction.
    pub started_ns: u64,
    /// The channel is open.
    pub ready_ns: u64,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestReply {
    /// Done.
    Done {
        /// What could not be done fully.
        warnings: Vec<String>,
    },
    /// The process runs.
    Started {
        /// Its id in the guest.
        pid: u32,
        /// When, ns since the guest's kernel began to count.
        uptime_ns: u64,
        /// What could not be done fully.
        warnings: Vec<String>,
    },
    /// Counters.
    Stats(Box<Stats>),
    /// Processes.
    Processes(Processes),
    /// It failed; nothing was changed.
    Failed(Failed),
}

/// The container's processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Processes {
    /// Ns since 1970 at which the guest's kernel began to count.
    pub booted_at_ns: u64,
    /// Memory of the guest, bytes.
    pub memory: u64,
    /// The processes by their ids; as many as fit.
    pub list: Vec<GuestProcess>,
    /// There are more.
    pub truncated: bool,
}

/// A process as lists show it. No field has a default: a guest's noise must not become long lists
/// from few bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestProcess {
    /// Id in the guest.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Letter of its state, as `ps` shows it.
    pub state: char,
    /// Device number of its terminal; 0 is none.
    pub tty: u32,
    /// Niceness.
    pub nice: i32,
    /// Threads.
    pub threads: u32,
    /// Processor time used, ns.
    pub cpu_ns: u64,
    /// When it started, ns since the guest's kernel began to count.
    pub started_ns: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Name of the program, at most 15 bytes.
    pub name: String,
    /// Command line, blanks between the words; empty for what has none.
    pub command: String,
}

/// Announced by the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestEvent {
    /// A session's process ended.
    Ended {
        /// The session.
        session: u32,
        /// Exit code, 128+n by signal n.
        code: i32,
    },
    /// Processes were killed for want of memory: so many since the launch.
    Oom {
        /// Their number.
        kills: u64,
    },
    /// Something the user ought to know.
    Warning(String),
}
