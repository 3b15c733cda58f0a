//! Bundles: a root file system of busybox, and a config.json that a case changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::{Kind, Runtime, host};

const BUSYBOX: &str = "/bin/busybox";

/// A folder with config.json and a root file system of busybox.
#[derive(Debug)]
pub struct Bundle {
    /// The bundle.
    pub dir: PathBuf,
    /// What is written to config.json by [`Bundle::write`].
    pub config: Value,
}

fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let list = Command::new(BUSYBOX).arg("--list").output();
        let text = list.expect("install busybox-static").stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .filter(|name| *name != "busybox")
            .map(str::to_owned)
            .collect()
    })
}

impl Bundle {
    /// One for the container `id`, in namespaces of its own; not written yet.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn new(runtime: &Runtime, id: &str, args: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("bundle-")
            .tempdir_in(runtime.dir())
            .expect("folder")
            .keep();
        let root = dir.join("rootfs");
        for name in ["bin", "proc", "sys", "dev", "etc", "tmp", "data"] {
            fs::create_dir_all(root.join(name)).expect("folder");
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).expect("install busybox-static");
        for applet in applets() {
            symlink("busybox", root.join("bin").join(applet)).expect("link");
        }
        let caps = json!([
            "CAP_KILL",
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_SETUID",
            "CAP_SETGID"
        ]);
        let strict = ["nosuid", "noexec", "nodev"];
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": args,
                "env": ["PATH=/bin", "GREETING=hello"],
                "cwd": "/",
                "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
                "noNewPrivileges": true,
            },
            "root": { "path": "rootfs" },
            "hostname": "inside",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": strict },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                  "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
                { "destination": "/sys", "type": "sysfs", "source": "sysfs",
                  "options": ["nosuid", "noexec", "nodev", "ro"] },
            ],
            "linux": {
                "cgroupsPath": runtime.cgroup(id),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" }],
                "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        let mut bundle = Self { dir, config };
        if runtime.kind == Kind::Crun && !host::is_pure_v2() {
            bundle.set("/linux/resources", json!({}));
            bundle.set("/linux/cgroupsPath", json!(""));
        }
        bundle
    }

    /// Sets what a JSON pointer names; `-` at its end appends, missing objects are made.
    ///
    /// # Panics
    /// If the pointer leads nowhere.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let mut at = &mut self.config;
        for name in pointer.split('/').skip(1) {
            at = if at.is_array() {
                let list = at.as_array_mut().expect("a list");
                if name == "-" {
                    list.push(Value::Null);
                }
                let last = list.len() - 1;
                let index = name.parse().unwrap_or(last);
                list.get_mut(index).expect("item")
            } else {
                &mut at[name]
            };
        }
        *at = value;
    }

    /// Writes config.json.
    ///
    /// # Panics
    /// If it cannot.
    pub fn write(&self) {
        fs::write(self.dir.join("config.json"), self.config.to_string()).expect("config.json");
    }

    /// Its folder as text.
    ///
    /// # Panics
    /// Never: the suite chose the name.
    #[must_use]
    pub fn path(&self) -> &str {
        self.dir.to_str().expect("text")
    }

    /// Its root file system.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }
}
