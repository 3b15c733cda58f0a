//! A container's record becomes a launch plan: plain data in, plain data out.

use std::path::{Path, PathBuf};

use hull_model::spec::{ContainerSpec, NamespaceMode, NetworkMode, SeccompChoice};
use hull_model::{Error, Result};
use hull_proto::plan::{
    CgroupPlan, DeviceRule, LaunchPlan, MountKind, MountOptions, Namespace, Namespaces, PlanDevice,
    PlanMount, PlanUser, ProcessPlan, RootFs, SeccompPlan,
};
use hull_state::{ContainerRecord, MountPoint};

use super::{caps, devices};

/// PATH where the image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Default size of /dev/shm, bytes.
const SHM_SIZE: i64 = 64 << 20;

/// Hidden where they exist: they tell of, or act on, the whole machine.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the plan needs besides the record.
#[derive(Debug)]
pub(crate) struct Surroundings<'a> {
    /// Root file system.
    pub rootfs: RootFs,
    /// Namespaces as they were resolved to descriptors.
    pub namespaces: Namespaces,
    /// /etc/hosts, /etc/hostname and /etc/resolv.conf: folder that holds them, if they are ours.
    pub files: Option<&'a Path>,
    /// /dev/shm of another container or the host, with `--ipc`.
    pub foreign_shm: Option<MountKind>,
    /// Parent control group.
    pub cgroup_parent: &'a str,
    /// Our init.
    pub init: PathBuf,
    /// Folder of compiled seccomp programs.
    pub seccomp_cache: PathBuf,
}

/// Plans the launch of a container.
///
/// # Errors
/// If the record asks for a capability, device or kernel parameter that cannot be had.
pub(crate) fn launch(record: &ContainerRecord, around: Surroundings<'_>) -> Result<LaunchPlan> {
    let spec = &record.spec;
    let mut devices = devices::Devices::default_set(spec.privileged);
    for device in &spec.devices {
        devices.add(device)?;
    }
    if spec.privileged {
        devices.add_all_of_host();
    }
    let mut rules = devices.rules;
    for rule in &spec.device_rules {
        rules.push(devices::parse_rule(rule)?);
    }
    check_sysctls(spec)?;
    let process = process(record)?;
    let private_uts = around.namespaces.uts == Namespace::New;
    Ok(LaunchPlan {
        id: record.id.clone(),
        readonly_rootfs: spec.readonly_rootfs,
        hostname: if private_uts {
            hostname(record)
        } else {
            String::new()
        },
        domainname: if private_uts {
            spec.domainname.clone()
        } else {
            String::new()
        },
        mounts: mounts(record, &around),
        devices: devices.nodes,
        masked_paths: if spec.privileged {
            Vec::new()
        } else {
            strings(&MASKED)
        },
        readonly_paths: if spec.privileged {
            Vec::new()
        } else {
            strings(&READ_ONLY)
        },
        sysctls: spec.sysctls.clone(),
        cgroup: CgroupPlan {
            path: cgroup_path(record, around.cgroup_parent),
            resources: spec.resources.clone(),
            devices: rules,
            ..CgroupPlan::default()
        },
        init: spec.init.then_some(around.init),
        process,
        seccomp_cache: around.seccomp_cache,
        mounts_go_late: mounts_go_late(record),
        rootfs: around.rootfs,
        namespaces: around.namespaces,
        ..LaunchPlan::default()
    })
}

/// Whether nobody can miss the mounts for a moment after the end: the container vanishes, has
/// nothing of the user's mounted, and cannot mount by itself. Else a file system of the user's
/// could be busy after his command has returned, or a layer be mounted twice by the next start.
fn mounts_go_late(record: &ContainerRecord) -> bool {
    let spec = &record.spec;
    spec.auto_remove && record.mounts.is_empty() && !spec.privileged && spec.cap_add.is_empty()
}

/// Path of the container's control group.
pub(crate) fn cgroup_path(record: &ContainerRecord, parent: &str) -> String {
    let parent = if record.spec.cgroup_parent.is_empty() {
        parent
    } else {
        &record.spec.cgroup_parent
    };
    format!("/{}/{}", parent.trim_matches('/'), record.id)
}

