//! What daemon and shim say to each other.
//!
//! ```text
//! daemon                                   shim
//!   Request {seq, …} + descriptors ──────▶
//!                                  ◀────── Reply {seq, …}      once for each request, any order
//!                                  ◀────── Event {…}           to every control connection
//! ```
//!
//! An attach stream is a socket handed over by descriptor. The shim writes what Docker's
//! clients read: raw bytes for a terminal, else frames of an 8-byte header (stream number, three
//! zeros, big-endian length) and data. What it reads is standard input; end of file closes it.

use std::path::PathBuf;

use hull_model::spec::LogConfig;
use hull_model::{ErrorKind, Resources, Stats};
use serde::{Deserialize, Serialize};

use crate::guest::Processes;
use crate::plan::{LaunchPlan, ProcessPlan};

/// A request with the number its reply carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the daemon, unique within the connection.
    pub seq: u64,
    /// The request.
    pub request: Request,
}

/// Asked by the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the sandbox and run its first process. Once in a shim's life.
    Launch(Box<Launch>),
    /// Run one more process. Answered by `Reply::Started`, later `Event::ExecExited`.
    Exec(Box<ExecLaunch>),
    /// Signal the first process, or the exec session named.
    Signal {
        /// Number.
        signal: i32,
        /// Exec session.
        #[serde(default)]
        exec: Option<String>,
    },
    /// Kill every process of the sandbox at once.
    KillAll,
    /// Set the terminal's size.
    Resize {
        /// Exec session, or the first process.
        #[serde(default)]
        exec: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// One more reader (and writer) of the first process's streams.
    Attach(Attach),
    /// Freeze all processes.
    Pause,
    /// Let them go on.
    Resume,
    /// Change limits.
    Update(Box<Resources>),
    /// Read counters.
    Stats,
    /// List process ids, as the host sees them.
    Pids,
    /// List the processes of a guest, which the host does not see.
    Processes,
    /// Say how things are.
    Status,
    /// The exit was recorded: the shim may go.
    Forget,
}

/// The sandbox to launch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// What to execute. Descriptor indices count from the first descriptor of the frame.
    pub plan: LaunchPlan,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Close it when the first attached client is gone.
    pub stdin_once: bool,
    /// Where output is logged; none where the driver is `none`.
    pub log: Option<LogFile>,
    /// Clients that attached before the start: each with the index of its socket.
    pub attach: Vec<Attach>,
}

/// The log file of a sandbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogFile {
    /// The current file; rotated ones get `.1`, `.2`, …
    pub path: PathBuf,
    /// Limits.
    pub config: LogConfig,
}

/// One more process in the sandbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecLaunch {
    /// Id of the session.
    pub id: String,
    /// The process.
    pub process: ProcessPlan,
    /// Its streams; without them they are /dev/null.
    pub attach: Option<Attach>,
    /// Every capability and no filter.
    pub privileged: bool,
    /// Folder in which compiled seccomp programs are kept.
    pub seccomp_cache: PathBuf,
}

/// A client of a process's streams.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// Index of its socket among the descriptors of the frame.
    pub fd: usize,
    /// It writes standard input.
    pub stdin: bool,
    /// It reads standard output.
    pub stdout: bool,
    /// It reads standard error.
    pub stderr: bool,
}

/// What the shim writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Answer to the request of this number.
    Reply {
        /// Number of the request.
        seq: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something happened.
    Event(Event),
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Done,
    /// The process runs.
    Started {
        /// Its id as the host sees it.
        pid: u32,
        /// What could not be done fully, such as a limit the host forbids to raise.
        warnings: Vec<String>,
    },
    /// Counters.
    Stats(Box<Stats>),
    /// Process ids.
    Pids(Vec<u32>),
    /// Processes of a guest.
    Processes(Box<Processes>),
    /// How things are.
    Status(Status),
    /// It failed; nothing was changed.
    Failed(Failure),
}

/// A failure with the kind that decides status and exit code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Its kind.
    pub kind: ErrorKind,
    /// What failed, on what, and the system's reason.
    pub message: String,
}

/// Announced by the shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first process ended, all output is logged, and `exit.json` is written.
    Exited(ExitStatus),
    /// An exec session ended.
    ExecExited {
        /// Its id.
        id: String,
        /// Exit code, 128+n by signal n.
        code: i32,
    },
    /// A process was killed for want of memory.
    Oom,
    /// Something is not as it should be and the user ought to know, such as log lines lost
    /// because the disk is full.
    Warning(String),
}

/// How a sandbox ended; also the content of `exit.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExitStatus {
    /// Exit code, 128+n by signal n.
    pub code: i32,
    /// Want of memory was the reason.
    pub oom_killed: bool,
    /// When, ns since 1970.
    pub finished_at_ns: u64,
}

/// State of a sandbox as its shim sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Process id of the first process; none before the launch.
    pub pid: Option<u32>,
    /// When it was started, ns since 1970.
    pub started_at_ns: u64,
    /// Frozen.
    pub paused: bool,
    /// Ended.
    pub exit: Option<ExitStatus>,
    /// Exec sessions that run: id and process id.
    pub execs: Vec<(String, u32)>,
}

/// Name of the control socket in a sandbox's run folder.
pub const SOCKET: &str = "shim.sock";
/// Name of the exit record there.
pub const EXIT_FILE: &str = "exit.json";
/// Descriptor number at which a shim finds its listening socket.
pub const LISTEN_FD: i32 = 3;
