//! Launching a container: prepare, clone, read the report.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_proto::LaunchPlan;
use hull_proto::plan::{Namespace, RootFs};
use hull_sys::cgroup::{Cgroup, Entry};
use hull_sys::clone3::{Clone3, Cloned, Namespaces, clone3};
use hull_sys::{Errno, ns, path, pidfd};

use crate::devices::PreparedDev;
use crate::enter::Manner;
use crate::error::prepare;
use crate::init::{self, PreparedInit};
use crate::mounts::{PreparedMount, bind_over};
use crate::paths::PreparedPaths;
use crate::process::{INIT_PATH, PreparedProcess, Started};
use crate::report::{self, Failed, Reports, Step};
use crate::rootfs::{PreparedRoot, c_path, open_path};
use crate::stdio::{PreparedStdio, Stdio};
use crate::sync::{self, ChildSync, ParentSync, Stage};
use crate::user::{self, Databases};
use crate::{Host, LaunchError, cgroup, sysctl};

/// How to launch.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The process gets SIGKILL when the calling thread ends.
    pub die_with_parent: bool,
    /// Prepare everything, return, and let the process wait for one byte from here before it
    /// executes its program. Failures of the program itself are then not reported.
    pub hold: Option<OwnedFd>,
    /// Called once all mounts and devices are in place and before the root is changed.
    pub before_pivot: Option<BeforePivot<'a>>,
}

/// What a launch calls before the root is changed, with the host's id of the process. The process
/// waits meanwhile; after an error it is killed and nothing is left.
#[derive(Clone, Copy)]
pub struct BeforePivot<'a>(pub &'a dyn Fn(u32) -> Result<(), LaunchError>);

impl std::fmt::Debug for BeforePivot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BeforePivot")
    }
}

/// A container that runs.
#[derive(Debug)]
pub struct Launched {
    /// Its first process.
    pub process: Started,
    /// Its control group.
    pub cgroup: Box<dyn Cgroup>,
}

/// Makes the container of the plan and runs its first process.
///
/// `descriptors` are those that the plan's namespaces name by index. The caller reaps the
/// process. On failure nothing is left: no process, no mount, no control group.
///
/// # Errors
/// See [`LaunchError`]; [`LaunchError::kind`] tells a missing program from the rest.
pub fn launch(
    host: &Host,
    plan: &LaunchPlan,
    descriptors: &[OwnedFd],
    stdio: &Stdio<'_>,
    options: &Options<'_>,
) -> Result<Launched, LaunchError> {
    let mut warnings = Vec::new();
    let cgroup = cgroup::create(host, &plan.cgroup, &mut warnings)?;
    match launch_in(host, plan, descriptors, stdio, options, cgroup.as_ref()) {
        Ok(mut process) => {
            warnings.append(&mut process.warnings);
            process.warnings = warnings;
            Ok(Launched { process, cgroup })
        }
        Err(error) => {
            // With a shared pid namespace a child of the child may be left.
            let _ = cgroup.kill_all();
            cgroup.abandon();
            Err(error)
        }
    }
}