/// The host name a container shows.
pub(crate) fn hostname(record: &ContainerRecord) -> String {
    if record.spec.hostname.is_empty() && record.spec.network == NetworkMode::Host {
        crate::system::host::name()
    } else if record.spec.hostname.is_empty() {
        record.id.get(..12).unwrap_or(&record.id).to_owned()
    } else {
        record.spec.hostname.clone()
    }
}

/// The first process.
fn process(record: &ContainerRecord) -> Result<ProcessPlan> {
    let spec = &record.spec;
    let args: Vec<String> = spec.entrypoint.iter().chain(&spec.cmd).cloned().collect();
    if args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid(
            "no command specified: the image has none, so give one after the image's name",
        ));
    }
    let mut process = base_process(spec)?;
    process.args = args;
    process.env = environment(record);
    process.tty = spec.tty;
    process.oom_score_adj = spec.oom_score_adj;
    process.seccomp = seccomp(spec);
    Ok(process)
}

/// The system call filter of a container's processes.
pub(crate) fn seccomp(spec: &ContainerSpec) -> SeccompPlan {
    match &spec.seccomp {
        _ if spec.privileged => SeccompPlan::Unconfined,
        SeccompChoice::Default => SeccompPlan::Default,
        SeccompChoice::Unconfined => SeccompPlan::Unconfined,
        SeccompChoice::Profile(text) => SeccompPlan::Profile(text.clone()),
    }
}

/// What first and later processes of a container share.
pub(crate) fn base_process(spec: &ContainerSpec) -> Result<ProcessPlan> {
    Ok(ProcessPlan {
        cwd: if spec.working_dir.is_empty() {
            "/".into()
        } else {
            spec.working_dir.clone()
        },
        user: PlanUser::Name(spec.user.clone()),
        group_add: spec.group_add.clone(),
        capabilities: caps::resolve(&spec.cap_add, &spec.cap_drop, spec.privileged)?,
        no_new_privileges: spec.no_new_privileges,
        rlimits: spec.ulimits.clone(),
        ..ProcessPlan::default()
    })
}

/// The environment: PATH, HOSTNAME and TERM first, so that what the image or user says wins.
pub(crate) fn environment(record: &ContainerRecord) -> Vec<String> {
    let spec = &record.spec;
    let mut env = vec![
        DEFAULT_PATH.to_owned(),
        format!("HOSTNAME={}", hostname(record)),
    ];
    if spec.tty {
        env.push("TERM=xterm".into());
    }
    for entry in &spec.env {
        set_env(&mut env, entry);
    }
    if spec.requested_at_us > 0 && spec.image.contains("hull/hello") {
        env.push(format!("HULL_REQUEST_TIME_US={}", spec.requested_at_us));
    }
    env
}

