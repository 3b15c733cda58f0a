//! A small root file system from the static busybox, plans as the engine writes them, and a
//! runner that collects output.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its own part"
)]

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hull_container::{ExecTarget, Host, LaunchError, Launched, Options, Stdio, exec, launch};
use hull_proto::LaunchPlan;
use hull_proto::plan::{
    CgroupPlan, DeviceRule, MountKind, MountOptions, PlanDevice, PlanMount, ProcessPlan, RootFs,
};
use hull_sys::caps;
use hull_sys::clone3::Namespaces;
use hull_sys::pidfd;

const APPLETS: [&str; 36] = [
    "sh",
    "cat",
    "ls",
    "id",
    "mount",
    "true",
    "false",
    "sleep",
    "echo",
    "readlink",
    "test",
    "stat",
    "hostname",
    "touch",
    "mkdir",
    "env",
    "pwd",
    "ps",
    "kill",
    "tty",
    "dd",
    "grep",
    "sed",
    "wc",
    "head",
    "tail",
    "cut",
    "ip",
    "chmod",
    "ln",
    "rm",
    "mknod",
    "dnsdomainname",
    "nproc",
    "seq",
    "umount",
];

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A container's folders and group, gone with it.
pub struct Fixture {
    pub dir: PathBuf,
    pub host: Host,
    pub id: String,
}

impl Fixture {
    pub fn new() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let id = format!("hull-test-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        let lower = dir.join("lower");
        for folder in ["bin", "etc", "tmp", "sbin", "root"] {
            std::fs::create_dir_all(lower.join(folder)).expect("mkdir");
        }
        for folder in ["upper", "work"] {
            std::fs::create_dir_all(dir.join(folder)).expect("mkdir");
        }
        std::fs::copy("/bin/busybox", lower.join("bin/busybox")).expect("busybox-static");
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", lower.join("bin").join(applet)).expect("link");
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv/web:/bin/sh\n";
        std::fs::write(lower.join("etc/passwd"), passwd).expect("write");
        std::fs::write(
            lower.join("etc/group"),
            "root:x:0:\nweb:x:34:\nextra:x:77:web\n",
        )
        .expect("write");
        Self {
            dir,
            host: Host::detect().expect("host"),
            id,
        }
    }

    pub fn lower(&self) -> PathBuf {
        self.dir.join("lower")
    }

    /// The plan of `hull run IMAGE sh -c SCRIPT`.
    pub fn plan(&self, script: &str) -> LaunchPlan {
        LaunchPlan {
            id: self.id.clone(),
            rootfs: RootFs::Overlay {
                lower: vec![self.lower()],
                upper: self.dir.join("upper"),
                work: self.dir.join("work"),
                volatile: true,
            },
            hostname: "inside".to_owned(),
            mounts: default_mounts(),
            devices: default_devices(),
            masked_paths: MASKED.iter().map(|path| (*path).to_owned()).collect(),
            readonly_paths: READ_ONLY.iter().map(|path| (*path).to_owned()).collect(),
            cgroup: CgroupPlan {
                path: format!("/{}", self.id),
                devices: device_rules(),
                ..CgroupPlan::default()
            },
            process: process(&["/bin/sh", "-c", script]),
            seccomp_cache: self.dir.join("seccomp"),
            ..LaunchPlan::default()
        }
    }

    /// Runs the plan to its end: output of both streams and the exit status.
    pub fn run(&self, plan: &LaunchPlan) -> (String, i32) {
        self.try_run(plan).expect("launch")
    }

    pub fn try_run(&self, plan: &LaunchPlan) -> Result<(String, i32), LaunchError> {
        self.try_run_with(plan, &[])
    }

    pub fn try_run_with(
        &self,
        plan: &LaunchPlan,
        descriptors: &[OwnedFd],
    ) -> Result<(String, i32), LaunchError> {
        let (running, output) = self.start_with(plan, descriptors)?;
        Ok((output.text(), running.wait()))
    }

    pub fn start(&self, plan: &LaunchPlan) -> (Running, Output) {
        self.start_with(plan, &[]).expect("launch")
    }

    pub fn start_with(
        &self,
        plan: &LaunchPlan,
        descriptors: &[OwnedFd],
    ) -> Result<(Running, Output), LaunchError> {
        let (read, write) = std::io::pipe().expect("pipe");
        let null = std::fs::File::open("/dev/null").expect("null");
        let stdio = Stdio {
            stdin: null.as_fd(),
            stdout: write.as_fd(),
            stderr: write.as_fd(),
        };
        let launched = launch(&self.host, plan, descriptors, &stdio, &Options::default())?;
        Ok((Running(launched), Output(read)))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub struct Output(std::io::PipeReader);

impl Output {
    /// All until every writer is gone.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        self.0.read_to_string(&mut text).expect("utf-8");
        text
    }

    /// One line.
    pub fn line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0u8; 1]);
        while self.0.read(&mut byte).expect("read") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("utf-8")
    }
}