fn launch_in(
    host: &Host,
    plan: &LaunchPlan,
    descriptors: &[OwnedFd],
    stdio: &Stdio<'_>,
    options: &Options<'_>,
    cgroup: &dyn Cgroup,
) -> Result<Started, LaunchError> {
    let root = PreparedRoot::prepare(&plan.rootfs, host.features)?;
    let views = cgroup.views();
    let mut mounts = Vec::with_capacity(plan.mounts.len() + 1);
    for mount in &plan.mounts {
        mounts.push(PreparedMount::prepare(mount, host, &views, descriptors)?);
    }
    let (stdio, terminal) = if plan.process.tty {
        let devpts = mounts
            .iter()
            .zip(&plan.mounts)
            .find_map(|(made, plan)| made.as_devpts(plan));
        let (stdio, master) = PreparedStdio::terminal(devpts, plan.process.console_size)?;
        (stdio, Some(master))
    } else {
        (PreparedStdio::streams(stdio)?, None)
    };
    if let Some(source) = &plan.init {
        mounts.push(PreparedMount::file(source, INIT_PATH, host)?);
    }
    let databases = databases(plan, &root)?;
    let process = PreparedProcess::prepare(
        &plan.process,
        stdio,
        &databases,
        host,
        &plan.seccomp_cache,
        plan.init.is_some(),
    )?;
    let spaces = Spaces::prepare(plan, descriptors)?;
    let own_uts = plan.namespaces.uts == Namespace::New;
    let name = |text: &str| {
        if own_uts {
            text.as_bytes().to_vec()
        } else {
            Vec::new()
        }
    };
    let hidden = match &plan.rootfs {
        RootFs::Host { hidden, .. } => hidden.as_slice(),
        _ => &[],
    };
    let hidden = hidden
        .iter()
        .map(|path| path.to_string_lossy().into_owned());
    let masked = plan.masked_paths.iter().cloned().chain(hidden);
    let init = PreparedInit {
        join: spaces.join,
        own_cgroup_namespace: plan.namespaces.cgroup == Namespace::New,
        own_network: plan.namespaces.net == Namespace::New,
        root,
        read_only_root: plan.readonly_rootfs,
        dev: PreparedDev::prepare(&plan.devices, &plan.mounts)?,
        mounts,
        paths: PreparedPaths::prepare(masked, &plan.readonly_paths)?,
        sysctls: sysctl::prepare(&plan.sysctls, &plan.namespaces)?,
        host_name: name(&plan.hostname),
        domain_name: name(&plan.domainname),
        slot: options
            .before_pivot
            .and_then(|_| init_slot(&plan.rootfs))
            .transpose()?,
        before_pivot: options.before_pivot.is_some(),
    };
    let manner = Manner {
        features: host.features,
        die_with_parent: options.die_with_parent,
        hold: options.hold.as_ref(),
    };
    let (reports, reporter) = report::pipe()?;
    let stages: &[Stage] = if options.before_pivot.is_some() {
        &[Stage::BeforePivot]
    } else {
        &[]
    };
    let (parent, waiter) = sync_pair(stages)?;
    let cloned = spawn(cgroup, spaces.new, spaces.pid.as_ref(), |files| {
        let waiter = waiter.as_ref();
        reporter.fail(init::run(
            &init, &process, files, &manner, waiter, &reporter,
        ))
    })?;
    drop(reporter);
    drop(waiter);
    let served = parent.map_or(Ok(()), |parent| {
        let pid = cloned.pid.as_raw_nonzero().get().unsigned_abs();
        parent.serve(stages, |stage| match stage {
            Stage::Mapped => Ok(()),
            Stage::BeforePivot => options
                .before_pivot
                .map_or(Ok(()), |BeforePivot(call)| call(pid)),
        })
    });
    if let Err(error) = served {
        let _ = pidfd::send_signal(&cloned.pidfd, libc::SIGKILL);
        let _ = pidfd::wait(&cloned.pidfd, true);
        return Err(error);
    }
    let item = |failed: &Failed| item(failed, plan, &init).or_else(|| process.item(failed));
    finish(cloned, &reports, terminal, item, plan.process.args.first())
}

/// Where on the host the root is attached when others look at it before the pivot: they join the
/// mount namespace, which puts them on top of whatever lies on the host's root.
fn init_slot(root: &RootFs) -> Option<Result<std::ffi::CString, LaunchError>> {
    match root {
        RootFs::Directory { path } => Some(c_path(path)),
        RootFs::Overlay { .. } | RootFs::Host { .. } => None,
    }
}

fn sync_pair(stages: &[Stage]) -> Result<(Option<ParentSync>, Option<ChildSync>), LaunchError> {
    if stages.is_empty() {
        return Ok((None, None));
    }
    sync::pair().map(|(parent, child)| (Some(parent), Some(child)))
}

/// Clones into the group: by the clone itself or with the files the child writes to.
pub(crate) fn spawn(
    cgroup: &dyn Cgroup,
    namespaces: Namespaces,
    pid_namespace: Option<&OwnedFd>,
    child: impl Fn(&[OwnedFd]) -> i32,
) -> Result<Cloned, LaunchError> {
    // It may be born in another container's pid namespace: closed to others from birth on.
    let _closed = NotDumpable::set()?;
    let _restore = pid_namespace.map(ChildPidNamespace::enter).transpose()?;
    let plain = Clone3 {
        namespaces,
        cgroup: None,
        sibling: false,
    };
    let cloned = match cgroup.entry() {
        Entry::Clone(dir) => {
            match clone3(
                &Clone3 {
                    cgroup: Some(dir),
                    ..plain
                },
                || child(&[]),
            ) {
                // A kernel or a sandbox without it: the child moves itself.
                Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::ACCESS) => {
                    clone3(&plain, || child(cgroup.join_files()))
                }
                result => result,
            }
        }
        Entry::Write(files) => clone3(&plain, || child(files)),
    };
    cloned.map_err(prepare("clone a process with its namespaces"))
}

/// While it lives, children of this thread are born in another pid namespace: one clone is
/// enough where joining in the child would take two.
struct ChildPidNamespace(OwnedFd);

impl ChildPidNamespace {
    fn enter(namespace: &OwnedFd) -> Result<Self, LaunchError> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::empty();
        let own = rustix::fs::open(c"/proc/thread-self/ns/pid", flags, mode)
            .map_err(prepare("open the own pid namespace"))?;
        ns::join(namespace, Namespaces::PID).map_err(prepare("join a pid namespace"))?;
        Ok(Self(own))
    }
}

impl Drop for ChildPidNamespace {
    fn drop(&mut self) {
        // It was this thread's a moment ago and cannot be refused.
        let _ = ns::join(&self.0, Namespaces::PID);
    }
}

/// While it lives, this process and its copies cannot be looked into.
struct NotDumpable(bool);

impl NotDumpable {
    fn set() -> Result<Self, LaunchError> {
        use rustix::process::{DumpableBehavior, dumpable_behavior};
        let was = matches!(dumpable_behavior(), Ok(DumpableBehavior::Dumpable));
        hull_sys::proc::set_dumpable(false).map_err(prepare("close the process to others"))?;
        Ok(Self(was))
    }
}

