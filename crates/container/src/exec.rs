//! One more process in a container that runs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use hull_proto::plan::ProcessPlan;
use hull_sys::cgroup::Cgroup;
use hull_sys::clone3::{Cloned, Namespaces};
use hull_sys::mount::{self, Attr};
use hull_sys::{Errno, ns, path, proc};
use rustix::fs::{Mode, OFlags};

use crate::enter::{self, Manner};
use crate::error::prepare;
use crate::launch::{Options, finish};
use crate::listener;
use crate::process::{PreparedProcess, Started};
use crate::report::{self, At, Failed, Reporter, Reports, Step, above_stdio};
use crate::served::Served;
use crate::spaces::set_oom_score;
use crate::spawn::{spawn_between, spawn_unseen};
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
/// Nothing of the caller's leads out of the container: the copy of it that becomes the process is
/// born inside, and cannot be looked into but with CAP_SYS_PTRACE; its descriptors end with execve.
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
        keep: options.keep,
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
        files: target.cgroup.join_files(),
    };
    let cloned = exec_unseen(&goal, &process, &manner, options)?;
    finish(
        cloned.0,
        &cloned.1,
        terminal,
        |failed| process.item(failed),
        plan.args.first(),
    )
}

/// As [`exec`]: the process is born in the container's namespaces and control group, with its root
/// and without a descriptor of the host's. Were it born
/// with the caller's root and joined then, a container with CAP_SYS_PTRACE could reach the host
/// through it meanwhile: that it is not dumpable is no obstacle to that capability.
fn exec_unseen(
    goal: &Goal<'_>,
    process: &PreparedProcess,
    manner: &Manner<'_>,
    options: &Options<'_>,
) -> Result<(Cloned, Reports), LaunchError> {
    let (parent, sync) = sync::pair()?;
    let (reports, reporter) = report::pipe()?;
    let mut keep = process.stdio.numbers();
    keep.extend(manner.hold.iter().map(|hold| hold.as_raw_fd()));
    keep.extend([sync.number(), reporter.number()]);
    keep.extend((0..manner.preserve_fds).filter_map(|n| i32::try_from(n).ok()?.checked_add(3)));
    keep.extend(manner.keep.iter().map(|kept| kept.as_raw_fd()));
    keep.sort_unstable();
    let cloned = spawn_unseen(
        &sync,
        &reporter,
        || walk_unseen(goal, process, &keep),
        || reporter.fail(run(process, manner, &reporter)),
    )?;
    drop(reporter);
    drop(sync);
    let mut served = Served::new(cloned, None);
    let done = parent.serve(&[Stage::Born], |message| served.born(message));
    served.check(done, true, &reports)?;
    let held = options.hold.is_some();
    listener::serve(process, &served.cloned, &reports, options.listener, held)?;
    Ok((served.cloned, reports))
}

/// The way of the process in between: into the control group, whose namespace is joined from
/// inside it, into the namespaces, of which that of process ids counts for its child, to the root.
/// Does not allocate.
fn walk_unseen(goal: &Goal<'_>, process: &PreparedProcess, keep: &[i32]) -> Result<(), Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    process.schedule.before_cgroup()?;
    enter::join_cgroup(goal.files)?;
    process.schedule.after_cgroup()?;
    ns::join(&goal.target, goal.spaces.with(Namespaces::PID)).at(Step::JoinNamespace)?;
    change_root(goal.chroot.as_ref())?;
    proc::close_all_but(keep).at(Step::Descriptors)
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
struct Goal<'a> {
    target: OwnedFd,
    spaces: Namespaces,
    /// The container's root, where it is not that of its mount namespace.
    chroot: Option<OwnedFd>,
    /// By which the control group is joined.
    files: &'a [OwnedFd],
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
fn run(process: &PreparedProcess, manner: &Manner<'_>, report: &Reporter) -> Failed {
    match arrive_unseen(process) {
        Ok(proc_root) => enter::run(process, manner, proc_root.as_fd(), report),
        Err(failed) => failed,
    }
}

fn arrive_unseen(process: &PreparedProcess) -> Result<OwnedFd, Failed> {
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    // First the numbers 0, 1 and 2: nothing else may come to have them.
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
