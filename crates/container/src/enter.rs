//! The second half of the child's way, the same for a first process and for one that joins:
//! descriptors, limits, ids, capabilities, filter, execve.
//!
//! Nothing here allocates, locks or panics.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::caps::{self, CapSet, Sets};
use hull_sys::features::Features;
use hull_sys::rlimit::{self, Applied};
use hull_sys::{Errno, ids, proc, seccomp, signal};
use rustix::fs::{Mode, OFlags};

use crate::listener;
use crate::process::PreparedProcess;
use crate::report::{At, Failed, Reporter, Step};

/// What differs between launches, not between processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    pub(crate) features: Features,
    /// Get SIGKILL when the monitor ends.
    pub(crate) die_with_parent: bool,
    /// Say that all is ready, then wait for a byte here before execve.
    pub(crate) hold: Option<&'a OwnedFd>,
    /// Descriptors above standard error that the program gets.
    pub(crate) preserve_fds: u32,
    /// And these, wherever they are.
    pub(crate) keep: &'a [OwnedFd],
    /// Run before the root is changed.
    pub(crate) hooks: Option<&'a crate::hook::InnerHooks>,
    /// Run once it was let go on.
    pub(crate) start_hooks: Option<&'a crate::hook::InnerHooks>,
}

const CAP_SYS_ADMIN: CapSet = CapSet::from_bits(1 << 21);

/// A session of its own, then stdio. First of all, so that a terminal belongs to the session.
pub(crate) fn session(process: &PreparedProcess) -> Result<(), Failed> {
    match rustix::process::setsid() {
        Ok(_) => {}
        // The leader of its group already.
        Err(Errno::PERM) => {}
        Err(errno) => return Err(errno).at(Step::Session),
    }
    process.stdio.install(process.identity.uid)
}

/// The folder itself, as a descriptor inside the root: it cannot be outside (CVE-2024-21626).
pub(crate) fn working_directory(
    process: &PreparedProcess,
    root: BorrowedFd<'_>,
) -> Result<OwnedFd, Failed> {
    process.cwd.ensure(root, true).at(Step::Cwd)
}

/// Everything from the limits on. Returns only on failure.
pub(crate) fn run(
    process: &PreparedProcess,
    manner: &Manner<'_>,
    proc_root: BorrowedFd<'_>,
    report: &Reporter,
) -> Failed {
    match prepare(process, manner, proc_root, report) {
        Ok(()) => execute(process),
        Err(failed) => failed,
    }
}

fn prepare(
    process: &PreparedProcess,
    manner: &Manner<'_>,
    proc_root: BorrowedFd<'_>,
    report: &Reporter,
) -> Result<(), Failed> {
    limits(process, proc_root, report)?;
    process.schedule.apply()?;
    process.labels.apply(proc_root)?;
    signal::reset().at(Step::Signals)?;
    // Best effort: the default filter forbids the use of keys in any case.
    if !process.keep_keyring {
        process.labels.apply_to_keys(proc_root)?;
        let _: hull_sys::Result<()> = proc::new_session_keyring();
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask & 0o777));
    credentials(process)?;
    // A change of credentials clears it, so it comes after.
    let signal = if manner.die_with_parent {
        libc::SIGKILL
    } else {
        // From here on it lives without the parent: all that could be left behind is recorded.
        0
    };
    proc::set_parent_death_signal(signal).at(Step::ParentDeath)?;
    let first = manner.preserve_fds.saturating_add(3);
    proc::close_on_exec_from(first, manner.features, proc_root).at(Step::Descriptors)?;
    for kept in manner.keep {
        rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty()).at(Step::Descriptors)?;
    }
    if let Some(mailbox) = &process.mailbox {
        // Before the wait: `create` is to fail where nobody listens.
        find_program(process)?;
        if process.no_new_privileges {
            seccomp::no_new_privs().at(Step::NoNewPrivileges)?;
        }
        listener::install(process, mailbox)?;
        manner.hold.map_or(Ok(()), wait_for_start)?;
        return start_hooks(manner);
    }
    if let Some(hold) = manner.hold {
        find_program(process)?;
        report.ready();
        wait_for_start(hold)?;
        start_hooks(manner)?;
    }
    if process.no_new_privileges {
        seccomp::no_new_privs().at(Step::NoNewPrivileges)?;
    }
    // Last: from here on the filter decides, and execve is all that remains to be done.
    if let Some((program, flags)) = &process.seccomp {
        seccomp::install(program, *flags).at(Step::Seccomp)?;
    }
    Ok(())
}

