//! Launching a container: prepare, clone, read the report.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_proto::LaunchPlan;
use hull_proto::plan::{Namespace, RootFs};
use hull_sys::cgroup::Cgroup;
use hull_sys::clone3::Cloned;
use hull_sys::{Errno, path, pidfd};

use crate::devices::PreparedDev;
use crate::enter::Manner;
use crate::hook::InnerHooks;
use crate::hostmounts::HostMounts;
use crate::idmap::IdMaps;
use crate::init::{self, PreparedInit};
use crate::listener::{self, Listener};
use crate::makers::{self, Makers};
use crate::mounts::{PreparedMount, bind_over};
use crate::paths::PreparedPaths;
use crate::process::{INIT_PATH, PreparedProcess, Started};
use crate::report::{self, Failed, Reports, Step};
use crate::rootchange::RootChange;
use crate::rootfs::{PreparedRoot, c_path, open_path};
use crate::served::Served;
use crate::spaces::Spaces;
use crate::spawn::{spawn, spawn_between};
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
    /// The program gets as many of the caller's descriptors from 3 on, which must not be
    /// close-on-exec.
    pub preserve_fds: u32,
    /// The program gets these of the caller's, under the numbers they have.
    pub keep: &'a [OwnedFd],
    /// Called for a process that others must bring into its control group, while it waits for
    /// the mappings of its new user namespace: the caller may not move processes there himself.
    pub attach: Option<BeforePivot<'a>>,
    /// Called once all mounts and devices are in place and before the root is changed.
    pub before_pivot: Option<BeforePivot<'a>>,
    /// Run by the process itself right after that, in its namespaces; needs `before_pivot`.
    pub hooks: Option<&'a InnerHooks>,
    /// Run by the process itself once it was let go on, right before its program; needs `hold`.
    pub start_hooks: Option<&'a InnerHooks>,
    /// Who answers for a filter that notifies.
    pub listener: Option<Listener<'a>>,
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
    /// Id of the mount that is its root, if that lies in the caller's mount namespace: to be
    /// detached by [`crate::detach_root`] once the container is gone.
    pub root_mount: Option<u64>,
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
        Ok((mut process, root_mount)) => {
            warnings.append(&mut process.warnings);
            process.warnings = warnings;
            Ok(Launched {
                process,
                cgroup,
                root_mount,
            })
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
) -> Result<(Started, Option<u64>), LaunchError> {
    let spaces = Spaces::prepare(plan, descriptors)?;
    let makers = Makers::choose(plan, &spaces, host.hierarchies.is_v2())?;
    let binds_by_child = makers.binds_by_child();
    let root = makers.root(&plan.rootfs, host.features)?;
    let host_mounts = HostMounts::prepare(plan, &root, descriptors)?;
    let shares_mounts = plan.namespaces.mount != Namespace::New;
    let views = cgroup.views();
    let mut mounts = Vec::with_capacity(plan.mounts.len() + 1);
    let mut idmaps = IdMaps::default();
    for mount in makers.mounts(&plan.mounts, &views).iter() {
        mounts.push(makers.mount(mount, host, &views, descriptors, &mut idmaps)?);
    }
    let late = spaces.user.is_some() || makers::leaves_devpts(&plan.mounts);
    let (stdio, terminal) = if plan.process.tty && late {
        (PreparedStdio::Late, None)
    } else if plan.process.tty {
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
    let mut process = PreparedProcess::prepare(
        &plan.process,
        stdio,
        &databases,
        host,
        &plan.seccomp_cache,
        plan.init.is_some(),
    )?;
    listener::check(&process, options.listener)?;
    // Its file in /proc cannot be written from a user namespace.
    let oom_score = spaces
        .user
        .as_ref()
        .and_then(|_| process.oom_score_adj.take());
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
        spaces,
        own_cgroup_namespace: plan.namespaces.cgroup == Namespace::New,
        own_network: plan.namespaces.net == Namespace::New,
        root,
        read_only_root: plan.readonly_rootfs,
        dev: PreparedDev::prepare(&plan.devices, &plan.mounts)?,
        mounts,
        paths: PreparedPaths::prepare(masked, &plan.readonly_paths, binds_by_child)?,
        sysctls: sysctl::prepare(&plan.sysctls, &plan.namespaces)?,
        host_name: name(&plan.hostname),
        domain_name: name(&plan.domainname),
        slot: if shares_mounts || options.before_pivot.is_some() {
            init_slot(&plan.rootfs).transpose()?
        } else {
            None
        },
        root_change: RootChange::prepare(plan)?,
        shares_mounts,
        before_pivot: options.before_pivot.is_some(),
    };
    let manner = Manner {
        features: host.features,
        die_with_parent: options.die_with_parent,
        hold: options.hold.as_ref(),
        preserve_fds: options.preserve_fds,
        keep: options.keep,
        hooks: options.hooks,
        start_hooks: options.start_hooks,
    };
    let (reports, reporter) = report::pipe()?;
    let mut stages: Vec<Stage> = init.spaces.stages().collect();
    stages.extend(process.stdio.is_late().then_some(Stage::Terminal));
    stages.extend(options.before_pivot.map(|_| Stage::BeforePivot));
    let attach = options.attach.filter(|_| stages.contains(&Stage::Mapped));
    let elsewhere = attach.and_then(|_| cgroup::not_joined());
    let cgroup = elsewhere.as_deref().unwrap_or(cgroup);
    let (parent, waiter) = sync_pair(&stages)?;
    let sync = waiter.as_ref();
    let child = |files: &[OwnedFd]| {
        reporter.fail(init::run(&init, &process, files, &manner, sync, &reporter))
    };
    let spaces = &init.spaces;
    let cloned = match sync.filter(|_| spaces.between) {
        Some(sync) => {
            let walk = || spaces.walk(sync, oom_score.as_deref(), &reporter);
            spawn_between(cgroup, spaces.new, sync, &reporter, walk, child)?
        }
        None => spawn(cgroup, spaces.new, spaces.pid.as_ref(), child)?,
    };
    drop(reporter);
    drop(waiter);
    let mut served = Served::new(cloned, terminal);
    if let Some(parent) = parent {
        let done = parent.serve(&stages, |message| match message.stage {
            Stage::Mapped => served
                .map(&init.spaces, oom_score.as_deref())
                .and_then(|()| served.call(attach)),
            Stage::Born => served.born(message),
            Stage::Terminal => served.terminal(message, plan.process.console_size),
            Stage::BeforePivot => served.call(options.before_pivot),
        });
        served.check(done, stages.contains(&Stage::Born), &reports)?;
    }
    let hook = |failed: &Failed| match failed.step {
        Step::Hook | Step::HookStatus => options.hooks?.path(failed.index),
        _ => None,
    };
    let item = |failed: &Failed| {
        hook(failed)
            .or_else(|| item(failed, plan, &init))
            .or_else(|| process.item(failed))
    };
    let held = options.hold.is_some();
    listener::serve(&process, &served.cloned, &reports, options.listener, held)?;
    let mut started = finish(
        served.cloned,
        &reports,
        served.terminal,
        item,
        plan.process.args.first(),
    )?;
    started.warnings.append(&mut served.warnings);
    Ok((started, host_mounts.and_then(HostMounts::keep)))
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
            (Step::HookStatus, status) => {
                let hook = item(&failed).unwrap_or_default();
                let status = status.raw_os_error();
                LaunchError::Stopped(format!(
                    "createContainer hook {hook} failed: exit status {status}"
                ))
            }
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
        Step::Target
        | Step::MountOverProc
        | Step::Mount
        | Step::MountSource
        | Step::CopyUp
        | Step::MountOptions => init.mounts.get(failed.index).map(PreparedMount::describe),
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
