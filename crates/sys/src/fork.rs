//! fork(2) for programs that may not call clone3: Docker's seccomp profile answers it `ENOSYS`.

use rustix::process::Pid;

use crate::clone3::exit_now;
use crate::{Errno, Result, check};

/// Ends the child if its function unwinds: it must never return into the parent's code.
struct ExitGuard;

impl Drop for ExitGuard {
    fn drop(&mut self) {
        exit_now(254);
    }
}

/// Forks; `child` runs in the copy, with `SIGPIPE` (which Rust's runtime ignores) set to its
/// default, and its value becomes the copy's exit status.
///
/// The child has only the calling thread. If the caller has others, `child` must not allocate or
/// take locks.
///
/// # Errors
/// `EAGAIN` at the limit of processes, `ENOMEM`.
pub fn fork(child: impl FnOnce() -> i32) -> Result<Pid> {
    // SAFETY: no memory is shared, the child runs `child` alone and then ends by _exit.
    let result = check(libc::c_long::from(unsafe { libc::fork() }))?;
    if result == 0 {
        let guard = ExitGuard;
        // SAFETY: SIG_DFL is a valid disposition and no handler of ours is replaced.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let code = child();
        std::mem::forget(guard);
        exit_now(code);
    }
    i32::try_from(result)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::CHILD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};

    #[test]
    fn fork_child_value_is_its_exit_status() {
        let pid = fork(|| 9).expect("fork");
        let (_, status) = waitpid(Some(pid), WaitOptions::empty())
            .expect("wait")
            .expect("ended");
        assert_eq!(status.exit_status(), Some(9));
    }
}
