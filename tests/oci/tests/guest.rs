//! The conformance suite in a Debian guest: pure cgroup v2, AppArmor, another kernel, and systemd as
//! the one who makes control groups. Part of `cargo xtask test --machine`.
//!
//! A guest without hardware support is slow, so `hull-oci` runs what depends on the machine there
//! (control groups, AppArmor, namespaces, mounts, users), and runc and crun the control groups alone.
//! The rest is the same on every host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_testkit::machine::{Guest, Report};
use hull_testkit::paths;

/// A guest beside other work is several times as slow as alone.
const LIMIT: Duration = Duration::from_secs(500);

/// A folder for a guest's files, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = paths::target().join(format!("guest-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("make a folder for the guest");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One guest at a time: each takes all processors there are.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The suite with arguments, as a guest runs it: on the disk, whose file system can map ids.
fn suite(args: &str) -> String {
    format!(
        "export HULL_DIST=/payload/hull HULL_TARGET=/tmp TMPDIR=/var/tmp; \
         timeout 400 /payload/hull-conformance {args}"
    )
}

fn guest(new: fn(&Path) -> Guest, dir: &Path) -> Guest {
    let program = Path::new(env!("CARGO_BIN_EXE_hull-conformance"));
    new(dir).file(program, "hull-conformance").limit(LIMIT)
}

/// Demands that a run of the suite passed, with at least so many cases.
#[track_caller]
fn passed(report: &Report, name: &str, least: u64) {
    report.check(name, 0, "test result: ok. ");
    let text = &report.fate(name).output;
    let count = text
        .split("test result: ok. ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|digits| digits.parse::<u64>().ok());
    assert!(count >= Some(least), "{name}: only {count:?} cases");
}

#[test]
fn conformance_on_pure_cgroup_v2() {
    let scratch = Scratch::new("conformance-v2");
    let _turn = turn();
    let parts = "linux.resources. linux.namespaces. linux.cgroupsPath linux.memoryPolicy process. \
        mounts.cgroup mounts.idmap update. events. rootless. kill. pause. exec.";
    let report = guest(Guest::script, &scratch.0)
        .command("ours", &suite(&format!("--runtime hull-oci {parts}")))
        .run();
    passed(&report, "ours", 110);
}

#[test]
fn conformance_of_others_on_pure_cgroup_v2() {
    let scratch = Scratch::new("conformance-others");
    let _turn = turn();
    let report = guest(Guest::script, &scratch.0)
        .command(
            "others",
            &suite("--runtime runc,crun linux.resources. process.apparmor"),
        )
        .command("updates", &suite("--runtime runc update."))
        .run();
    passed(&report, "others", 50);
    passed(&report, "updates", 15);
}

#[test]
fn conformance_with_systemd() {
    let scratch = Scratch::new("conformance-systemd");
    let _turn = turn();
    let parts = "linux.resources. linux.cgroupsPath update. exec.same kill. create. pause. delete.";
    let same = "linux.resources.memory linux.resources.cpu linux.resources.pids linux.cgroupsPath";
    let report = guest(Guest::systemd, &scratch.0)
        .command(
            "ours",
            &suite(&format!("--runtime hull-oci --systemd-cgroup {parts}")),
        )
        .command(
            "others",
            &suite(&format!("--runtime runc,crun --systemd-cgroup {same}")),
        )
        .run();
    passed(&report, "ours", 60);
    passed(&report, "others", 30);
}
