//! Where a hypervisor runs: a container with nothing in it.
//!
//! Its root is an empty folder with the host's programs and libraries, the kernel and the initrd,
//! all read-only; its user owns nothing, its network namespace has no interface, and it has no
//! capability. Disks, taps and sockets come as open descriptors. So who breaks out of a guest into
//! its hypervisor is where any container's process is, with less.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_container::{Host, Options};
use hull_hypervisor::{Cell, Program, Running};
use hull_model::Ulimit;
use hull_proto::plan::{
    CgroupPlan, DeviceRule, LaunchPlan, MountKind, MountOptions, PlanDevice, PlanMount, PlanUser,
    ProcessPlan, RootFs, SeccompPlan,
};
use hull_proto::vm::VmPlan;
use hull_sys::cgroup::Cgroup;
use rustix::fs::{Mode, OFlags};

/// What the loader and the program need, where the host has it.
const SHOWN: [&str; 6] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
];
/// Threads and processes of a hypervisor: its processors' and those that read and write disks.
const MAX_TASKS: i64 = 512;
const NULL: (u32, u32) = (1, 3);
const KVM: (u32, u32) = (10, 232);

/// A cell on this host.
pub(super) struct HostCell<'a> {
    host: &'a Host,
    plan: &'a VmPlan,
    id: &'a str,
    /// The control group of what runs in it.
    group: RefCell<Option<Box<dyn Cgroup>>>,
}

impl<'a> HostCell<'a> {
    pub(super) fn new(host: &'a Host, plan: &'a VmPlan, id: &'a str) -> Self {
        Self {
            host,
            plan,
            id,
            group: RefCell::new(None),
        }
    }

    /// The control group, once something runs.
    pub(super) fn into_group(self) -> Option<Box<dyn Cgroup>> {
        self.group.into_inner()
    }
}

impl Cell for HostCell<'_> {
    fn run(&self, program: Program) -> Result<Running, String> {
        std::fs::create_dir_all(&self.plan.dir)
            .map_err(|error| format!("cannot make {}: {error}", self.plan.dir.display()))?;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| format!("cannot open /dev/null: {errno}"))?;
        let plan = plan(self.plan, self.id, &program);
        let stdio = hull_container::Stdio {
            stdin: null.as_fd(),
            stdout: program.output.as_fd(),
            stderr: program.output.as_fd(),
        };
        let options = Options {
            die_with_parent: true,
            keep: &program.descriptors,
            ..Options::default()
        };
        let none: [OwnedFd; 0] = [];
        let launched = hull_container::launch(self.host, &plan, &none, &stdio, &options)
            .map_err(|error| crate::container::failed(&error).message)?;
        self.group.replace(Some(launched.cgroup));
        Ok(Running {
            pid: launched.process.pid,
            pidfd: launched.process.pidfd,
        })
    }
}

fn bind(source: &Path, target: &str) -> PlanMount {
    PlanMount {
        target: target.to_owned(),
        kind: MountKind::Bind {
            source: source.to_owned(),
            recursive: false,
        },
        options: MountOptions {
            read_only: true,
            nosuid: true,
            nodev: true,
            ..MountOptions::default()
        },
    }
}

/// An empty /dev, and what the loader and a program need.
pub(super) fn programs(program: &Path) -> Vec<PlanMount> {
    let dev = PlanMount {
        target: "/dev".into(),
        kind: MountKind::Tmpfs {
            data: "size=64k,mode=0755".into(),
        },
        options: MountOptions {
            nosuid: true,
            noexec: true,
            ..MountOptions::default()
        },
    };
    let shown: Vec<&str> = SHOWN
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    let mut mounts = vec![dev];
    mounts.extend(shown.iter().map(|path| bind(Path::new(path), path)));
    if !shown.iter().any(|path| program.starts_with(path)) {
        mounts.push(bind(program, &program.to_string_lossy()));
    }
    mounts
}

/// The container of a hypervisor.
fn plan(vm: &VmPlan, id: &str, program: &Program) -> LaunchPlan {
    let mut mounts = programs(&program.path);
    mounts.extend(
        program
            .files
            .iter()
            .map(|file| bind(&file.source, &file.inside)),
    );
    LaunchPlan {
        id: id.to_owned(),
        rootfs: RootFs::Directory {
            path: vm.dir.clone(),
        },
        readonly_rootfs: true,
        hostname: "hypervisor".into(),
        mounts,
        devices: nodes(program.kvm, vm.uid),
        cgroup: group(vm, Some(program.memory), program.kvm),
        process: process(vm, program),
        seccomp_cache: vm.seccomp_cache.clone(),
        ..LaunchPlan::default()
    }
}

fn numbers(kvm: bool) -> &'static [(u32, u32)] {
    if kvm { &[NULL, KVM] } else { &[NULL] }
}

