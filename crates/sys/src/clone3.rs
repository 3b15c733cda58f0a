//! clone3(2): one call that makes the process, its namespaces and its cgroup membership.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;

use crate::{Errno, Result, check};

/// `CLONE_INTO_CGROUP`. libc's constant is a `c_int` in which the bit is cut off: its value is 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_CLEAR_SIGHAND` (5.5): the child starts with default signal handlers.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Namespaces to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    /// No new namespace.
    pub const NONE: Self = Self(0);
    /// Mount namespace.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network stack.
    pub const NET: Self = Self(libc::CLONE_NEWNET as u64);
    /// Cgroup root.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// User ids.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Clocks. A new one counts for children and from the next execve on (Linux 6.1).
    pub const TIME: Self = Self(0x80);

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether every namespace of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// From `CLONE_NEW*` bits.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The `CLONE_NEW*` bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// What to clone.
#[derive(Debug, Clone, Copy)]
pub struct Clone3<'a> {
    /// New namespaces of the child.
    pub namespaces: Namespaces,
    /// Directory of a v2 cgroup in which the child is born.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Makes the child a sibling of the caller (`CLONE_PARENT`): the caller's parent waits for it.
    pub sibling: bool,
}

/// A process that was cloned.
#[derive(Debug)]
pub struct Cloned {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Ends the child if its function unwinds: the child must never return into the parent's code.
struct ExitGuard;

impl Drop for ExitGuard {
    fn drop(&mut self) {
        exit_now(CHILD_PANICKED);
    }
}

/// Exit status of a child whose function panicked.
const CHILD_PANICKED: i32 = 254;

/// Ends the process at once: no destructors, no flushing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Clones the process; `child` runs in the copy and its value becomes the copy's exit status.
///
/// The child has a copy of the caller's memory and only the calling thread. If the caller has
/// other threads, `child` must not allocate or take locks, since another thread may have held
/// one when the copy was made; it is best to do neither in any case.
///
/// # Errors
/// The errno of clone3: `EINVAL` where the kernel lacks a flag, `EBUSY`/`EOPNOTSUPP` for a cgroup
/// that cannot hold processes.
pub fn clone3(args: &Clone3<'_>, child: impl FnOnce() -> i32) -> Result<Cloned> {
    let mut pidfd: libc::c_int = -1;
    let mut raw = CloneArgs {
        flags: args.namespaces.bits() | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if args.sibling {
        raw.flags |= libc::CLONE_PARENT as u64;
        // clone3 refuses an exit signal together with CLONE_PARENT: it is the caller's own.
        raw.exit_signal = 0;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `raw` is a valid clone_args of the given size and outlives the call. Without
    // CLONE_VM and without a new stack the child continues on its own copy of this stack.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const raw,
            std::mem::size_of::<CloneArgs>(),
        )
    })?;
    if result == 0 {
        let guard = ExitGuard;
        let code = child();
        std::mem::forget(guard);
        exit_now(code);
    }
    let pid = Pid::from_raw(result as i32).ok_or(Errno::CHILD)?;
    // SAFETY: on success the kernel stored a fresh descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid, pidfd })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pidfd::{Exit, wait};

    #[test]
    fn clone3_child_value_is_its_exit_status() {
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let cloned = clone3(&args, || 7).expect("clone3");
        let ended = wait(&cloned.pidfd, true).expect("wait").expect("ended");
        assert_eq!(ended.exit, Exit::Code(7));
    }

    #[test]
    fn namespaces_with_holds_both() {
        let both = Namespaces::PID.with(Namespaces::UTS);
        assert!(both.contains(Namespaces::PID) && !both.contains(Namespaces::NET));
    }
}
