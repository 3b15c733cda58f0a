//! Process descriptors: a handle that cannot come to mean another process.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags};

use crate::{Result, check};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal {
        /// Number of the signal.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl Exit {
    /// The status a shell would show: the code, or 128 plus the signal.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => 128 + number,
        }
    }
}

/// End of a process and what it used, its waited-for children included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
    /// Time in user mode.
    pub user: Duration,
    /// Time in the kernel.
    pub system: Duration,
    /// Largest resident set, in bytes.
    pub max_rss_bytes: u64,
}

/// Opens the descriptor of a process by id; close-on-exec.
///
/// # Errors
/// `ESRCH` if there is none.
pub fn open(pid: Pid) -> Result<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty())
}

/// Sends a signal by number; 0 only asks whether the process exists.
///
/// # Errors
/// `ESRCH` if it has been reaped, `EINVAL` for a number that is no signal.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    // SAFETY: no pointer is passed but a null siginfo, which the call allows.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// A duplicate of another process's descriptor (pidfd_getfd(2)), close-on-exec.
///
/// # Errors
/// `EPERM` without the right to trace it, `EBADF` if the number is not open there, `ENOSYS` before
/// kernel 5.6.
pub fn get_fd(pidfd: impl AsFd, number: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0)
    })?;
    // SAFETY: the kernel made this descriptor for the caller just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Reaps the child behind a pidfd. `None` if it still runs and `block` is false.
///
/// # Errors
/// `ECHILD` if it is no child of the caller or was reaped already.
pub fn wait(pidfd: impl AsFd, block: bool) -> Result<Option<Ended>> {
    wait_raw(
        libc::P_PIDFD,
        pidfd.as_fd().as_raw_fd() as libc::id_t,
        block,
    )
}

/// Reaps any child that has ended, without waiting for one.
///
/// # Errors
/// `ECHILD` if there are no children.
pub fn wait_any() -> Result<Option<Ended>> {
    wait_raw(libc::P_ALL, 0, false)
}

fn wait_raw(kind: libc::idtype_t, id: libc::id_t, block: bool) -> Result<Option<Ended>> {
    // SAFETY: both are plain C structures for which all zeroes is a value.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    let options = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        // The raw call, because glibc's waitid drops the fifth argument.
        // SAFETY: both pointers are valid for writes for the length of the call.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_waitid,
                kind,
                id,
                &raw mut info,
                options,
                &raw mut usage,
            )
        });
        match result {
            Err(crate::Errno::INTR) => continue,
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // SAFETY: waitid filled the SIGCHLD member of the union, or left it zeroed.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let exit = match info.si_code {
        libc::CLD_EXITED => Exit::Code(status),
        code => Exit::Signal {
            number: status,
            core: code == libc::CLD_DUMPED,
        },
    };
    Ok(Some(Ended {
        pid,
        exit,
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_bytes: (usage.ru_maxrss as u64).saturating_mul(1024),
    }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.max(0) as u64)
        + Duration::from_micros(time.tv_usec.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone3::{Clone3, Namespaces, clone3};

    #[test]
    fn wait_killed_child_says_signal() {
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let child = clone3(&args, || {
            loop {
                std::hint::spin_loop();
            }
        })
        .expect("clone3");
        assert!(wait(&child.pidfd, false).expect("wait").is_none());
        send_signal(&child.pidfd, libc::SIGKILL).expect("kill");
        let ended = wait(&child.pidfd, true).expect("wait").expect("ended");
        assert_eq!(
            ended.exit,
            Exit::Signal {
                number: libc::SIGKILL,
                core: false
            }
        );
        assert_eq!(ended.exit.status(), 137);
    }
}
