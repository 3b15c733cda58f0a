//! One more process in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_proto::plan::ProcessPlan;
use hull_sys::cgroup::Cgroup;
use hull_sys::clone3::Namespaces;
use hull_sys::mount::{self, Attr};
use hull_sys::{ns, path, proc};
use rustix::fs::{Mode, OFlags};

use crate::enter::{self, Manner};
use crate::error::prepare;
use crate::launch::{Options, finish, spawn};
use crate::process::{PreparedProcess, Started};
use crate::report::{self, At, Failed, Reporter, Step};
use crate::stdio::{PreparedStdio, Stdio};
use crate::user::{self, Databases};
use crate::{Host, LaunchError, mounts};

/// The container to join, by its first process.
#[derive(Debug, Clone, Copy)]
pub struct ExecTarget<'a> {
    /// Id of the first process on the host.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: BorrowedFd<'a>,
    /// The container's control group.
    pub cgroup: &'a dyn Cgroup,
}

/// Namespaces that the child joins; that of process ids is the parent's to choose.
const JOINED: Namespaces = Namespaces::MOUNT
    .with(Namespaces::UTS)
    .with(Namespaces::IPC)
    .with(Namespaces::NET)
    .with(Namespaces::CGROUP);

/// Magic number of devpts.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Runs a process in the container. The caller reaps it.
///
/// Nothing of the caller is shown inside: the copy of it that becomes the process cannot be
/// looked into from its first instruction on, and its descriptors end with execve.
///
/// # Errors
/// As [`crate::launch`].
pub fn exec(
    host: &Host,
    target: &ExecTarget<'_>,
    plan: &ProcessPlan,
    seccomp_cache: &Path,
    stdio: &Stdio<'_>,
    options: &Options<'_>,
) -> Result<Started, LaunchError> {
    let root = open_root(target)?;
    let (stdio, terminal) = if plan.tty {
        let devpts = devpts(root.as_fd());
        let devpts = devpts.as_ref().map(AsFd::as_fd);
        let (stdio, master) = PreparedStdio::terminal(devpts, plan.console_size)?;
        (stdio, Some(master))
    } else {
        (PreparedStdio::streams(stdio)?, None)
    };
    let databases = Databases {
        passwd: user::read(root.as_fd(), Path::new("/etc/passwd"), "/etc/passwd")?,
        group: user::read(root.as_fd(), Path::new("/etc/group"), "/etc/group")?,
    };
    let process = PreparedProcess::prepare(plan, stdio, &databases, host, seccomp_cache, false)?;
    let target_pidfd = report::duplicate(target.pidfd)?;
    let manner = Manner {
        features: host.features,
        die_with_parent: options.die_with_parent,
        hold: options.hold.as_ref(),
    };
    let (reports, reporter) = report::pipe()?;
    let cloned = spawn(
        target.cgroup,
        Namespaces::NONE,
        Some(&target_pidfd),
        |files| {
            let failed = run(&process, &target_pidfd, files, &manner, &reporter);
            reporter.fail(failed)
        },
    )?;
    drop(reporter);
    finish(
        cloned,
        &reports,
        terminal,
        |failed| process.item(failed),
        plan.args.first(),
    )
}

/// Runs in the child; returns only on failure.
fn run(
    process: &PreparedProcess,
    target: &OwnedFd,
    files: &[OwnedFd],
    manner: &Manner<'_>,
    report: &Reporter,
) -> Failed {
    match join(process, target, files) {
        Ok(proc_root) => enter::run(process, manner, proc_root.as_fd(), report),
        Err(failed) => failed,
    }
}

fn join(
    process: &PreparedProcess,
    target: &OwnedFd,
    files: &[OwnedFd],
) -> Result<OwnedFd, Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    enter::join_cgroup(files)?;
    ns::join(target, JOINED).at(Step::JoinNamespace)?;
    enter::session(process)?;
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    // Never the container's own /proc, which it may have covered.
    let proc_root = mounts::fresh(c"proc", attributes).at(Step::Procfs)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Cwd)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let cwd = process.cwd.resolve(root.as_fd()).at(Step::Cwd)?;
    rustix::process::fchdir(&cwd).at(Step::Cwd)?;
    Ok(proc_root)
}

/// The container's root, as its first process has it.
fn open_root(target: &ExecTarget<'_>) -> Result<OwnedFd, LaunchError> {
    let action = || prepare("open the container's root");
    let path = format!("/proc/{}/root", target.pid);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).map_err(action())?;
    // Only now is it sure that the id was not given to another process meanwhile.
    hull_sys::pidfd::send_signal(target.pidfd, 0).map_err(action())?;
    Ok(root)
}

/// The container's devpts, if it has one where it should be.
fn devpts(root: BorrowedFd<'_>) -> Option<OwnedFd> {
    let found = path::resolve(root, c"/dev/pts").ok()?;
    mount::has_magic(&found, DEVPTS_MAGIC)
        .ok()?
        .then_some(found)
}