/// The devices of a cell.
pub(super) fn nodes(kvm: bool, uid: u32) -> Vec<PlanDevice> {
    let node = |number: (u32, u32)| PlanDevice {
        path: if number == KVM {
            "/dev/kvm"
        } else {
            "/dev/null"
        }
        .into(),
        block: false,
        fifo: false,
        major: number.0,
        minor: number.1,
        mode: if number == KVM { 0o600 } else { 0o666 },
        uid: if number == KVM { uid } else { 0 },
        gid: 0,
    };
    numbers(kvm).iter().map(|number| node(*number)).collect()
}

/// The control group of all that a machine needs on the host.
pub(super) fn group(vm: &VmPlan, memory: Option<u64>, kvm: bool) -> CgroupPlan {
    let mut group = vm.cgroup.clone();
    if let Some(memory) = memory.and_then(|bytes| i64::try_from(bytes).ok()) {
        group.resources.memory.get_or_insert(memory);
    }
    group.resources.pids_limit.get_or_insert(MAX_TASKS);
    let rule = |allow, number: Option<(u32, u32)>| DeviceRule {
        allow,
        kind: if number.is_some() { 'c' } else { 'a' },
        major: number.map(|(major, _)| major),
        minor: number.map(|(_, minor)| minor),
        access: "rwm".into(),
    };
    group.devices = std::iter::once(rule(false, None))
        .chain(numbers(kvm).iter().map(|number| rule(true, Some(*number))))
        .collect();
    group
}

fn process(vm: &VmPlan, program: &Program) -> ProcessPlan {
    let path = program.path.to_string_lossy().into_owned();
    let limit = |name: &str, value: i64| Ulimit {
        name: name.into(),
        soft: value,
        hard: value,
    };
    ProcessPlan {
        args: std::iter::once(path).chain(program.args.clone()).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        user: PlanUser::Ids {
            uid: vm.uid,
            gid: vm.uid,
            groups: Vec::new(),
        },
        no_new_privileges: true,
        rlimits: vec![limit("core", 0), limit("nofile", 1024)],
        seccomp: SeccompPlan::Default,
        ..ProcessPlan::default()
    }
}

/// Removes the empty folders and files on which things were mounted.
pub(super) fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(kvm: bool) -> Program {
        Program {
            path: "/opt/x/qemu".into(),
            args: vec!["-M".into(), "microvm".into()],
            output: std::fs::File::open("/dev/null").unwrap().into(),
            descriptors: Vec::new(),
            files: vec![hull_hypervisor::CellFile {
                source: "/some/vmlinux".into(),
                inside: "/machine/kernel".into(),
            }],
            kvm,
            memory: 512 << 20,
        }
    }

    fn vm() -> VmPlan {
        VmPlan {
            uid: 4_000_000,
            dir: "/run/x".into(),
            ..VmPlan::default()
        }
    }

    #[test]
    fn plan_gives_the_hypervisor_nothing_it_does_not_need() {
        let plan = plan(&vm(), "x", &program(false));
        assert!(plan.process.capabilities.is_empty() && plan.process.no_new_privileges);
        assert_eq!(plan.namespaces, hull_proto::plan::Namespaces::default());
        assert_eq!(plan.process.seccomp, SeccompPlan::Default);
        let PlanUser::Ids { uid, gid, groups } = &plan.process.user else {
            panic!("a name");
        };
        assert_eq!((*uid, *gid, groups.len()), (4_000_000, 4_000_000, 0));
        for mount in &plan.mounts {
            match &mount.kind {
                MountKind::Bind { .. } => {
                    let options = &mount.options;
                    assert!(options.read_only && options.nosuid && options.nodev);
                }
                MountKind::Tmpfs { .. } => assert_eq!(mount.target, "/dev"),
                other => panic!("{other:?}"),
            }
        }
        let sees = |target: &str| plan.mounts.iter().any(|mount| mount.target == target);
        assert!(sees("/machine/kernel") && sees("/opt/x/qemu") && sees("/usr"));
        assert!(!sees("/proc") && !sees("/etc") && !sees("/sys"));
        assert!(plan.devices.iter().all(|device| device.path == "/dev/null"));
    }

    #[test]
    fn group_holds_the_whole_machine() {
        let plan = plan(&vm(), "x", &program(true));
        assert_eq!(plan.cgroup.resources.memory, Some(512 << 20));
        assert!(!plan.cgroup.devices[0].allow);
        let kvm = &plan.cgroup.devices[2];
        assert_eq!(
            (kvm.allow, kvm.major, kvm.minor),
            (true, Some(10), Some(232))
        );
        assert!(plan.devices.iter().any(|device| device.path == "/dev/kvm"));
    }
}
