//! Bundles and runtimes for the conformance suite and the attacks: `hull-oci` as it was built, and
//! Debian's runc and crun, which show that the suite asks for nothing strange.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hull_testkit::{paths, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
/// crun refuses to begin on a hybrid host whose unified hierarchy has a controller: it gets a mount
/// namespace without that.
const WITHOUT_UNIFIED: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Hull,
    /// Debian's runc.
    Runc,
    /// Debian's crun, which leaves control groups alone: it cannot use those of a hybrid host.
    Crun,
}

impl Kind {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hull => "hull-oci",
            Self::Runc => "runc",
            Self::Crun => "crun",
        }
    }

    /// Whether it is installed.
    #[must_use]
    pub fn is_there(self) -> bool {
        self == Self::Hull || Command::new(self.name()).arg("--version").output().is_ok()
    }
}

/// A runtime with its own `--root`, control group and folder; all is taken away in the end.
#[derive(Debug)]
pub struct Runtime {
    /// Which program.
    pub kind: Kind,
    dir: TempDir,
    group: String,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

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

impl Runtime {
    /// One that nobody else uses.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self {
            kind,
            dir: tempfile::Builder::new()
                .prefix("oci-")
                .tempdir()
                .expect("folder"),
            group: format!("oci-suite-{}-{number}", std::process::id()),
        }
    }

    /// A folder for whatever the case needs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The `cgroupsPath` of a container.
    #[must_use]
    pub fn cgroup(&self, id: &str) -> String {
        format!("/{}/{id}", self.group)
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.kind {
            Kind::Hull => Command::new(paths::dist().join("hull-oci")),
            Kind::Runc => Command::new("runc"),
            Kind::Crun => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITHOUT_UNIFIED, "crun"]);
                command.arg("--cgroup-manager=disabled");
                command
            }
        };
        command.arg("--root").arg(self.dir.path().join("root"));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. Output goes to files: what lives on would keep pipes open.
    ///
    /// # Panics
    /// If the program is missing.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Said {
        let mut files = [(); 2].map(|()| tempfile::tempfile().expect("file"));
        let status = self
            .command(args)
            .stdout(files[0].try_clone().expect("dup"))
            .stderr(files[1].try_clone().expect("dup"))
            .status()
            .expect("run the runtime: cargo xtask build makes ours");
        let [out, err] = files.each_mut().map(text_of);
        let code = status.code().unwrap_or(-1);
        Said { code, out, err }
    }

    /// Demands success; what it printed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// Demands failure; what it said.
    ///
    /// # Panics
    /// If it succeeds or ends by a signal.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert!(said.code > 0, "{args:?} ended with {}", said.code);
        said.err
    }

    /// Runs a bundle that is changed by (JSON pointer, value) and whose program is a script.
    ///
    /// # Panics
    /// If it does not end with 0.
    #[track_caller]
    #[must_use]
    pub fn script(&self, changes: &[(&str, Value)], script: &str) -> String {
        let bundle = self.bundle("c", changes, script);
        self.ok(&["run", "-b", bundle.path(), "c"])
    }

    /// A bundle whose program is a script.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn bundle(&self, id: &str, changes: &[(&str, Value)], script: &str) -> Bundle {
        let mut bundle = Bundle::new(self, id, &["sh", "-c", script]);
        for (pointer, value) in changes {
            bundle.set(pointer, value.clone());
        }
        bundle.write();
        bundle
    }

    /// A container that sleeps, started.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn sleeping(&self, changes: &[(&str, Value)]) -> Bundle {
        let bundle = self.bundle("c", changes, "exec sleep 1000");
        self.ok(&["create", "-b", bundle.path(), "c"]);
        self.ok(&["start", "c"]);
        bundle
    }

    /// The state of a container.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).expect("state is JSON")
    }

    /// The id of its first process.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn pid(&self, id: &str) -> u64 {
        self.state(id)["pid"].as_u64().expect("pid")
    }

    /// Waits for a status.
    ///
    /// # Panics
    /// If it does not come in ten seconds.
    pub fn wait_for(&self, id: &str, status: &str) {
        let came = wait_until(Duration::from_secs(10), || {
            self.state(id)["status"] == status
        });
        assert!(came, "{id} is {}, not {status}", self.state(id)["status"]);
    }

    /// The first of these files of a container's control group that is there.
    ///
    /// # Panics
    /// If none is.
    #[must_use]
    pub fn limit(&self, names: &[&str]) -> String {
        let dirs = self.groups();
        let text = dirs
            .iter()
            .flat_map(|dir| names.iter().map(|name| dir.join("c").join(name)))
            .find_map(|file| fs::read_to_string(file).ok());
        text.unwrap_or_else(|| panic!("no {names:?} in {dirs:?}"))
            .trim()
            .to_owned()
    }

    /// What containers left: control groups with any below, mounts, records, processes.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let mut left = Vec::new();
        for group in self.groups() {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    left.push(format!("cgroup {}", entry.path().display()));
                }
            }
        }
        let own = self.dir.path().to_string_lossy().into_owned();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(
            table
                .lines()
                .filter(|line| {
                    line.split(' ')
                        .nth(4)
                        .is_some_and(|at| at.starts_with(&own))
                })
                .map(|line| format!("mount {line}")),
        );
        for entry in fs::read_dir(self.dir.path().join("root"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Caches and locks of the runtime itself begin with a dot or are no folder.
            if entry.path().join("state.json").exists() || entry.file_name() == "c" {
                left.push(format!("record {}", entry.path().display()));
            }
        }
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if root.starts_with(self.dir.path()) || groups.contains(&format!("/{}", self.group)) {
                left.push(format!("process {}", entry.path().display()));
            }
        }
        left
    }

    /// Demands that nothing is left.
    ///
    /// # Panics
    /// If something is.
    #[track_caller]
    pub fn nothing_left(&self) {
        let mut left = Vec::new();
        wait_until(Duration::from_secs(3), || {
            left = self.residue();
            left.is_empty()
        });
        assert!(left.is_empty(), "left: {left:#?}");
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mut roots = vec![PathBuf::from(CGROUPS)];
        let below = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
        roots.extend(below.map(|entry| entry.path()));
        roots
            .into_iter()
            .map(|root| root.join(&self.group))
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// Deletes all containers.
    pub fn clear(&self) {
        let listed = self.run(&["list", "-q"]).out;
        for id in listed.lines() {
            let _ = self.run(&["delete", "--force", id]);
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.clear();
        for group in self.groups() {
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(group);
        }
    }
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
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
            .tempdir_in(runtime.dir.path())
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
        if runtime.kind == Kind::Crun {
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
