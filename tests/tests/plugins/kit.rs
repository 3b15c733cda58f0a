//! Daemons of other engines, with folders and control groups of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long an engine may take to end.
const STOP: Duration = Duration::from_secs(20);

/// A daemon of somebody else's, with folders of its own; it ends with the value.
pub(crate) struct Engine {
    child: Child,
    pub(crate) dir: tempfile::TempDir,
    cgroup: String,
}

impl Engine {
    pub(crate) fn spawn(program: &str, cgroup: &str, args: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hp-")
            .tempdir_in("/tmp")
            .expect("folder");
        let log = fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new(program)
            .args(args(dir.path()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Self {
            child,
            dir,
            cgroup: format!("{cgroup}-{}", std::process::id()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        hull_testkit::wait_until(STOP, || !matches!(self.child.try_wait(), Ok(None)));
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_groups(&self.cgroup);
    }
}

/// Removes the group, and those below it, from each hierarchy. The processes that Podman leaves to
/// watch a container end a moment after it.
pub(crate) fn remove_groups(name: &str) {
    let groups = || {
        let all = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        all.map(|hierarchy| hierarchy.path().join(name))
            .filter(|path| path.exists())
    };
    hull_testkit::wait_until(STOP, || {
        for group in groups() {
            for below in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(group);
        }
        groups().next().is_none()
    });
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}
