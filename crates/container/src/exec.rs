//! One more process in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_proto::plan::ProcessPlan;
use hull_sys::cgroup::Cgroup;
use hull_sys::clone3::Namespaces;
use hull_sys::mount::{self, Attr};
use hull_sys::{Errno, ns, path, proc};
use rustix::fs::{Mode, OFlags};

use crate::enter::{self, Manner};
use crate::error::prepare;
use crate::launch::{Options, finish};
use crate::listener;
use crate::process::{PreparedProcess, Started};
use crate::report::{self, At, Failed, Reporter, Step, above_stdio};
use crate::served::Served;
use crate::spaces::set_oom_score;
use crate::spawn::{spawn, spawn_between};
use crate::stdio::{self, DEVPTS_MAGIC, PreparedStdio, Stdio};
use crate::sync::{self, ChildSync, Stage};
use crate::user::{self, Databases};
use crate::{Host, LaunchError, mounts, userns};

/// The container to join, by its first process.
#[derive(Debug, Clone, Copy)]
pub struct ExecTarget<'a> {
    /// Id of the first process on the host.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: BorrowedFd<'a>,
    /// The container's control group.
    pub cgroup: &'a dyn Cgroup,
    /// Namespaces of its own besides those that every container has: of users, of clocks.
    pub also: Namespaces,
    /// It has no mount namespace that was made for it: its root is one by chroot.
    pub chroot: bool,
}

/// Namespaces that the child joins; that of process ids is the parent's to choose.
const JOINED: Namespaces = Namespaces::MOUNT
    .with(Namespaces::UTS)
    .with(Namespaces::IPC)
    .with(Namespaces::NET)
    .with(Namespaces::CGROUP);

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
    let has_user = target.also.contains(Namespaces::USER);
    let (stdio, terminal) = if plan.tty && has_user {
        (PreparedStdio::Late, None)
    } else if plan.tty {
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
    let mut process =
        PreparedProcess::prepare(plan, stdio, &databases, host, seccomp_cache, false)?;
    listener::check(&process, options.listener)?;
    let target_pidfd = report::duplicate(target.pidfd)?;
    let manner = Manner {
        features: host.features,
        die_with_parent: options.die_with_parent,
        hold: options.hold.as_ref(),
        preserve_fds: options.preserve_fds,
        hooks: None,
        start_hooks: None,
    };
    if has_user {
        userns::check_inside(target.pid, &process.identity)?;
        let from = From {
            target: &target_pidfd,
            spaces: not_shared(target.pid),
            oom_score: process.oom_score_adj.take(),
            chroot: target.chroot.then(|| above_stdio(root)).transpose()?,
        };
        return exec_between(&from, target.cgroup, &process, &manner, plan, options);
    }
    let goal = Goal {
        target: target_pidfd,
        spaces: JOINED.with(target.also),
        chroot: target.chroot.then(|| above_stdio(root)).transpose()?,
    };
    let (reports, reporter) = report::pipe()?;
    let cloned = spawn(
        target.cgroup,
        Namespaces::NONE,
        Some(&goal.target),
        |files| reporter.fail(run(&process, &goal, files, &manner, &reporter)),
    )?;
    drop(reporter);
    let held = options.hold.is_some();
    listener::serve(&process, &cloned, &reports, options.listener, held)?;
    finish(
        cloned,
        &reports,
        terminal,
        |failed| process.item(failed),
        plan.args.first(),
    )
}

/// Namespaces of the process that are not the caller's: who has no rights over one cannot join it,
/// not even where he is.
fn not_shared(pid: u32) -> Namespaces {
    const FILES: [(&str, Namespaces); 8] = [
        ("user", Namespaces::USER),
        ("mnt", Namespaces::MOUNT),
        ("pid", Namespaces::PID),
        ("uts", Namespaces::UTS),
        ("ipc", Namespaces::IPC),
        ("net", Namespaces::NET),
        ("cgroup", Namespaces::CGROUP),
        ("time", Namespaces::TIME),
    ];
    let of = |process: &str, name: &str| {
        rustix::fs::readlink(format!("/proc/{process}/ns/{name}"), Vec::new()).ok()
    };
    let pid = pid.to_string();
    FILES
        .iter()
        .filter(|(name, _)| of(&pid, name) != of("self", name))
        .fold(Namespaces::NONE, |all, (_, kind)| all.with(*kind))
}

/// Where a process goes.
struct Goal {
    target: OwnedFd,
    spaces: Namespaces,
    /// The container's root, where it is not that of its mount namespace.
    chroot: Option<OwnedFd>,
}

/// Where a process goes that joins a user namespace.
struct From<'a> {
    target: &'a OwnedFd,
    /// All that are not the caller's.
    spaces: Namespaces,
    /// Its file in /proc cannot be written from there.
    oom_score: Option<String>,
    /// As in [`Goal`].
    chroot: Option<OwnedFd>,
}

