//! `restore`: a container is made of the files of `checkpoint`, by CRIU.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use hull_container::{Host, Started};
use hull_proto::plan::Namespace;
use hull_sys::cgroup::Cgroup;
use hull_sys::{path, pidfd};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{UnmountFlags, mount_bind_recursive, unmount};
use rustix::process::Pid;

use super::checkpoint::DESCRIPTORS;
use super::create::{pid_file, record, start_unit};
use super::exit_code;
use crate::cli::{Create, Restore};
use crate::criu::{self, Criu, Notice, opts};
use crate::log::Log;
use crate::spec::{self, Translated};
use crate::state::{Entry, Record, Store, start_time};
use crate::supervise::{self, Signals};
use crate::{console, rootless, systemd};

const SIGKILL: i32 = 9;

pub(crate) fn restore(
    args: &Restore,
    store: &Store,
    program: &OsStr,
    log: &Log,
) -> Result<ExitCode> {
    let bundle = spec::bundle_dir(args.bundle.as_deref())?;
    let mut translated = spec::translate(&bundle, &args.id, &store.seccomp_cache())?;
    spec::place_cgroup(&translated.spec, &mut translated.plan, store.systemd)?;
    rootless::check(&translated.plan)?;
    translated.said.tell(log);
    let has_tty = translated.plan.process.tty;
    console::check(has_tty, args.detach, args.console_socket.as_deref())?;
    let folders = opts::Folders::open(&args.criu, "restore.log", false)?;
    let signals = if args.detach {
        None
    } else {
        if !args.no_subreaper {
            hull_sys::proc::set_subreaper().context("cannot take in orphans")?;
        }
        Some(Signals::collect()?)
    };
    let mut host = Host::detect()?;
    let entry = store.create(&args.id)?;
    let create = like_create(args);
    let started = start_unit(&create, &mut translated, &entry, &host)
        .and_then(|unit| Ok((record(&create, &translated)?, unit)));
    let (planned, unit) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = entry.remove();
            return Err(error);
        }
    };
    if unit.is_some() {
        host.hierarchies = host.hierarchies.from_mount_points();
    }
    let attempt = Attempt {
        args,
        translated: &translated,
        host: &host,
        entry: &entry,
        planned: &planned,
        unit: unit.as_ref(),
        folders: &folders,
        program,
    };
    let (group, started, record) = match attempt.run(log) {
        Ok(done) => done,
        Err(error) => {
            if let Some(unit) = unit {
                unit.undo();
            }
            spec::remove_parents(&planned.cgroup, &host);
            let _ = entry.remove();
            planned.hooks.after_delete(&planned, log);
            return Err(error);
        }
    };
    // systemd keeps it for the restored process from here on.
    drop(unit);
    record.hooks.after_start(&record, log);
    let Some(signals) = signals else {
        return Ok(ExitCode::SUCCESS);
    };
    let status = supervise::wait(&started, &signals, None);
    let _ = group.kill_all();
    if let Some(unit) = &record.systemd
        && let Err(error) = systemd::stop(unit)
    {
        log.warn(&format!("{error:#}"));
    }
    if let Err(error) = group.remove() {
        log.warn(&error.to_string());
    }
    spec::remove_parents(&record.cgroup, &host);
    entry.remove()?;
    record.hooks.after_delete(&record, log);
    status.map(exit_code)
}

/// What a record is made from.
fn like_create(args: &Restore) -> Create {
    Create {
        bundle: args.bundle.clone(),
        console_socket: args.console_socket.clone(),
        pid_file: args.pid_file.clone(),
        id: args.id.clone(),
        ..Create::default()
    }
}

struct Attempt<'a> {
    args: &'a Restore,
    translated: &'a Translated,
    host: &'a Host,
    entry: &'a Entry,
    planned: &'a Record,
    /// The unit of systemd that its group is.
    unit: Option<&'a systemd::Started>,
    folders: &'a opts::Folders,
    program: &'a OsStr,
}

/// A root that is a mount, as CRIU asks for, while it lives.
struct Root(PathBuf);

