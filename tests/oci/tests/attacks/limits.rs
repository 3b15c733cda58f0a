//! The kernel's own files, sizes beyond bounds, and containers that refuse to end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{no_crash, ours};

/// Writes to what is the host's, with all capabilities but those of administrators.
#[test]
fn files_of_the_host_kernel_refuse_writes() {
    let runtime = ours();
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
    let read_only = json!([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger"
    ]);
    let script = "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
        /proc/sys/vm/drop_caches /sys/kernel/uevent_helper /sys/fs/cgroup/memory/release_agent /proc/1/oom_score_adj/x; do \
        [ -e $f ] || continue; (cat $f > /tmp/was; cat /tmp/was > $f) 2>/dev/null && echo WROTE $f; done; \
        mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo MADE; true";
    let said = runtime.script(
        &[("/mounts/-", mount), ("/linux/readonlyPaths", read_only)],
        script,
    );
    assert_eq!(said, "");
}

#[test]
fn fork_bomb_of_a_bounded_size_is_held_and_deleted() {
    let runtime = ours();
    let bomb = "i=0; while [ $i -lt 400 ]; do (trap '' TERM INT HUP; exec sleep 500) 2>/dev/null & i=$((i+1)); done; exec sleep 500";
    let bundle = runtime.bundle(
        "c",
        &[("/linux/resources/pids", json!({"limit": 40}))],
        &format!("exec 2>/dev/null; {bomb}"),
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    std::thread::sleep(Duration::from_millis(400));
    no_crash(&runtime.run(&["exec", "c", "true"]));
    if let Ok(list) = serde_json::from_str::<Value>(&runtime.ok(&["ps", "-f", "json", "c"])) {
        assert!(list.as_array().is_some_and(|list| list.len() <= 40));
    }
    runtime.ok(&["delete", "--force", "c"]);
    runtime.nothing_left();
}

/// Names and sizes beyond all bounds (CVE-2021-43784 was an overflow of a length).
#[test]
fn sizes_beyond_bounds_are_errors() {
    let runtime = ours();
    let long = "a".repeat(70_000);
    let many: Vec<_> = (0..5000_u32)
        .map(|i| json!({"containerID": i * 2, "hostID": i * 2, "size": 1}))
        .collect();
    for (pointer, value) in [
        ("/hostname", json!(long)),
        ("/process/cwd", json!(format!("/{long}"))),
        ("/linux/cgroupsPath", json!(format!("/{long}"))),
        (
            "/mounts/-",
            json!({"destination": format!("/{long}"), "type": "tmpfs", "source": "t"}),
        ),
        (
            "/mounts/-",
            json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": [format!("size={long}")]}),
        ),
        ("/linux/uidMappings", json!(many)),
        ("/linux/sysctl", json!({format!("net.{long}"): "1"})),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]),
        ),
        ("/root/path", json!(format!("rootfs/{long}"))),
        ("/process/args", json!([format!("{long}\u{0}x")])),
    ] {
        let bundle = runtime.bundle("c", &[(pointer, value)], "true");
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        no_crash(&said);
        assert!(said.code > 0, "{pointer} was taken");
        runtime.nothing_left();
    }
    let bundle = runtime.bundle("c", &[], "true");
    for id in ["../c", "a/b", "", ".", "..", "-x/", &long] {
        let said = runtime.run(&["run", "-b", bundle.path(), "--", id]);
        no_crash(&said);
        assert!(said.code > 0, "{id}");
    }
    runtime.nothing_left();
}

/// CVE-2022-0492: root of a user namespace of its own, with all rights in it, sets no program of the
/// host's control groups.
#[test]
fn release_agent_is_not_written() {
    let runtime = ours();
    let agent = || fs::read_to_string("/sys/fs/cgroup/memory/release_agent").unwrap_or_default();
    let before = agent();
    let caps = json!(["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_CHOWN"]);
    let maps = json!([{"containerID": 0, "hostID": 200_000, "size": 100}]);
    let script = "for kind in memory pids rdma; do mkdir -p /tmp/$kind; mount -t cgroup -o $kind none /tmp/$kind 2>/dev/null || continue; \
        (echo /data/harm >/tmp/$kind/release_agent) 2>/dev/null && echo WROTE $kind; umount /tmp/$kind; done; \
        mkdir -p /tmp/all; mount -t cgroup2 none /tmp/all 2>/dev/null && mkdir /tmp/all/../all/oci-harm 2>/dev/null; true";
    let bundle = runtime.bundle(
        "c",
        &[
            ("/linux/namespaces/-", json!({"type": "user"})),
            ("/linux/namespaces/-", json!({"type": "cgroup"})),
            ("/linux/uidMappings", maps.clone()),
            ("/linux/gidMappings", maps),
            ("/process/noNewPrivileges", json!(false)),
            (
                "/process/capabilities",
                json!({"bounding": caps, "effective": caps, "permitted": caps}),
            ),
        ],
        script,
    );
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(runtime.dir(), mode).expect("mode");
    let given = std::process::Command::new("chown")
        .args(["-hR", "200000:200000", bundle.path()])
        .status();
    assert!(given.is_ok_and(|status| status.success()), "chown");
    let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    assert_eq!(said, "");
    assert_eq!(agent(), before);
    assert!(!Path::new("/sys/fs/cgroup/unified/oci-harm").exists());
    assert!(!Path::new("/sys/fs/cgroup/oci-harm").exists());
}

/// CVE-2021-41091: what a runtime keeps on the host is for root alone.
#[test]
fn records_are_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let runtime = ours();
    let _bundle = runtime.sleeping(&[]);
    let root = runtime.dir().join("root");
    let mut dirs = vec![root.clone()];
    dirs.extend(
        fs::read_dir(&root)
            .expect("records")
            .flatten()
            .map(|entry| entry.path()),
    );
    for path in dirs.iter().filter(|path| path.is_dir()) {
        let mode = fs::metadata(path).expect("mode").permissions().mode() & 0o777;
        assert_eq!(mode & 0o066, 0, "{} has mode {mode:o}", path.display());
    }
}
