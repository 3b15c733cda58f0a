//! Bundles and runtimes for the conformance suite and the attacks: `hull-oci` as it was built, and
//! Debian's runc and crun, which show that the suite asks for nothing strange.

mod bundle;
pub mod host;
pub mod sockets;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hull_testkit::{paths, wait_until};
use serde_json::Value;
use tempfile::TempDir;

pub use bundle::Bundle;

/// crun refuses to begin on a hybrid host whose unified hierarchy has a controller: it gets a mount
/// namespace without that.
const WITHOUT_UNIFIED: &str = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where systemd puts the containers of the suite.
const SLICE: &str = "system.slice";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Hull,
    /// Debian's runc.
    Runc,
    /// Debian's crun. It cannot use the control groups of a hybrid host, and leaves them alone there.
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

/// Who makes control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The runtime itself.
    Files,
    /// systemd, which it asks.
    Systemd,
}

/// A runtime with its own `--root`, control group and folder; all is taken away in the end.
#[derive(Debug)]
pub struct Runtime {
    /// Which program.
    pub kind: Kind,
    manager: Manager,
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

impl Runtime {
    /// One that nobody else uses.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, Manager::Files)
    }

    /// The same, with a manager of control groups.
    ///
    /// # Panics
    /// If its folder cannot be made.
    #[must_use]
    pub fn with(kind: Kind, manager: Manager) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self {
            kind,
            manager,
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
        match self.manager {
            Manager::Files => format!("/{}/{id}", self.group),
            Manager::Systemd => format!("{SLICE}:{}:{id}", self.group),
        }
    }

    /// Whether it makes control groups here.
    #[must_use]
    pub fn has_groups(&self) -> bool {
        self.kind != Kind::Crun || host::is_pure_v2()
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        self.by(&[], args)
    }

    /// Its command line as a user without privileges, from whose folder it runs.
    ///
    /// # Panics
    /// If the program cannot be copied to where the user may read it.
    #[must_use]
    pub fn command_as(&self, user: u32, home: &Path, args: &[&str]) -> Command {
        let _ = fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755));
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        let mut command = self.by(&["setpriv", &uid, &gid, "--clear-groups"], args);
        command
            .current_dir(home)
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home);
        command
    }

    /// Its command line below a script of bash, in which it is `"$@"`.
    #[must_use]
    pub fn within(&self, script: &str, args: &[&str]) -> Command {
        let inner = self.command(args);
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.stdin(Stdio::null());
        command
    }

    /// What comes before the program, and what follows it.
    fn by(&self, before: &[&str], args: &[&str]) -> Command {
        let mut words: Vec<&OsStr> = before.iter().map(OsStr::new).collect();
        let program = match self.kind {
            Kind::Hull if before.is_empty() => paths::dist().join("hull-oci"),
            Kind::Hull => self.copy_of_program(),
            Kind::Runc => PathBuf::from("runc"),
            Kind::Crun => PathBuf::from("crun"),
        };
        words.push(program.as_os_str());
        let mut command = if self.has_groups() {
            let mut command = Command::new(words.remove(0));
            command.args(words);
            command
        } else {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", WITHOUT_UNIFIED, "sh"]);
            command.args(words).arg("--cgroup-manager=disabled");
            command
        };
        let root = if before.is_empty() {
            "root"
        } else {
            "root-of-user"
        };
        command.arg("--root").arg(self.dir.path().join(root));
        if self.manager == Manager::Systemd {
            command.arg("--systemd-cgroup");
        }
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Ours, where others than root may read it.
    fn copy_of_program(&self) -> PathBuf {
        let copy = self.dir.path().join("hull-oci");
        if !copy.exists() {
            // By another program: a descriptor open for writing here would be inherited by what other
            // threads start, and who writes to a program cannot run it.
            let from = paths::dist().join("hull-oci");
            let copied = Command::new("cp").arg(from).arg(&copy).status();
            assert!(
                copied.is_ok_and(|status| status.success()),
                "copy the program"
            );
        }
        copy
    }

    /// Runs a command to its end. Output goes to files: what lives on would keep pipes open.
    ///
    /// # Panics
    /// If the program is missing.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
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
        let text = self.try_limit(names);
        text.unwrap_or_else(|| panic!("no {names:?} in {:?}", self.homes("c")))
    }

    /// The same, if there is one.
    #[must_use]
    pub fn try_limit(&self, names: &[&str]) -> Option<String> {
        let homes = self.homes("c");
        let text = homes
            .iter()
            .flat_map(|dir| names.iter().map(|name| dir.join(name)))
            .find_map(|file| fs::read_to_string(file).ok());
        text.map(|text| text.trim().to_owned())
    }

    /// The control groups of a container.
    #[must_use]
    pub fn homes(&self, id: &str) -> Vec<PathBuf> {
        let name = match self.manager {
            Manager::Files => format!("{}/{id}", self.group),
            Manager::Systemd => {
                // crun has a group of its own below the scope.
                let below = if self.kind == Kind::Crun {
                    "/container"
                } else {
                    ""
                };
                format!("{SLICE}/{}-{id}.scope{below}", self.group)
            }
        };
        let roots = hierarchies().into_iter();
        roots
            .map(|root| root.join(&name))
            .filter(|dir| dir.is_dir())
            .collect()
    }

    /// What containers left: control groups with any below, mounts, records, processes.
    #[must_use]
    pub fn residue(&self) -> Vec<String> {
        let mut left = Vec::new();
        for group in self.groups() {
            for entry in fs::read_dir(group).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let own = self.manager == Manager::Files || name.starts_with(&self.group);
                if own && entry.path().is_dir() {
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

    /// The groups in which those of its containers are.
    fn groups(&self) -> Vec<PathBuf> {
        let name = match self.manager {
            Manager::Files => self.group.as_str(),
            Manager::Systemd => SLICE,
        };
        let roots = hierarchies().into_iter();
        roots
            .map(|root| root.join(name))
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
        if self.manager == Manager::Systemd {
            return;
        }
        for group in self.groups() {
            for entry in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(group);
        }
    }
}

/// Runs a command to its end. Output goes to files: what lives on would keep pipes open.
///
/// # Panics
/// If the program is missing.
#[must_use]
pub fn said(command: &mut Command) -> Said {
    let mut files = [(); 2].map(|()| tempfile::tempfile().expect("file"));
    let status = command
        .stdout(files[0].try_clone().expect("dup"))
        .stderr(files[1].try_clone().expect("dup"))
        .status()
        .expect("run the runtime: cargo xtask build makes ours");
    let [out, err] = files.each_mut().map(text_of);
    let code = status.code().unwrap_or(-1);
    Said { code, out, err }
}

/// The roots of all hierarchies of control groups.
fn hierarchies() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(CGROUPS)];
    if !host::is_pure_v2() {
        let below = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
        roots.extend(below.map(|entry| entry.path()));
    }
    roots
}

fn text_of(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}