/// As [`exec`], by a process in between: only from inside the user namespace may the caller's own
/// user join the others, and the namespace of process ids counts for children alone.
fn exec_between(
    from: &From<'_>,
    cgroup: &dyn Cgroup,
    process: &PreparedProcess,
    manner: &Manner<'_>,
    plan: &ProcessPlan,
    options: &Options<'_>,
) -> Result<Started, LaunchError> {
    let proc = crate::init::trusted_proc().map_err(prepare("open /proc"))?;
    let proc = above_stdio(proc)?;
    let mut stages = vec![Stage::Born];
    stages.extend(process.stdio.is_late().then_some(Stage::Terminal));
    let (parent, sync) = sync::pair()?;
    let (reports, reporter) = report::pipe()?;
    let walk = || walk(from, &reporter);
    let cloned =
        spawn_between(
            cgroup,
            Namespaces::NONE,
            &sync,
            &reporter,
            walk,
            |files| match arrive(process, files, from, &proc, &sync) {
                Ok(proc_root) => {
                    reporter.fail(enter::run(process, manner, proc_root.as_fd(), &reporter))
                }
                Err(failed) => reporter.fail(failed),
            },
        )?;
    drop(reporter);
    drop(sync);
    let mut served = Served::new(cloned, None);
    let done = parent.serve(&stages, |message| match message.stage {
        Stage::Born => served.born(message),
        Stage::Terminal => served.terminal(message, plan.console_size),
        Stage::Mapped | Stage::BeforePivot => Ok(()),
    });
    served.check(done, true, &reports)?;
    let held = options.hold.is_some();
    listener::serve(process, &served.cloned, &reports, options.listener, held)?;
    finish(
        served.cloned,
        &reports,
        served.terminal,
        |failed| process.item(failed),
        plan.args.first(),
    )
}

/// The way of the process in between, up to its clone. Does not allocate.
fn walk(from: &From<'_>, report: &Reporter) -> Result<(), Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    if let Some(score) = &from.oom_score {
        // The files of a process that is closed are root's.
        let own = !rustix::process::geteuid().is_root();
        if own {
            proc::set_dumpable(true).at(Step::OomScore)?;
        }
        set_oom_score(score, report)?;
        if own {
            proc::set_dumpable(false).at(Step::OomScore)?;
        }
    }
    ns::join(from.target, from.spaces.without(Namespaces::CGROUP)).at(Step::JoinNamespace)
}

/// What is left to do in the process itself. Does not allocate.
fn arrive(
    process: &PreparedProcess,
    files: &[OwnedFd],
    from: &From<'_>,
    host_proc: &OwnedFd,
    sync: &ChildSync,
) -> Result<OwnedFd, Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    process.schedule.before_cgroup()?;
    enter::join_cgroup(files)?;
    process.schedule.after_cgroup()?;
    if from.spaces.contains(Namespaces::CGROUP) {
        // Only now: out of the namespace nobody gets into a group of the tree it is the root of,
        // where the tree is mounted with nsdelegate.
        ns::join(from.target, Namespaces::CGROUP).at(Step::JoinNamespace)?;
    }
    userns::become_root((Some(0), Some(0)), false)?;
    change_root(from.chroot.as_ref())?;
    enter::session(process)?;
    let proc_root = match mounts::fresh(c"proc", PROC_ATTRIBUTES) {
        // The container has covered its own or has none, and so may not have another.
        Err(Errno::PERM) => rustix::io::fcntl_dupfd_cloexec(host_proc, 3),
        result => result,
    }
    .at(Step::Procfs)?;
    let root = change_directory(process)?;
    if process.stdio.is_late() {
        stdio::open_late(root.as_fd(), process.identity.uid, Some(sync))?;
    }
    Ok(proc_root)
}

/// Runs in the child; returns only on failure.
fn run(
    process: &PreparedProcess,
    goal: &Goal,
    files: &[OwnedFd],
    manner: &Manner<'_>,
    report: &Reporter,
) -> Failed {
    match join(process, goal, files) {
        Ok(proc_root) => enter::run(process, manner, proc_root.as_fd(), report),
        Err(failed) => failed,
    }
}

fn join(process: &PreparedProcess, goal: &Goal, files: &[OwnedFd]) -> Result<OwnedFd, Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    process.schedule.before_cgroup()?;
    enter::join_cgroup(files)?;
    process.schedule.after_cgroup()?;
    ns::join(&goal.target, goal.spaces).at(Step::JoinNamespace)?;
    change_root(goal.chroot.as_ref())?;
    enter::session(process)?;
    // Never the container's own /proc, which it may have covered.
    let proc_root = mounts::fresh(c"proc", PROC_ATTRIBUTES).at(Step::Procfs)?;
    change_directory(process)?;
    Ok(proc_root)
}

fn change_root(root: Option<&OwnedFd>) -> Result<(), Failed> {
    let Some(root) = root else { return Ok(()) };
    rustix::process::fchdir(root).at(Step::Pivot)?;
    rustix::process::chroot(c".").at(Step::Pivot)
}

const PROC_ATTRIBUTES: Attr = Attr::MOUNT_ATTR_NOSUID
    .union(Attr::MOUNT_ATTR_NODEV)
    .union(Attr::MOUNT_ATTR_NOEXEC);

/// Goes where the process works; returns the root.
fn change_directory(process: &PreparedProcess) -> Result<OwnedFd, Failed> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Cwd)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let cwd = process.cwd.resolve(root.as_fd()).at(Step::Cwd)?;
    rustix::process::fchdir(&cwd).at(Step::Cwd)?;
    Ok(root)
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
