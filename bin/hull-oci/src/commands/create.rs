//! `create`, and the launch it shares with `run`.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use hull_container::{
    BeforePivot, Host, InnerHooks, LaunchError, Launched, Listener, Options, Stdio, launch,
};
use hull_proto::oci::SystemdUnit;
use hull_proto::plan::Namespace;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::Create;
use crate::log::Log;
use crate::sdnotify::{self, Proxy};
use crate::spec::{self, Translated};
use crate::state::{Entry, Record, Status, Store, start_time, write_by_rename};
use crate::{console, descriptors, netdev, notify, rdt, rootless, state, systemd};

/// Where there is no control group, it is killed by itself.
const SIGKILL: i32 = 9;

/// A container that was launched, and the folder it is recorded in.
pub(crate) struct Made {
    pub(crate) launched: Launched,
    pub(crate) entry: Entry,
    /// What is recorded.
    pub(crate) record: Record,
    /// The unit of systemd that its group is.
    pub(crate) unit: Option<SystemdUnit>,
    /// By which its program says that it is ready.
    pub(crate) ready: Option<Proxy>,
    /// Where it was made.
    pub(crate) host: Host,
}

pub(crate) fn create(args: &Create, store: &Store, log: &Log) -> Result<()> {
    make(
        args,
        store,
        log,
        &Manner {
            hold: true,
            detached: true,
        },
    )
    .map(drop)
}

/// How a container is made.
pub(crate) struct Manner {
    /// It waits for `start`.
    pub(crate) hold: bool,
    /// This program ends before it does.
    pub(crate) detached: bool,
}

/// Launches the bundle and records it. On failure nothing is left.
pub(crate) fn make(args: &Create, store: &Store, log: &Log, manner: &Manner) -> Result<Made> {
    let bundle = spec::bundle_dir(args.bundle.as_deref())?;
    let mut translated = spec::translate(&bundle, &args.id, &store.seccomp_cache())?;
    translated.plan.no_pivot = args.no_pivot;
    translated.preserve_fds =
        descriptors::preserved(args.preserve_fds, &mut translated.plan.process)?;
    spec::place_cgroup(&translated.spec, &mut translated.plan, store.systemd)?;
    translated.plan.process.keep_keyring = args.no_new_keyring;
    rootless::check(&translated.plan)?;
    translated.plan.cgroup.optional = store.rootless;
    translated.said.tell(log);
    console::check(
        translated.plan.process.tty,
        manner.detached,
        args.console_socket.as_deref(),
    )?;
    if translated.plan.process.tty && !manner.detached {
        let given = translated.plan.process.console_size;
        translated.plan.process.console_size = given.or_else(console::own_size);
    }
    if translated.plan.intel_rdt.is_some() {
        rdt::find()?;
    }
    let mut host = Host::detect()?;
    let entry = store.create(&args.id)?;
    let ready = sdnotify::prepare(&entry, &mut translated.plan).and_then(|()| {
        // `start` does so for what waits for it.
        if manner.hold {
            Ok(None)
        } else {
            Proxy::bind(&entry)
        }
    });
    let started = ready.and_then(|ready| {
        let unit = start_unit(args, &mut translated, &entry, &host)?;
        Ok((ready, unit))
    });
    let (ready, unit) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = entry.remove();
            return Err(error);
        }
    };
    if unit.is_some() {
        host.hierarchies = host.hierarchies.from_mount_points();
    }
    match launch_in(args, &host, &translated, &entry, unit.as_ref(), log, manner) {
        Ok((launched, record)) => Ok(Made {
            launched,
            entry,
            record,
            unit: translated.plan.cgroup.systemd,
            ready,
            host,
        }),
        Err(error) => {
            if let Some(unit) = unit {
                unit.undo();
            }
            spec::remove_parents(&translated.plan.cgroup.path, &host);
            let _ = entry.remove();
            if let Ok(record) = record(args, &translated) {
                record.hooks.after_delete(&record, log);
            }
            Err(error)
        }
    }
}

/// Lets systemd make the group, where it is to. The record comes first: systemd may keep a unit
/// whose maker was killed meanwhile, and `delete --force` then stops it.
pub(crate) fn start_unit(
    args: &Create,
    translated: &mut Translated,
    entry: &Entry,
    host: &Host,
) -> Result<Option<systemd::Started>> {
    if translated.plan.cgroup.systemd.is_some() {
        entry.write(&record(args, translated)?)?;
    }
    systemd::start(&args.id, &mut translated.plan.cgroup, host)
}

