//! `exec`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use hull_container::{ExecTarget, Host, Listener, Options, Stdio};
use hull_proto::plan::{PlanUser, ProcessPlan};
use hull_sys::caps::CapSet;

use super::create::pid_file;
use super::exit_code;
use crate::cli::Exec;
use crate::log::{Log, Said};
use crate::spec::{self, absolute};
use crate::state::{Record, Status, Store, no_group};
use crate::supervise::{self, Signals};
use crate::systemd;
use crate::{console, descriptors, join, notify};

pub(crate) fn exec(args: &Exec, store: &Store, log: &Log) -> Result<ExitCode> {
    let (entry, record) = store.open(&args.id)?;
    // What has read the record is not needed any more.
    hull_sys::memory::unmap_code();
    let host = Host::detect()?;
    match record.status(&entry, &host)? {
        Status::Creating => bail!("cannot exec in a container that is still being created"),
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Paused if !args.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Created | Status::Running | Status::Paused => {}
    }
    let mut plan = plan(args, &record, log)?;
    let preserve_fds = descriptors::preserved(args.preserve_fds, &mut plan)?;
    console::check(plan.tty, args.detach, args.console_socket.as_deref())?;
    if plan.tty && !args.detach {
        plan.console_size = plan.console_size.or_else(console::own_size);
    }
    let socket = args
        .console_socket
        .as_deref()
        .map(console::connect)
        .transpose()?;
    let signals = if args.detach {
        None
    } else {
        Some(Signals::collect()?)
    };

    let process = record
        .process()
        .context("cannot exec in a stopped container")?;
    let group = join::group(&record, &host, &args.cgroup)?;
    // Where the caller may not move it into the group, systemd does so a moment later.
    let unit = record.systemd.as_ref().filter(|unit| unit.user);
    let elsewhere = unit.and_then(|_| no_group());
    let target = ExecTarget {
        pid: record.pid,
        pidfd: std::os::fd::AsFd::as_fd(&process),
        cgroup: elsewhere.as_deref().unwrap_or(group.as_ref()),
        also: record.own_namespaces(),
        chroot: record.chroot,
    };
    let stdio = Stdio {
        stdin: rustix::stdio::stdin(),
        stdout: rustix::stdio::stdout(),
        stderr: rustix::stdio::stderr(),
    };
    let cache = store.seccomp_cache();
    let listener = plan.seccomp_listener.as_ref();
    let listener = listener.map(notify::connect).transpose()?;
    let notify = |pid, fd| match &listener {
        Some(listener) => listener.send(&record, Status::Running, pid, &fd),
        None => Ok(()),
    };
    let options = Options {
        listener: listener.is_some().then_some(Listener(&notify)),
        preserve_fds,
        ..Options::default()
    };
    // The copy of this program that becomes the process would show them inside for a moment.
    hull_sys::proc::forget_arguments().context("cannot hide this program's arguments")?;
    // Nor what has planned the process.
    hull_sys::memory::unmap_code();
    let started = hull_container::exec(&host, &target, &plan, &cache, &stdio, &options)?;
    if let Some(unit) = unit
        && let Err(error) = systemd::attach(unit, &below_unit(args), started.pid)
    {
        log.warn(&format!("{error:#}"));
    }
    for warning in &started.warnings {
        log.warn(warning);
    }
    if let (Some(socket), Some(terminal)) = (&socket, &started.terminal) {
        console::hand_over(socket, terminal)?;
    }
    if let Some(path) = &args.pidfd_socket {
        console::hand_pidfd(path, &started.pidfd)?;
    }
    pid_file(args.pid_file.as_deref(), started.pid)?;
    match signals {
        Some(signals) => supervise::wait(&started, &signals, None).map(exit_code),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The group below its own to which systemd brings the process.
fn below_unit(args: &Exec) -> String {
    let path = args.cgroup.first().map(|path| path.trim_matches('/'));
    path.filter(|path| !path.is_empty())
        .map_or_else(String::new, |path| format!("/{path}"))
}

/// The process of `-p`, or the container's own with the command and the flags.
fn plan(args: &Exec, record: &Record, log: &Log) -> Result<ProcessPlan> {
    if let Some(file) = &args.process {
        let mut said = Said::default();
        let mut plan = spec::read_process(file, &mut said)
            .and_then(|process| spec::translate_process(&process, "process", &mut said))
            .with_context(|| format!("cannot use {}", file.display()))?;
        said.tell(log);
        plan.seccomp = record.process.seccomp.clone();
        plan.seccomp_listener = record.process.seccomp_listener.clone();
        return Ok(plan);
    }
    if args.command.is_empty() {
        bail!("exec: no command given");
    }
    let mut plan = record.process.clone();
    plan.args.clone_from(&args.command);
    plan.env.extend(args.env.iter().cloned());
    plan.tty = args.tty;
    plan.console_size = None;
    plan.no_new_privileges |= args.no_new_privs;
    if let Some(profile) = &args.apparmor {
        plan.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &args.process_label {
        plan.selinux_label.clone_from(label);
    }
    if let Some(cwd) = &args.cwd {
        plan.cwd = absolute("--cwd", cwd)?;
    }
    for name in &args.cap {
        let Some(cap) = CapSet::from_name(name) else {
            log.warn(&format!("--cap: unknown capability {name:?} is left out"));
            continue;
        };
        plan.capabilities.extend(
            cap.names()
                .iter()
                .map(|name| name.trim_start_matches("CAP_").to_owned()),
        );
    }
    if let Some(user) = &args.user {
        plan.user = self::user(user, &plan.user)?;
    }
    if let PlanUser::Ids { groups, .. } = &mut plan.user {
        groups.extend(&args.additional_gids);
    }
    Ok(plan)
}

/// As runc: the group stays as it is where none is given, and so do the additional ones.
fn user(text: &str, before: &PlanUser) -> Result<PlanUser> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let (own, groups) = match before {
        PlanUser::Ids { gid, groups, .. } => (*gid, groups.clone()),
        PlanUser::Name(_) => (0, Vec::new()),
    };
    let number = |part: &str| {
        part.parse::<u32>()
            .with_context(|| format!("--user {text:?} is not UID[:GID] in numbers"))
    };
    Ok(PlanUser::Ids {
        uid: number(uid)?,
        gid: gid.map_or(Ok(own), number)?,
        groups,
    })
}
