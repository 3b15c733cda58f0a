//! System calls and the unsafe code they need, behind safe wrappers: one file per subject.
//!
//! What rustix offers is re-used; what it lacks (clone3, mount_setattr, close_range, seccomp and
//! bpf programs, waitid with resource usage) is written here. Nothing in the wrappers allocates
//! unless its documentation says so, because many run between `clone3` and `execve`.

pub mod bpf;
pub mod caps;
pub mod cgroup;
pub mod clone3;
pub mod fdpass;
pub mod features;
pub mod fork;
pub mod ids;
pub mod inherited;
#[cfg(target_arch = "x86_64")]
pub mod kvm;
pub mod mailbox;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod ns;
pub mod path;
pub mod pidfd;
pub mod proc;
pub mod quota;
pub mod random;
pub mod rlimit;
pub mod schedule;
pub mod sealed;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod tsc;
pub mod tty;
pub mod tun;
pub mod vsock;

pub use rustix::io::Errno;

/// Result of one system call.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns the return value of `libc::syscall` into a result.
pub(crate) fn check(value: libc::c_long) -> Result<libc::c_long> {
    if value < 0 {
        Err(last_errno())
    } else {
        Ok(value)
    }
}

/// The calling thread's errno, as left by the last failed libc call.
pub(crate) fn last_errno() -> Errno {
    // SAFETY: __errno_location returns a valid pointer to the thread's errno, always.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}
