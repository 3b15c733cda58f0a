//! Bundles, and a runtime to run them: ours or runc, with everything cleaned up at the end.
#![allow(dead_code)] // each test file uses its part

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 20] = [
    "sh", "cat", "echo", "sleep", "true", "id", "ls", "mkdir", "touch", "tty", "stty", "env",
    "pwd", "grep", "kill", "hostname", "cut", "head", "ionice", "uname",
];

/// A runtime with a folder of its own.
pub(crate) struct Runtime {
    program: PathBuf,
    root: TempDir,
    cgroup: String,
}

/// A bundle: a folder with config.json and a root file system.
pub(crate) struct Bundle {
    pub(crate) dir: TempDir,
    config: Value,
}

impl Runtime {
    pub(crate) fn ours() -> Self {
        Self::new(env!("CARGO_BIN_EXE_hull-oci"))
    }

    /// The reference, from Debian's package runc.
    pub(crate) fn runc() -> Self {
        Self::new("runc")
    }

    pub(crate) fn both() -> [Self; 2] {
        [Self::ours(), Self::runc()]
    }

    fn new(program: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self {
            program: PathBuf::from(program),
            root: TempDir::new().expect("folder"),
            cgroup: format!("hull-oci-test-{}-{number}", std::process::id()),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.program.as_os_str() != "runc"
    }

    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.cgroup)
    }

    /// The command line, with nothing on standard input.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(self.root.path())
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Runs to its end. Output goes to files: a container that lives on would keep pipes open.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut files = [
            tempfile::tempfile().expect("file"),
            tempfile::tempfile().expect("file"),
        ];
        let status = self
            .command(args)
            .stdout(files[0].try_clone().expect("dup"))
            .stderr(files[1].try_clone().expect("dup"))
            .status()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
        let [stdout, stderr] = files.each_mut().map(|file| {
            use std::io::{Read as _, Seek as _};
            let mut bytes = Vec::new();
            file.rewind().expect("rewind");
            file.read_to_end(&mut bytes).expect("read");
            bytes
        });
        Output {
            status,
            stdout,
            stderr,
        }
    }

    pub(crate) fn code(&self, args: &[&str]) -> Option<i32> {
        self.run(args).status.code()
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Fails as it should; what it says.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} did not fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).expect("json")
    }

    #[track_caller]
    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"]
            .as_str()
            .expect("status")
            .to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, id: &str, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.status(id) != status {
            assert!(
                Instant::now() < deadline,
                "{id} is {}, not {status}",
                self.status(id)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Folders of our control groups that exist.
    pub(crate) fn cgroup_dirs(&self) -> Vec<PathBuf> {
        let mut parents = vec![PathBuf::from("/sys/fs/cgroup")];
        parents.extend(
            fs::read_dir("/sys/fs/cgroup")
                .expect("cgroups")
                .flatten()
                .map(|entry| entry.path()),
        );
        parents
            .into_iter()
            .map(|dir| dir.join(&self.cgroup))
            .filter(|dir| dir.is_dir())
            .collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let listed = self.run(&["list", "-q"]);
        for id in String::from_utf8_lossy(&listed.stdout).lines() {
            self.run(&["delete", "--force", id]);
        }
        for dir in self.cgroup_dirs() {
            for child in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(child.path());
            }
            let _ = fs::remove_dir(dir);
        }
    }
}

impl Bundle {
    /// One that runs `args` in namespaces of its own, for the container `id` of `runtime`.
    pub(crate) fn new(runtime: &Runtime, id: &str, args: &[&str]) -> Self {
        let dir = TempDir::new().expect("folder");
        let root = dir.path().join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp", "data"] {
            fs::create_dir_all(root.join(name)).expect("folder");
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).expect("busybox: install busybox-static");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).expect("link");
        }
        let strict = ["nosuid", "noexec", "nodev"];
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": args,
                "env": ["PATH=/bin", "GREETING=hello"],
                "cwd": "/",
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs", "readonly": false },
            "hostname": "bundle",
            "annotations": { "org.example.key": "value" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [strict[0], strict[1], strict[2], "ro"] },
            ],
            "linux": {
                "cgroupsPath": runtime.cgroup(id),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                ],
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        let bundle = Self { dir, config };
        bundle.write();
        bundle
    }

    /// Sets the value at a JSON pointer whose parent exists.
    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').expect("pointer");
        let parent = self.config.pointer_mut(parent).expect("parent");
        match parent {
            Value::Array(list) => list.push(value),
            other => other[name] = value,
        }
        self.write();
        self
    }

    fn write(&self) {
        fs::write(self.dir.path().join("config.json"), self.config.to_string())
            .expect("config.json");
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.path().to_str().expect("text")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }
}

/// Waits until a file is there.
#[track_caller]
pub(crate) fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        assert!(
            Instant::now() < deadline,
            "{} does not appear",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