impl Drop for NotDumpable {
    fn drop(&mut self) {
        if self.0 {
            let _ = hull_sys::proc::set_dumpable(true);
        }
    }
}

/// Reads the report to its end and turns it into words.
pub(crate) fn finish(
    cloned: Cloned,
    reports: &Reports,
    terminal: Option<OwnedFd>,
    item: impl Fn(&Failed) -> Option<String>,
    program: Option<&String>,
) -> Result<Started, LaunchError> {
    let told = reports.read();
    if let Some(failed) = told.failed {
        let _ = pidfd::wait(&cloned.pidfd, true);
        let program = program.cloned().unwrap_or_default();
        return Err(match (failed.step, failed.errno) {
            (Step::Exec, Errno::NOENT | Errno::NOTDIR) => LaunchError::NotFound { program },
            (Step::Exec, source) => LaunchError::NotExecutable { program, source },
            (step, source) => LaunchError::Step {
                kind: step.kind(),
                action: failed.action(item(&failed).as_deref()),
                source,
            },
        });
    }
    let warnings = told
        .warnings
        .iter()
        .map(|warning| {
            let action = warning.action(item(warning).as_deref());
            format!("the host forbids to {action} as asked: the highest allowed value is kept")
        })
        .collect();
    Ok(Started {
        pid: cloned.pid.as_raw_nonzero().get().unsigned_abs(),
        pidfd: cloned.pidfd,
        terminal,
        warnings,
    })
}

/// What a step of the first half was about.
fn item(failed: &Failed, plan: &LaunchPlan, init: &PreparedInit) -> Option<String> {
    match failed.step {
        Step::Target | Step::MountOverProc | Step::Mount | Step::MountOptions => init
            .mounts
            .get(failed.index)
            .map(|mount| mount.target.as_str().to_owned()),
        Step::Device => plan
            .devices
            .get(failed.index)
            .map(|device| device.path.clone()),
        Step::Sysctl => plan.sysctls.keys().nth(failed.index).cloned(),
        Step::Masked => plan.masked_paths.get(failed.index).cloned(),
        Step::ReadOnly => plan.readonly_paths.get(failed.index).cloned(),
        Step::HostName => Some(plan.hostname.clone()),
        _ => None,
    }
}

/// passwd and group as the container will see them: a bind may cover the image's.
fn databases(plan: &LaunchPlan, root: &PreparedRoot) -> Result<Databases, LaunchError> {
    let mut databases = root.databases()?;
    let files = [
        ("/etc/passwd", &mut databases.passwd),
        ("/etc/group", &mut databases.group),
    ];
    for (file, text) in files {
        let Some((source, rest)) = bind_over(&plan.mounts, file) else {
            continue;
        };
        let fail = |errno| LaunchError::Source {
            path: source.to_owned(),
            target: file.to_owned(),
            source: errno,
        };
        // The bind is of the file or of a folder above it.
        let opened = open_path(source).map_err(fail)?;
        *text = if path::is_dir(&opened).map_err(fail)? {
            let rest = rest.to_string_lossy();
            user::read(opened.as_fd(), Path::new(rest.as_ref()), file)?
        } else {
            let parent = open_path(source.parent().unwrap_or(Path::new("/"))).map_err(fail)?;
            let name = Path::new(source.file_name().unwrap_or_default());
            user::read(parent.as_fd(), name, file)?
        };
    }
    Ok(databases)
}

/// The namespaces: new ones for the clone, given ones for the child to join.
struct Spaces {
    new: Namespaces,
    join: Vec<(OwnedFd, Namespaces)>,
    pid: Option<OwnedFd>,
}

impl Spaces {
    fn prepare(plan: &LaunchPlan, descriptors: &[OwnedFd]) -> Result<Self, LaunchError> {
        let wanted = &plan.namespaces;
        let mut spaces = Self {
            new: Namespaces::MOUNT,
            join: Vec::new(),
            pid: None,
        };
        let take = |index: usize| {
            let given = descriptors.get(index).ok_or_else(|| {
                LaunchError::Plan(format!(
                    "the plan names descriptor {index}, which was not sent"
                ))
            })?;
            report::duplicate(given.as_fd())
        };
        for (namespace, kind) in [
            (wanted.net, Namespaces::NET),
            (wanted.ipc, Namespaces::IPC),
            (wanted.uts, Namespaces::UTS),
        ] {
            match namespace {
                Namespace::New => spaces.new = spaces.new.with(kind),
                Namespace::Host => {}
                Namespace::Fd(index) => spaces.join.push((take(index)?, kind)),
            }
        }
        match wanted.pid {
            Namespace::New => spaces.new = spaces.new.with(Namespaces::PID),
            Namespace::Host => {}
            Namespace::Fd(index) => spaces.pid = Some(take(index)?),
        }
        if let Namespace::Fd(index) = wanted.cgroup {
            spaces.join.push((take(index)?, Namespaces::CGROUP));
        }
        Ok(spaces)
    }
}
