//! What several black-box suites share: reading a container's cgroup and its host-side facts.

pub mod docker;
pub mod documents;
pub mod forward;
pub mod hosts;
pub mod liar;
pub mod net;
pub mod odd;
pub mod outside;
pub mod questions;
pub mod rawtar;
pub mod registry;
pub mod tree;
pub mod watched;

use std::fs;
use std::path::{Path, PathBuf};

use hull_testkit::Daemon;

/// The image most tests run.
pub const IMAGE: &str = "busybox";

/// A command line that keeps a container alive until it is stopped, and stops at once on SIGTERM.
pub const SLEEP: [&str; 3] = [
    "sh",
    "-c",
    "trap 'exit 0' TERM; while :; do sleep 0.1; done",
];

/// The host's process id of a running container.
///
/// # Panics
/// If it does not run.
#[must_use]
pub fn pid_of(daemon: &Daemon, name: &str) -> u32 {
    let pid = daemon
        .inspect(name, "{{.State.Pid}}")
        .parse()
        .expect("a process id");
    assert!(pid > 0, "{name} does not run");
    pid
}

/// The content of a cgroup file of a process: `v1` of the controller's own hierarchy, or `v2`.
///
/// # Panics
/// If the process has no such cgroup.
#[must_use]
pub fn cgroup_value(pid: u32, controller: &str, v1: &str, v2: &str) -> String {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read the cgroup table");
    let mut unified = None;
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(at)) = (parts.next(), parts.next()) else {
            continue;
        };
        let at = at.trim_start_matches('/');
        if controllers.split(',').any(|one| one == controller) {
            let root = [controllers, controller]
                .iter()
                .map(|name| Path::new("/sys/fs/cgroup").join(name))
                .find(|dir| dir.is_dir())
                .expect("the controller is mounted");
            return read(&root.join(at).join(v1));
        }
        if controllers.is_empty() {
            unified = Some(Path::new("/sys/fs/cgroup").join(at).join(v2));
        }
    }
    read(&unified.expect("the process is in a cgroup"))
}

fn read(path: &PathBuf) -> String {
    fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .trim()
        .to_owned()
}