fn launch_in(
    args: &Create,
    host: &Host,
    translated: &Translated,
    entry: &Entry,
    unit: Option<&systemd::Started>,
    log: &Log,
    manner: &Manner,
) -> Result<(Launched, Record)> {
    if translated.plan.cgroup.systemd.is_none()
        && let Some(group) = host
            .hierarchies
            .open(&translated.plan.cgroup.path, host.features)?
        && !group.pids()?.is_empty()
    {
        bail!(
            "control group {} is not empty: give another linux.cgroupsPath",
            translated.plan.cgroup.path
        );
    }
    let socket = args
        .console_socket
        .as_deref()
        .map(console::connect)
        .transpose()?;
    let hold: Option<OwnedFd> = if manner.hold || !translated.hooks.start_container.is_empty() {
        Some(entry.make_fifo()?)
    } else {
        None
    };
    let listener = &translated.plan.process.seccomp_listener;
    let listener = listener.as_ref().map(notify::connect).transpose()?;
    let planned = record(args, translated)?;
    entry.write(&planned)?;
    let stdio = Stdio {
        stdin: rustix::stdio::stdin(),
        stdout: rustix::stdio::stdout(),
        stderr: rustix::stdio::stderr(),
    };
    let attach = |pid| match unit.map(|unit| unit.attach(pid)) {
        Some(Err(error)) => Err(LaunchError::Stopped(format!("{error:#}"))),
        _ => Ok(()),
    };
    let inner = match translated.hooks.inner() {
        hooks if hooks.is_empty() => None,
        hooks => Some(InnerHooks::prepare(&hooks)?),
    };
    let start = match translated.hooks.inner_start() {
        hooks if hooks.is_empty() => None,
        hooks => Some(InnerHooks::prepare(&hooks)?.answering(entry.make_answer()?)?),
    };
    let class: OnceCell<rdt::Group> = OnceCell::new();
    let before_pivot = |pid| {
        prepare_inside(translated, &planned, pid, &class)
            .and_then(|()| {
                let hooks = &translated.hooks;
                hooks.on_create(&planned, pid, inner.as_ref(), start.as_ref())
            })
            .map_err(|error| LaunchError::Stopped(format!("{error:#}")))
    };
    let notify = |pid, fd| match &listener {
        Some(listener) => listener.send(&planned, Status::Creating, pid, &fd),
        None => Ok(()),
    };
    let options = Options {
        listener: listener.is_some().then_some(Listener(&notify)),
        die_with_parent: false,
        hold,
        preserve_fds: translated.preserve_fds,
        keep: &[],
        before_pivot: (needs_stop(translated) || start.is_some())
            .then_some(BeforePivot(&before_pivot)),
        hooks: inner.as_ref(),
        start_hooks: start.as_ref(),
        attach: unit
            .filter(|unit| unit.attaches())
            .map(|_| BeforePivot(&attach)),
    };
    // What has translated the bundle is not needed any more.
    hull_sys::memory::unmap_code();
    let launched = launch(host, &translated.plan, &translated.fds, &stdio, &options)
        .map_err(|error| rootless::name_limit(error, &translated.spec))
        .map_err(|error| match inner.as_ref().map(InnerHooks::output) {
            Some(said) if !said.is_empty() => error.context(format!("hooks said: {said}")),
            _ => error,
        })
        .inspect_err(|_| {
            if let Some(class) = class.get() {
                class.remove();
            }
        })?;
    for warning in &launched.process.warnings {
        log.warn(warning);
    }
    let pid = launched.process.pid;
    let known = Record {
        pid,
        // A program that has ended by now has no time; nothing else has time 0 either.
        start_time: start_time(pid).unwrap_or(0),
        cgroup: if launched.cgroup.views().is_empty() {
            String::new()
        } else {
            planned.cgroup.clone()
        },
        root_mount: launched.root_mount,
        rdt: class.get().cloned(),
        ..planned.clone()
    };
    let recorded = entry
        .write(&known)
        .and_then(|()| match (&socket, &launched.process.terminal) {
            (Some(socket), Some(terminal)) => console::hand_over(socket, terminal),
            _ => Ok(()),
        })
        .and_then(|()| match &args.pidfd_socket {
            Some(path) => console::hand_pidfd(path, &launched.process.pidfd),
            None => Ok(()),
        })
        .and_then(|()| pid_file(args.pid_file.as_deref(), pid));
    if let Err(error) = recorded {
        let _ = launched.cgroup.kill_all();
        let _ = hull_sys::pidfd::send_signal(&launched.process.pidfd, SIGKILL);
        let _ = hull_sys::pidfd::wait(&launched.process.pidfd, true);
        launched.cgroup.abandon();
        known.detach_root();
        known.leave_class();
        return Err(error);
    }
    Ok((launched, known))
}

/// Whether something is to be done once the namespaces are there.
fn needs_stop(translated: &Translated) -> bool {
    translated.hooks.needs_stop()
        || !translated.plan.net_devices.is_empty()
        || translated.plan.intel_rdt.is_some()
}

/// What the process gets from outside before hooks see it.
fn prepare_inside(
    translated: &Translated,
    planned: &Record,
    pid: u32,
    class: &OnceCell<rdt::Group>,
) -> Result<()> {
    if let Some(plan) = &translated.plan.intel_rdt {
        // There is no other call for this launch that could have filled it.
        let _ = class.set(rdt::apply(&rdt::find()?, plan, &planned.id, pid)?);
    }
    netdev::move_all(&translated.plan.net_devices, pid)
}

/// Writes the file of `--pid-file`.
pub(crate) fn pid_file(path: Option<&std::path::Path>, pid: u32) -> Result<()> {
    match path {
        Some(path) => write_by_rename(path, pid.to_string().as_bytes()),
        None => Ok(()),
    }
}

/// The record before there is a process: should this program be killed on the way, `delete --force`
/// finds the control group by it.
pub(crate) fn record(args: &Create, translated: &Translated) -> Result<Record> {
    let hull_proto::plan::RootFs::Directory { path: rootfs } = &translated.plan.rootfs else {
        bail!("the plan of a bundle has another root than a folder");
    };
    Ok(Record {
        oci_version: translated.spec.version().clone(),
        id: args.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: spec::bundle_dir(args.bundle.as_deref())?,
        rootfs: rootfs.clone(),
        created: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .context("cannot tell the time")?,
        owner: state::owner(),
        annotations: translated
            .spec
            .annotations()
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        cgroup: translated.plan.cgroup.path.clone(),
        systemd: translated.plan.cgroup.systemd.clone(),
        own_users: translated.plan.namespaces.user != Namespace::Host,
        own_clocks: translated.plan.namespaces.time != Namespace::Host,
        chroot: translated.plan.namespaces.mount != Namespace::New,
        root_mount: None,
        rdt: None,
        hooks: translated.hooks.clone(),
        process: sdnotify::without(translated.plan.process.clone()),
    })
}