/// Sets one variable; a bare name takes it out.
pub(crate) fn set_env(env: &mut Vec<String>, entry: &str) {
    let name = entry.split('=').next().unwrap_or_default();
    let place = env.iter().position(|e| e.split('=').next() == Some(name));
    match (place, entry.contains('=')) {
        (Some(i), true) => {
            if let Some(old) = env.get_mut(i) {
                *old = entry.to_owned();
            }
        }
        (Some(i), false) => drop(env.remove(i)),
        (None, true) => env.push(entry.to_owned()),
        (None, false) => {}
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn mounts(record: &ContainerRecord, around: &Surroundings<'_>) -> Vec<PlanMount> {
    let spec = &record.spec;
    let safe = MountOptions {
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountOptions::default()
    };
    let mount = |target: &str, kind, options: &MountOptions| PlanMount {
        target: target.into(),
        kind,
        options: options.clone(),
    };
    let tmpfs = |data: String| MountKind::Tmpfs { data };
    let no_exec = MountOptions {
        nosuid: true,
        noexec: true,
        ..MountOptions::default()
    };
    let sys = MountOptions {
        read_only: !spec.privileged,
        ..safe.clone()
    };
    let shm = match &around.foreign_shm {
        Some(kind) => kind.clone(),
        None => tmpfs(format!(
            "mode=1777,size={}",
            spec.shm_size.filter(|s| *s > 0).unwrap_or(SHM_SIZE)
        )),
    };
    let mut list = vec![
        mount("/proc", MountKind::Proc, &safe),
        mount(
            "/dev",
            tmpfs("mode=755,size=65536k".into()),
            &MountOptions {
                nosuid: true,
                ..MountOptions::default()
            },
        ),
        mount("/dev/pts", MountKind::Devpts, &no_exec),
        mount("/sys", MountKind::Sysfs, &sys),
        mount("/sys/fs/cgroup", MountKind::Cgroup, &sys),
        mount("/dev/mqueue", MountKind::Mqueue, &safe),
        mount("/dev/shm", shm, &safe),
    ];
    let taken = |target: &str| record.mounts.iter().any(|m| m.target == target);
    if let Some(files) = around.files {
        for (target, name) in [
            ("/etc/resolv.conf", "resolv.conf"),
            ("/etc/hostname", "hostname"),
            ("/etc/hosts", "hosts"),
        ] {
            if !taken(target) {
                let kind = MountKind::Bind {
                    source: files.join(name),
                    recursive: false,
                };
                list.push(mount(
                    target,
                    kind,
                    &MountOptions {
                        read_only: false,
                        ..MountOptions::default()
                    },
                ));
            }
        }
    }
    list.retain(|m| !taken(&m.target));
    // Outer targets first, whatever the order of the flags.
    let mut own: Vec<&MountPoint> = record.mounts.iter().collect();
    own.sort_by_key(|m| m.target.split('/').filter(|p| !p.is_empty()).count());
    list.extend(own.into_iter().map(user_mount));
    list
}

fn user_mount(point: &MountPoint) -> PlanMount {
    let is_tmpfs = point.kind == "tmpfs";
    let flag = |name: &str| is_tmpfs && point.data.split(',').any(|o| o == name);
    let kind = if is_tmpfs {
        let data: Vec<&str> = point.data.split(',').filter(|o| o.contains('=')).collect();
        MountKind::Tmpfs {
            data: data.join(","),
        }
    } else {
        MountKind::Bind {
            source: point.source.clone().into(),
            recursive: !point.non_recursive,
        }
    };
    // Docker's tmpfs is noexec, nosuid, nodev unless the options say otherwise.
    let options = MountOptions {
        read_only: !point.rw || flag("ro"),
        nosuid: is_tmpfs && !flag("suid"),
        nodev: is_tmpfs && !flag("dev"),
        noexec: is_tmpfs && !flag("exec"),
        recursive_read_only: !point.rw && !is_tmpfs,
        propagation: point.propagation.clone(),
        ..MountOptions::default()
    };
    PlanMount {
        target: point.target.clone(),
        kind,
        options,
    }
}

/// Kernel parameters that belong to a namespace the container has of its own.
fn check_sysctls(spec: &ContainerSpec) -> Result<()> {
    const IPC: [&str; 9] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.auto_msgmni",
    ];
    for name in spec.sysctls.keys() {
        let ipc = IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
        let net = name.starts_with("net.");
        if !ipc && !net {
            return Err(Error::invalid(format!(
                "sysctl \"{name}\" is not in a namespace of the container: only net.*, fs.mqueue.* and System V IPC are"
            )));
        }
        if net && spec.network == NetworkMode::Host {
            return Err(Error::invalid(format!(
                "sysctl \"{name}\" not allowed in host network namespace"
            )));
        }
        if ipc && spec.ipc_mode == NamespaceMode::Host {
            return Err(Error::invalid(format!(
                "sysctl \"{name}\" not allowed in host ipc namespace"
            )));
        }
        if name.contains('/') || name.contains("..") {
            return Err(Error::invalid(format!(
                "sysctl \"{name}\": write it with dots"
            )));
        }
    }
    Ok(())
}

/// Re-exported for the device table.
pub(super) fn deny_all() -> DeviceRule {
    DeviceRule {
        allow: false,
        kind: 'a',
        major: None,
        minor: None,
        access: "rwm".into(),
    }
}

/// A device node with the usual owner.
pub(super) fn node(path: &str, major: u32, minor: u32) -> PlanDevice {
    PlanDevice {
        path: path.into(),
        block: false,
        fifo: false,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ContainerRecord {
        let mut record = ContainerRecord {
            id: "ab".repeat(32),
            ..ContainerRecord::default()
        };
        record.spec.cmd = vec!["true".into()];
        record
    }

    fn around() -> Surroundings<'static> {
        Surroundings {
            rootfs: RootFs::default(),
            namespaces: Namespaces::default(),
            files: None,
            foreign_shm: None,
            cgroup_parent: "/hull",
            init: "/init".into(),
            seccomp_cache: "/cache".into(),
        }
    }

    #[test]
    fn mounts_go_late_only_where_nobody_can_miss_them() {
        assert!(!launch(&record(), around()).unwrap().mounts_go_late);
        let mut vanishing = record();
        vanishing.spec.auto_remove = true;
        assert!(launch(&vanishing, around()).unwrap().mounts_go_late);
        let mut mounting = vanishing.clone();
        mounting.spec.cap_add = vec!["SYS_ADMIN".into()];
        assert!(!launch(&mounting, around()).unwrap().mounts_go_late);
        let mut bound = vanishing.clone();
        bound.mounts = vec![MountPoint::default()];
        assert!(!mounts_go_late(&bound));
        vanishing.spec.privileged = true;
        assert!(!mounts_go_late(&vanishing));
    }

    #[test]
    fn launch_by_default_masks_and_denies() {
        let plan = launch(&record(), around()).unwrap();
        assert_eq!(plan.process.capabilities.len(), 14);
        assert_eq!(plan.hostname, "abababababab");
        assert_eq!(plan.cgroup.path, format!("/hull/{}", "ab".repeat(32)));
        assert!(plan.masked_paths.contains(&"/proc/kcore".to_owned()));
        assert!(!plan.cgroup.devices.first().unwrap().allow);
        assert!(
            plan.mounts
                .iter()
                .any(|m| m.target == "/sys" && m.options.read_only)
        );
    }

    #[test]
    fn launch_privileged_masks_nothing() {
        let mut record = record();
        record.spec.privileged = true;
        let plan = launch(&record, around()).unwrap();
        assert!(plan.masked_paths.is_empty() && plan.readonly_paths.is_empty());
        assert_eq!(plan.process.seccomp, SeccompPlan::Unconfined);
    }

    #[test]
    fn launch_without_command_says_so() {
        let mut record = record();
        record.spec.cmd.clear();
        assert!(
            launch(&record, around())
                .unwrap_err()
                .to_string()
                .contains("no command specified")
        );
    }

    #[test]
    fn mounts_of_user_come_outer_first_and_replace_ours() {
        let mut record = record();
        let point = |target: &str| MountPoint {
            kind: "bind".into(),
            source: "/s".into(),
            target: target.into(),
            rw: true,
            ..MountPoint::default()
        };
        record.mounts = vec![point("/data/inner"), point("/data"), point("/dev/shm")];
        let plan = launch(&record, around()).unwrap();
        let targets: Vec<&str> = plan.mounts.iter().map(|m| m.target.as_str()).collect();
        assert_eq!(targets.iter().filter(|t| **t == "/dev/shm").count(), 1);
        let place = |t| targets.iter().position(|x| *x == t).unwrap();
        assert!(place("/data") < place("/data/inner"));
    }

    #[test]
    fn sysctl_of_the_whole_kernel_is_refused() {
        let mut record = record();
        record
            .spec
            .sysctls
            .insert("kernel.panic".into(), "1".into());
        assert!(launch(&record, around()).is_err());
    }

    #[test]
    fn environment_of_user_wins_over_defaults() {
        let mut record = record();
        record.spec.hostname = "h".into();
        record.spec.env = vec!["PATH=/x".into(), "A=1".into(), "A=2".into()];
        assert_eq!(environment(&record), ["PATH=/x", "HOSTNAME=h", "A=2"]);
        record.spec.env.push("A".into());
        assert_eq!(environment(&record), ["PATH=/x", "HOSTNAME=h"]);
    }
}