fn start_hooks(manner: &Manner<'_>) -> Result<(), Failed> {
    match manner.start_hooks {
        Some(hooks) => hooks.run_and_tell(),
        None => Ok(()),
    }
}

fn wait_for_start(hold: &OwnedFd) -> Result<(), Failed> {
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(hold, &mut byte) {
            Err(Errno::INTR) => {}
            result => return result.map(drop).at(Step::Hold),
        }
    }
}

fn limits(
    process: &PreparedProcess,
    proc_root: BorrowedFd<'_>,
    report: &Reporter,
) -> Result<(), Failed> {
    for (index, (resource, limit)) in process.rlimits.iter().enumerate() {
        if let Applied::Capped(_) = rlimit::set(*resource, *limit).at_index(Step::Rlimit, index)? {
            report.warn(Step::Rlimit, index, Errno::PERM);
        }
    }
    if let Some(score) = &process.oom_score_adj {
        match set_oom_score(proc_root, score) {
            Ok(()) => {}
            // The host forbids lowering it: it stays as it is.
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => report.warn(Step::OomScore, 0, errno),
            Err(errno) => return Err(errno).at(Step::OomScore),
        }
    }
    Ok(())
}

fn set_oom_score(proc_root: BorrowedFd<'_>, score: &str) -> hull_sys::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc_root, c"self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, score.as_bytes()).map(drop)
}

/// Groups, ids and capabilities.
///
/// What the program has in the end is decided by execve from the bounding set (root) and the
/// ambient set (others). Until then CAP_SYS_ADMIN stays, where the host has it, since a filter
/// may be installed with it alone unless no_new_privs is set.
fn credentials(process: &PreparedProcess) -> Result<(), Failed> {
    let who = &process.identity;
    caps::limit_bounding(process.bounding).at(Step::Capabilities)?;
    crate::userns::set_groups(&who.groups).at(Step::Groups)?;
    ids::set_gid(who.gid).at(Step::Gid)?;
    if who.uid != 0 {
        caps::keep_on_setuid(true).at(Step::Capabilities)?;
    }
    ids::set_uid(who.uid).at(Step::Uid)?;
    let mine = caps::get().at(Step::Capabilities)?.permitted;
    let kept = mine.and(process.bounding.or(CAP_SYS_ADMIN));
    let ambient = process.ambient.and(mine);
    let sets = Sets {
        effective: kept,
        permitted: kept,
        inheritable: ambient.or(process.inheritable.and(mine)),
    };
    caps::set(&sets).at(Step::Capabilities)?;
    caps::clear_ambient().at(Step::Capabilities)?;
    caps::raise_ambient(ambient).at(Step::Capabilities)
}

/// Whether there is a program at all: once the process waits, nobody hears of its failures.
fn find_program(process: &PreparedProcess) -> Result<(), Failed> {
    let mut worst = Errno::NOENT;
    for path in &process.candidates {
        let path = path.as_c_str();
        let found = rustix::fs::access(path, rustix::fs::Access::EXEC_OK)
            .and_then(|()| rustix::fs::stat(path))
            .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
        match found {
            Ok(rustix::fs::FileType::Directory) => worst = Errno::ACCESS,
            Ok(_) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => worst = errno,
        }
    }
    Err(worst).at(Step::Exec)
}

/// Tries each path as execvp does: a file that may not be executed is remembered, one that is
/// missing is passed over, any other failure ends the search.
fn execute(process: &PreparedProcess) -> Failed {
    let mut worst = Errno::NOENT;
    for path in &process.candidates {
        match proc::execve(path, &process.arguments, &process.environment) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => worst = Errno::ACCESS,
            errno => {
                return Failed {
                    step: Step::Exec,
                    index: 0,
                    errno,
                };
            }
        }
    }
    Failed {
        step: Step::Exec,
        index: 0,
        errno: worst,
    }
}

/// Joins the group by its files, where the clone did not.
pub(crate) fn join_cgroup(files: &[OwnedFd]) -> Result<(), Failed> {
    for file in files {
        rustix::io::write(file.as_fd(), b"0").at(Step::JoinCgroup)?;
    }
    Ok(())
}
