//! What a filter answers for a system call.

/// Largest errno the kernel hands back from a filter (`MAX_ERRNO` in `kernel/seccomp.c`); a larger
/// one would be cut to it silently.
pub const MAX_ERRNO: u64 = 4095;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0x0000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// The answer of a filter, as in seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// The whole process dies of `SIGSYS`.
    KillProcess,
    /// The calling thread dies of `SIGSYS`.
    KillThread,
    /// The thread gets `SIGSYS`, which it may catch.
    Trap,
    /// The call fails with this errno and is not made.
    Errno(u16),
    /// A supervisor that holds the listener decides.
    Notify,
    /// A tracer is told, with this message; without one the call fails with `ENOSYS`.
    Trace(u16),
    /// The call is made, and logged.
    Log,
    /// The call is made.
    Allow,
}

impl Action {
    /// The value a BPF program returns for this action.
    pub fn to_return_value(self) -> u32 {
        match self {
            Self::KillProcess => RET_KILL_PROCESS,
            Self::KillThread => RET_KILL_THREAD,
            Self::Trap => RET_TRAP,
            Self::Errno(errno) => RET_ERRNO | u32::from(errno),
            Self::Notify => RET_USER_NOTIF,
            Self::Trace(message) => RET_TRACE | u32::from(message),
            Self::Log => RET_LOG,
            Self::Allow => RET_ALLOW,
        }
    }

    /// Whether a call with this answer may still be made as the program asked for it.
    pub(crate) fn lets_pass(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// Names of the actions a profile may use, as the OCI runtime specification spells them.
pub const ACTION_NAMES: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// An action as a profile writes it: the errno, where one applies, stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActionKind {
    KillProcess,
    KillThread,
    Trap,
    Errno,
    Notify,
    Trace,
    Log,
    Allow,
}

impl ActionKind {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            // runc and libseccomp read the bare KILL as "kill the thread".
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            "SCMP_ACT_TRAP" => Self::Trap,
            "SCMP_ACT_ERRNO" => Self::Errno,
            "SCMP_ACT_NOTIFY" => Self::Notify,
            "SCMP_ACT_TRACE" => Self::Trace,
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_ALLOW" => Self::Allow,
            _ => return None,
        })
    }

    /// The full action; without an errno `EPERM` stands for it, as in runc.
    pub(crate) fn with_errno(self, errno: Option<u16>) -> Action {
        const EPERM: u16 = 1;
        match self {
            Self::KillProcess => Action::KillProcess,
            Self::KillThread => Action::KillThread,
            Self::Trap => Action::Trap,
            Self::Errno => Action::Errno(errno.unwrap_or(EPERM)),
            Self::Notify => Action::Notify,
            Self::Trace => Action::Trace(errno.unwrap_or(EPERM)),
            Self::Log => Action::Log,
            Self::Allow => Action::Allow,
        }
    }
}