/// A launched container, killed and removed at the end.
pub struct Running(pub Launched);

impl Running {
    pub fn wait(&self) -> i32 {
        let ended = pidfd::wait(&self.0.process.pidfd, true)
            .expect("wait")
            .expect("ended");
        ended.exit.status()
    }

    /// Namespaces of users and of clocks, if they are not the own ones.
    fn also(&self) -> Namespaces {
        let kinds = [("user", Namespaces::USER), ("time", Namespaces::TIME)];
        let of = |pid: &str, name: &str| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        let pid = self.0.process.pid.to_string();
        kinds
            .iter()
            .filter(|(name, _)| of(&pid, name) != of("self", name))
            .fold(Namespaces::NONE, |all, (_, kind)| all.with(*kind))
    }

    pub fn exec(
        &self,
        fixture: &Fixture,
        plan: &ProcessPlan,
    ) -> Result<(String, i32), LaunchError> {
        let (read, write) = std::io::pipe().expect("pipe");
        let null = std::fs::File::open("/dev/null").expect("null");
        let stdio = Stdio {
            stdin: null.as_fd(),
            stdout: write.as_fd(),
            stderr: write.as_fd(),
        };
        let target = ExecTarget {
            pid: self.0.process.pid,
            pidfd: self.0.process.pidfd.as_fd(),
            cgroup: self.0.cgroup.as_ref(),
            also: self.also(),
            chroot: false,
        };
        let cache = fixture.dir.join("seccomp");
        let started = exec(
            &fixture.host,
            &target,
            plan,
            &cache,
            &stdio,
            &Options::default(),
        )?;
        drop(write);
        let text = Output(read).text();
        let ended = pidfd::wait(&started.pidfd, true)
            .expect("wait")
            .expect("ended");
        Ok((text, ended.exit.status()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.cgroup.kill_all();
        let _ = pidfd::wait(&self.0.process.pidfd, true);
        self.0.cgroup.remove().expect("remove the control group");
    }
}

pub fn process(args: &[&str]) -> ProcessPlan {
    ProcessPlan {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        capabilities: caps::DEFAULT.iter().map(|cap| (*cap).to_owned()).collect(),
        ..ProcessPlan::default()
    }
}

pub fn bind(source: &Path, target: &str) -> PlanMount {
    PlanMount {
        target: target.to_owned(),
        kind: MountKind::Bind {
            source: source.to_owned(),
            recursive: true,
        },
        options: MountOptions::default(),
    }
}

pub const MASKED: [&str; 12] = [
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

pub const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

pub fn default_mounts() -> Vec<PlanMount> {
    let restricted = MountOptions {
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountOptions::default()
    };
    let mount = |target: &str, kind: MountKind, options: MountOptions| PlanMount {
        target: target.to_owned(),
        kind,
        options,
    };
    let tmpfs = |data: &str| MountKind::Tmpfs {
        data: data.to_owned(),
    };
    let nosuid = MountOptions {
        nosuid: true,
        ..MountOptions::default()
    };
    let no_exec = MountOptions {
        nosuid: true,
        noexec: true,
        ..MountOptions::default()
    };
    let read_only = MountOptions {
        read_only: true,
        ..restricted.clone()
    };
    vec![
        mount("/proc", MountKind::Proc, restricted.clone()),
        mount("/dev", tmpfs("size=65536k,mode=755"), nosuid),
        mount("/dev/pts", MountKind::Devpts, no_exec),
        mount("/sys", MountKind::Sysfs, read_only.clone()),
        mount("/sys/fs/cgroup", MountKind::Cgroup, read_only),
        mount("/dev/mqueue", MountKind::Mqueue, restricted.clone()),
        mount("/dev/shm", tmpfs("size=65536k,mode=1777"), restricted),
    ]
}

pub fn default_devices() -> Vec<PlanDevice> {
    [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ]
    .iter()
    .map(|(name, major, minor)| PlanDevice {
        path: format!("/dev/{name}"),
        block: false,
        fifo: false,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
    .collect()
}

pub fn device_rules() -> Vec<DeviceRule> {
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    let mut rules = vec![
        rule(false, 'a', None, None, "rwm"),
        rule(true, 'c', None, None, "m"),
        rule(true, 'b', None, None, "m"),
    ];
    for minor in [3, 5, 7, 8, 9] {
        rules.push(rule(true, 'c', Some(1), Some(minor), "rwm"));
    }
    for minor in [0, 1, 2] {
        rules.push(rule(true, 'c', Some(5), Some(minor), "rwm"));
    }
    rules.push(rule(true, 'c', Some(136), None, "rwm"));
    rules
}
