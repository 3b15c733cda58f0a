//! Filters that notify: the descriptor on which somebody answers, out of the process that has the
//! filter.
//!
//! The process installs the filter, puts the descriptor's number into memory that it shares with
//! the parent, and spins until the parent has fetched it (pidfd_getfd(2)) and given it to the
//! listener. So no system call is made under a filter that nobody answers for yet.

use std::os::fd::OwnedFd;
use std::time::Duration;

use hull_sys::caps::{self, CapSet};
use hull_sys::clone3::Cloned;
use hull_sys::mailbox::Mailbox;
use hull_sys::{pidfd, proc, seccomp};

use crate::LaunchError;
use crate::error::prepare;
use crate::process::PreparedProcess;
use crate::report::{At, Failed, Reports, Step};

/// How often the parent looks.
const PAUSE: Duration = Duration::from_micros(50);

/// Gets the host's id of the process and the descriptor, before the process goes on. After an
/// error it is killed.
#[derive(Clone, Copy)]
pub struct Listener<'a>(pub &'a dyn Fn(u32, OwnedFd) -> Result<(), LaunchError>);

impl std::fmt::Debug for Listener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// Whether the parent is a user who may fetch nothing from a process that is closed to others. It
/// is then opened once it has the container's rights and no more, and stays so until its program
/// runs, since it is the filter that decides on what it does from here on: whoever may look into it
/// is of the container's user namespace, and finds none of the host's descriptors.
pub(crate) fn needs_open_process() -> hull_sys::Result<bool> {
    const CAP_SYS_PTRACE: CapSet = CapSet::from_bits(1 << 19);
    Ok(!caps::get()?.effective.contains(CAP_SYS_PTRACE))
}

/// Installs the filter and waits for the parent to have given the descriptor on. Runs in the child.
pub(crate) fn install(process: &PreparedProcess, mailbox: &Mailbox) -> Result<(), Failed> {
    let Some((program, flags)) = &process.seccomp else {
        return Ok(());
    };
    if process.opens_to_parent {
        proc::set_dumpable(true).at(Step::Listener)?;
    }
    let number = seccomp::install_listening(program, *flags).at(Step::Seccomp)?;
    mailbox.offer(number).at(Step::Listener)
}

/// The parent's part, where the process has such a filter.
pub(crate) fn serve(
    process: &PreparedProcess,
    cloned: &Cloned,
    reports: &Reports,
    listener: Option<Listener<'_>>,
    held: bool,
) -> Result<(), LaunchError> {
    let (Some(mailbox), Some(listener)) = (&process.mailbox, listener) else {
        return Ok(());
    };
    let number = loop {
        if let Some(number) = mailbox.offered() {
            break number;
        }
        // It failed on the way: the report says why.
        if reports.is_over() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    };
    let pid = cloned.pid.as_raw_nonzero().get().unsigned_abs();
    let done = pidfd::get_fd(&cloned.pidfd, number)
        .map_err(prepare("fetch the descriptor of the system call filter"))
        .and_then(|fd| (listener.0)(pid, fd));
    if let Err(error) = done {
        let _ = pidfd::send_signal(&cloned.pidfd, libc::SIGKILL);
        let _ = pidfd::wait(&cloned.pidfd, true);
        return Err(error);
    }
    if held {
        reports.is_ready();
    }
    mailbox.take();
    Ok(())
}

/// A filter that notifies needs somebody to answer.
pub(crate) fn check(
    process: &PreparedProcess,
    listener: Option<Listener<'_>>,
) -> Result<(), LaunchError> {
    if process.mailbox.is_some() && listener.is_none() {
        let text = "the profile notifies a listener and there is none".to_owned();
        return Err(LaunchError::Seccomp(text));
    }
    Ok(())
}