impl Root {
    fn make(entry: &Entry, rootfs: &Path) -> Result<Self> {
        let dir = entry.dir().join("criu-root");
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        mount_bind_recursive(rootfs, &dir)
            .with_context(|| format!("cannot mount the root at {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Only its own mount is taken away; if it is gone, all the better.
        let _ = unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = fs::remove_dir(&self.0);
    }
}

type Restored = (Box<dyn Cgroup>, Started, Record);

impl Attempt<'_> {
    fn run(&self, log: &Log) -> Result<Restored> {
        self.entry.write(self.planned)?;
        let mut warnings = Vec::new();
        let plan = &self.translated.plan.cgroup;
        let group = hull_container::create_group(self.host, plan, &mut warnings)?;
        for warning in warnings {
            log.warn(&warning);
        }
        match self.by_criu(group.as_ref()) {
            Ok((started, record)) => Ok((group, started, record)),
            Err(error) => {
                let _ = group.kill_all();
                group.abandon();
                Err(error)
            }
        }
    }

    fn by_criu(&self, group: &dyn Cgroup) -> Result<(Started, Record)> {
        let root = Root::make(self.entry, &self.planned.rootfs)?;
        self.mount_points(&root)?;
        let options = self.options(group, &root)?;
        let passed: Vec<_> = self.translated.fds.iter().map(OwnedFd::as_fd).collect();
        let criu = Criu::start(self.program, &passed)?;
        // What it makes is born in the group, under its limits.
        if let Some(unit) = self.unit.filter(|unit| unit.attaches()) {
            unit.attach(criu.pid())?;
        }
        let by_hand = self.unit.is_none_or(|unit| !unit.attaches());
        for view in group.views().iter().filter(|_| by_hand) {
            let file = view.path.join("cgroup.procs");
            fs::write(&file, criu.pid().to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut terminal = None;
        let pid = criu.call(criu::RESTORE, &options, &self.folders.log, |notice| {
            self.notice(notice, &mut terminal)
        })?;
        drop(root);
        self.record(pid, terminal)
    }

    fn options(&self, group: &dyn Cgroup, root: &Root) -> Result<criu::Message> {
        let args = self.args;
        let plan = &self.translated.plan;
        let mut options = opts::common(&args.criu, self.folders)?;
        options.text(13, &root.0.to_string_lossy());
        options.flag(26, true);
        let is_v2 = self.host.hierarchies.is_v2();
        let views = group.views();
        for (target, source) in opts::outside(plan, &views, is_v2) {
            opts::mount(&mut options, &target, &source);
        }
        for target in opts::masked(plan, &root.0) {
            opts::mask(&mut options, target);
        }
        for view in &views {
            let mut map = criu::Message::default();
            if !view.name.is_empty() {
                map.text(1, &view.name);
            }
            map.text(2, &plan.cgroup.path);
            options.nested(25, &map);
        }
        for (_, name, namespace) in opts::foreign(plan) {
            let fd = match namespace {
                Namespace::Fd(index) => self.translated.fds.get(index),
                _ => None,
            };
            let fd = fd.context("a namespace of the plan is not open")?;
            opts::inherit(&mut options, name, fd.as_raw_fd());
        }
        for (name, number) in self.descriptors()?.iter().zip(0..3) {
            // Pipes have other ends outside; what else there was CRIU opens again.
            if name.starts_with("pipe:") {
                opts::inherit(&mut options, name, number);
            }
        }
        if let Some(profile) = &args.lsm_profile {
            options.text(53, profile);
        }
        if let Some(context) = &args.lsm_mount_context {
            options.text(63, context);
        }
        Ok(options)
    }

    fn descriptors(&self) -> Result<Vec<String>> {
        let path = self.folders.images_path.join(DESCRIPTORS);
        let bytes = fs::read(&path).with_context(|| {
            format!(
                "--image-path: cannot read {}: is it a checkpoint?",
                path.display()
            )
        })?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Where the mounts of the plan go, in a root that may be new.
    fn mount_points(&self, root: &Root) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(&root.0, flags, Mode::empty()).context("cannot open the root")?;
        for mount in &self.translated.plan.mounts {
            let target = Path::new(&mount.target);
            let is_file = match &mount.kind {
                hull_proto::plan::MountKind::Bind { source, .. } => source.is_file(),
                _ => false,
            };
            let made = match (path::resolve(dir.as_fd(), target), is_file) {
                (Ok(_), _) => Ok(()),
                (Err(_), false) => {
                    path::mkdir_all(dir.as_fd(), target, Mode::from_raw_mode(0o755)).map(drop)
                }
                (Err(_), true) => {
                    path::create_file(dir.as_fd(), target, Mode::from_raw_mode(0o644)).map(drop)
                }
            };
            // A mount inside another mount is made with that one.
            if let Err(error) = made
                && error != rustix::io::Errno::ROFS
            {
                return Err(error)
                    .with_context(|| format!("cannot make the mount point {}", mount.target));
            }
        }
        Ok(())
    }

    fn notice(&self, notice: Notice, terminal: &mut Option<OwnedFd>) -> Result<()> {
        match notice.script.as_str() {
            "setup-namespaces" => {
                self.translated
                    .hooks
                    .on_create(self.planned, notice.pid, None, None)
            }
            "orphan-pts-master" => {
                let fd = notice.fd.context("criu sent no terminal")?;
                match &self.args.console_socket {
                    Some(path) => console::hand_over(&console::connect(path)?, &fd)?,
                    None => *terminal = Some(fd),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Records what is there now; kills it if that cannot be done.
    fn record(&self, pid: u32, terminal: Option<OwnedFd>) -> Result<(Started, Record)> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let id = id.context("criu named no process")?;
        let handle = pidfd::open(id).context("the restored process is gone")?;
        let known = Record {
            pid,
            start_time: start_time(pid).unwrap_or(0),
            ..self.planned.clone()
        };
        let recorded = self
            .entry
            .write(&known)
            .and_then(|()| pid_file(self.args.pid_file.as_deref(), pid));
        if let Err(error) = recorded {
            let _ = pidfd::send_signal(&handle, SIGKILL);
            return Err(error);
        }
        let started = Started {
            pid,
            pidfd: handle,
            terminal,
            warnings: Vec::new(),
        };
        Ok((started, known))
    }
}
