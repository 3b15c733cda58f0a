//! Starts the real shim with a root file system of busybox, and looks for what it leaves.

#![allow(dead_code, reason = "the example uses a part of it")]
#![allow(unreachable_pub, reason = "shared by the tests and an example")]

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hull_proto::message::{ExitStatus, Launch, LogFile};
use hull_proto::plan::{
    CgroupPlan, DeviceRule, LaunchPlan, MountKind, MountOptions, PlanDevice, PlanMount,
    ProcessPlan, RootFs,
};
use hull_proto::{ExecLaunch, Request};
use hull_sys::caps;
use rustix::process::{Pid, WaitOptions};

use crate::daemon::{Daemon, until};

static NEXT: AtomicU32 = AtomicU32::new(0);
/// A running shim.
pub struct Shim {
    pub dir: tempfile::TempDir,
    pub pid: Pid,
    pub cgroup: String,
    reaped: bool,
}

impl Shim {
    pub fn start() -> Self {
        // An example is not told the path: there the shim is one folder up.
        let program = option_env!("CARGO_BIN_EXE_hull-shim").map_or_else(
            || {
                std::env::current_exe()
                    .unwrap()
                    .with_file_name("../hull-shim")
            },
            PathBuf::from,
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let listener = UnixListener::bind(dir.path().join("run/shim.sock")).unwrap();
        let text = |text: &str| CString::new(text).unwrap();
        let args = [
            text("hull-shim"),
            text("--dir"),
            text(dir.path().join("run").to_str().unwrap()),
        ];
        let program = hull_sys::sealed::open(program.as_ref()).expect("open the shim");
        let pid = hull_sys::spawn::spawn(program.as_fd(), &args, &[(listener.as_fd(), 3)])
            .expect("spawn");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("/hull-shim-test-{}-{number}", std::process::id());
        Self {
            dir,
            pid,
            cgroup,
            reaped: false,
        }
    }

    pub fn connect(&self) -> Daemon {
        Daemon::connect(&self.dir.path().join("run/shim.sock"))
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn exit_path(&self) -> PathBuf {
        self.dir.path().join("run/exit.json")
    }

    pub fn exit_record(&self) -> ExitStatus {
        serde_json::from_slice(&std::fs::read(self.exit_path()).expect("exit.json")).unwrap()
    }

    /// A launch of a busybox shell script.
    pub fn launch(&self, script: &str) -> Launch {
        let root = self.dir.path().join("root");
        for folder in ["lower/bin", "lower/etc", "lower/tmp", "upper", "work"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        let bin = root.join("lower/bin");
        if !bin.join("busybox").exists() {
            std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
            for name in [
                "sh", "cat", "echo", "seq", "sleep", "stty", "tty", "wc", "true", "ls", "grep",
                "tail", "yes", "head", "id", "readlink",
            ] {
                symlink("busybox", bin.join(name)).unwrap();
            }
            let etc = root.join("lower/etc");
            std::fs::write(
                etc.join("passwd"),
                "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/tmp:/bin/sh\n",
            )
            .unwrap();
            std::fs::write(etc.join("group"), "root:x:0:\nme:x:1000:\n").unwrap();
            std::fs::write(etc.join("plain"), "no program\n").unwrap();
        }
        let plan = LaunchPlan {
            id: format!(
                "{:0>64}",
                self.cgroup
                    .trim_start_matches(|c: char| !c.is_ascii_digit())
                    .replace('-', "0")
            ),
            rootfs: RootFs::Overlay {
                lower: vec![root.join("lower")],
                upper: root.join("upper"),
                work: root.join("work"),
                volatile: true,
            },
            hostname: "box".into(),
            mounts: mounts(),
            devices: devices(),
            cgroup: CgroupPlan {
                path: self.cgroup.clone(),
                devices: vec![DeviceRule {
                    allow: true,
                    kind: 'a',
                    major: None,
                    minor: None,
                    access: "rwm".into(),
                }],
                ..CgroupPlan::default()
            },
            process: process(script),
            seccomp_cache: self.dir.path().join("seccomp"),
            ..LaunchPlan::default()
        };
        std::fs::create_dir_all(&plan.seccomp_cache).unwrap();
        Launch {
            plan,
            log: Some(LogFile {
                path: self.log(),
                ..LogFile::default()
            }),
            ..Launch::default()
        }
    }

    pub fn exec(&self, id: &str, script: &str) -> ExecLaunch {
        ExecLaunch {
            id: id.into(),
            process: process(script),
            seccomp_cache: self.dir.path().join("seccomp"),
            ..ExecLaunch::default()
        }
    }

    /// Waits for the end of the shim and looks for what it left.
    pub fn ended_clean(mut self) {
        let mut status = None;
        until("the shim ends", || {
            status = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG).unwrap();
            status.is_some()
        });
        self.reaped = true;
        assert_eq!(
            status.unwrap().1.exit_status(),
            Some(0),
            "exit status of the shim"
        );
        assert_eq!(cgroups(&self.cgroup), Vec::<PathBuf>::new());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.dir.path().to_str().unwrap()),
            "a mount is left"
        );
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
        // A failed test must not leave processes and groups on the host.
        for group in cgroups(&self.cgroup) {
            for _ in 0..100 {
                let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for pid in pids
                    .lines()
                    .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                let _ = std::fs::write(group.join("freezer.state"), "THAWED");
                if std::fs::remove_dir(&group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

/// Folders of a control group in every hierarchy.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(base)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.push(base.to_owned());
    folders
        .into_iter()
        .map(|folder| folder.join(path.trim_start_matches('/')))
        .filter(|folder| folder.is_dir())
        .collect()
}

pub fn process(script: &str) -> ProcessPlan {
    ProcessPlan {
        args: ["sh", "-c", script].map(String::from).into(),
        env: vec!["PATH=/bin:/usr/bin".into()],
        cwd: "/".into(),
        capabilities: caps::DEFAULT.map(String::from).into(),
        ..ProcessPlan::default()
    }
}

pub fn request(launch: Launch) -> Request {
    Request::Launch(Box::new(launch))
}

fn mounts() -> Vec<PlanMount> {
    let strict = MountOptions {
        nosuid: true,
        nodev: true,
        noexec: true,
        ..MountOptions::default()
    };
    let mount = |target: &str, kind, options| PlanMount {
        target: target.into(),
        kind,
        options,
    };
    let tmpfs = |data: &str| MountKind::Tmpfs { data: data.into() };
    let dev = MountOptions {
        nosuid: true,
        noexec: true,
        ..MountOptions::default()
    };
    vec![
        mount("/proc", MountKind::Proc, strict.clone()),
        mount(
            "/dev",
            tmpfs("mode=755,size=65536k"),
            MountOptions {
                nosuid: true,
                ..MountOptions::default()
            },
        ),
        mount("/dev/pts", MountKind::Devpts, dev),
        mount(
            "/sys",
            MountKind::Sysfs,
            MountOptions {
                read_only: true,
                ..strict.clone()
            },
        ),
        mount("/dev/mqueue", MountKind::Mqueue, strict.clone()),
        mount("/dev/shm", tmpfs("mode=1777,size=65536k"), strict),
    ]
}

fn devices() -> Vec<PlanDevice> {
    let device = |name: &str, major, minor| PlanDevice {
        path: format!("/dev/{name}"),
        block: false,
        fifo: false,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    vec![
        device("null", 1, 3),
        device("zero", 1, 5),
        device("full", 1, 7),
        device("random", 1, 8),
        device("urandom", 1, 9),
        device("tty", 5, 0),
    ]
}
