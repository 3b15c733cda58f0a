//! User and time namespaces: new ones, given ones, and processes that join them.

mod support;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;

use hull_proto::LaunchPlan;
use hull_proto::oci::{Clock, IdMap, IdMappings, TimeOffset};
use hull_proto::plan::{Namespace, PlanUser, RootFs};
use support::{Fixture, bind, process};

/// Where the container's ids lie on the host.
const BASE: u32 = 200_000;
const COUNT: u32 = 65_536;

fn mappings() -> IdMappings {
    let map = IdMap {
        inside: 0,
        outside: BASE,
        count: COUNT,
    };
    IdMappings {
        uids: vec![map],
        gids: vec![map],
    }
}

fn own_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("read") {
            own_tree(&entry.expect("entry").path(), id);
        }
    }
}

/// A folder as root file system, in a new user namespace.
fn plan(fixture: &Fixture, script: &str) -> LaunchPlan {
    let mut plan = fixture.plan(script);
    own_tree(&fixture.lower(), BASE);
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    plan.namespaces.user = Namespace::New;
    plan.id_mappings = mappings();
    plan
}

#[test]
fn new_user_namespace_root_inside_is_nobody_outside() {
    let fixture = Fixture::new();
    let script = "id -u; id -g; cat /proc/self/uid_map; cat /proc/self/setgroups; \
                  stat -c %u /proc/1 /dev/shm /dev/pts /sys/fs/cgroup/../../.. ; \
                  echo x > /dev/null && touch /dev/shm/a /f && echo ok; mount | grep -c ' /proc'; \
                  hostname; head -c 1 /dev/zero | wc -c; ls -l /dev/null";
    let (text, status) = fixture.run(&plan(&fixture, script));
    assert_eq!(status, 0, "{text}");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["0", "0"], "{text}");
    assert_eq!(
        lines[2].split_whitespace().collect::<Vec<_>>(),
        ["0", "200000", "65536"]
    );
    assert_eq!(lines[3], "allow");
    assert_eq!(lines[4..8], ["0", "0", "0", "0"], "{text}");
    assert_eq!(lines[8], "ok");
    let made = std::fs::metadata(fixture.lower().join("f")).expect("made");
    assert_eq!((made.uid(), made.gid()), (BASE, BASE));
}

#[test]
fn new_user_namespace_bind_of_what_the_ids_cannot_reach_works() {
    let fixture = Fixture::new();
    let secret = fixture.dir.join("closed");
    std::fs::create_dir(&secret).expect("mkdir");
    std::fs::create_dir(secret.join("data")).expect("mkdir");
    std::fs::write(secret.join("data/file"), "read me").expect("write");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o700)).expect("chmod");
    let mut plan = plan(&fixture, "cat /data/file; touch /data/x || echo denied");
    plan.mounts.push(bind(&secret.join("data"), "/data"));
    let (text, _) = fixture.run(&plan);
    assert!(text.starts_with("read me"), "{text}");
    assert!(text.contains("denied"), "{text}");
}

#[test]
fn new_user_namespace_other_user_and_groups_are_mapped() {
    let fixture = Fixture::new();
    let mut plan = plan(&fixture, "id -u; id -g; id -G; touch /tmp/mine");
    std::fs::set_permissions(
        fixture.lower().join("tmp"),
        PermissionsExt::from_mode(0o1777),
    )
    .expect("chmod");
    plan.process.user = PlanUser::Ids {
        uid: 1000,
        gid: 100,
        groups: vec![7, 8],
    };
    plan.process.oom_score_adj = Some(500);
    let (text, status) = fixture.run(&plan);
    assert_eq!((text.as_str(), status), ("1000\n100\n100 7 8\n", 0));
    let made = std::fs::metadata(fixture.lower().join("tmp/mine")).expect("made");
    assert_eq!((made.uid(), made.gid()), (BASE + 1000, BASE + 100));
}

#[test]
fn new_user_namespace_oom_score_is_set() {
    let fixture = Fixture::new();
    let mut plan = plan(&fixture, "cat /proc/self/oom_score_adj");
    plan.process.oom_score_adj = Some(500);
    assert_eq!(fixture.run(&plan).0, "500\n");
}

#[test]
fn new_user_namespace_terminal_is_its_own() {
    let fixture = Fixture::new();
    let mut plan = plan(
        &fixture,
        "tty; stat -c '%u %g' $(tty); test -c /dev/console && echo console",
    );
    plan.process.tty = true;
    plan.process.console_size = Some((33, 99));
    let (running, _output) = fixture.start(&plan);
    let master = running.0.process.terminal.as_ref().expect("terminal");
    let mut master = File::from(master.try_clone().expect("clone"));
    running.wait();
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = std::io::Read::read_to_end(&mut master, &mut text);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines, ["/dev/pts/0", "0 5", "console"], "{text}");
}

#[test]
fn exec_into_user_namespace_has_its_ids_and_capabilities() {
    let fixture = Fixture::new();
    let (running, mut output) = fixture.start(&plan(&fixture, "echo up; sleep 100"));
    assert_eq!(output.line(), "up");
    let script = "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; \
                  readlink /proc/1/ns/user; grep CapEff /proc/self/status; \
                  cat /proc/self/oom_score_adj; touch /by-exec";
    let mut plan = process(&["/bin/sh", "-c", script]);
    plan.oom_score_adj = Some(600);
    let (text, status) = running.exec(&fixture, &plan).expect("exec");
    assert_eq!(status, 0, "{text}");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "0");
    assert!(lines[1].contains("200000"), "{text}");
    assert_eq!(lines[2], lines[3]);
    assert!(lines[4].ends_with("00000000a80425fb"), "{text}");
    assert_eq!(lines[5], "600");
    let made = std::fs::metadata(fixture.lower().join("by-exec")).expect("made");
    assert_eq!(made.uid(), BASE);
    // Its own pid namespace, too.
    let (text, _) = running
        .exec(
            &fixture,
            &process(&["/bin/sh", "-c", "cat /proc/1/cmdline"]),
        )
        .expect("exec");
    assert!(text.starts_with("sleep\x00100"), "{text:?}");
}

#[test]
fn exec_into_user_namespace_with_terminal() {
    let fixture = Fixture::new();
    let (running, mut output) = fixture.start(&plan(&fixture, "echo up; sleep 100"));
    assert_eq!(output.line(), "up");
    let mut plan = process(&[
        "/bin/sh",
        "-c",
        "tty > /tty; stat -c '%u %g' $(tty) >> /tty",
    ]);
    plan.tty = true;
    let (_, status) = running.exec(&fixture, &plan).expect("exec");
    assert_eq!(status, 0);
    let text = std::fs::read_to_string(fixture.lower().join("tty")).expect("read");
    assert_eq!(text, "/dev/pts/0\n0 5\n");
}

#[test]
fn given_user_namespace_is_joined_and_owns_the_new_ones() {
    let fixture = Fixture::new();
    let (first, mut output) = fixture.start(&plan(&fixture, "echo up; sleep 100"));
    assert_eq!(output.line(), "up");
    let open = |name: &str| {
        OwnedFd::from(File::open(format!("/proc/{}/ns/{name}", first.0.process.pid)).expect("open"))
    };
    let second = Fixture::new();
    let mut joined = plan(
        &second,
        "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net; \
        mount -t tmpfs none /tmp && echo mounted; touch /f; ps | grep -c 'sleep 100'; cat /proc/self/oom_score_adj; \
        readlink /proc/self/ns/cgroup",
    );
    joined.id_mappings = IdMappings::default();
    joined.namespaces.user = Namespace::Fd(0);
    joined.namespaces.net = Namespace::Fd(1);
    joined.namespaces.cgroup = Namespace::Fd(2);
    joined.process.capabilities.push("SYS_ADMIN".to_owned());
    joined.process.seccomp = hull_proto::plan::SeccompPlan::Unconfined;
    joined.process.oom_score_adj = Some(300);
    let (text, status) = second
        .try_run_with(&joined, &[open("user"), open("net"), open("cgroup")])
        .expect("run");
    assert_eq!(status, 0, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let link = |name: &str| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{name}", first.0.process.pid));
        link.expect("link").to_string_lossy().into_owned()
    };
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1], link("user"));
    assert_eq!(lines[2], link("net"));
    assert_eq!(lines[3], "mounted");
    assert_eq!(lines[5], "300");
    assert_eq!(lines[6], link("cgroup"));
    let made = std::fs::metadata(second.lower().join("f")).expect("made");
    assert_eq!(made.uid(), BASE);
}

#[test]
fn new_user_namespace_with_namespaces_of_the_host_given() {
    let fixture = Fixture::new();
    let own =
        |name: &str| OwnedFd::from(File::open(format!("/proc/self/ns/{name}")).expect("open"));
    let mut plan = plan(
        &fixture,
        "id -u; readlink /proc/self/ns/uts; readlink /proc/self/ns/pid",
    );
    plan.hostname.clear();
    plan.namespaces.uts = Namespace::Fd(0);
    let (text, status) = fixture.try_run_with(&plan, &[own("uts")]).expect("run");
    assert_eq!(status, 0, "{text}");
    let uts = std::fs::read_link("/proc/self/ns/uts").expect("link");
    assert_eq!(text.lines().nth(1), uts.to_str());
}

#[test]
fn unmapped_user_and_contradictions_are_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    let mut unmapped = plan(&fixture, "true");
    unmapped.process.user = PlanUser::Ids {
        uid: 70_000,
        gid: 0,
        groups: Vec::new(),
    };
    let error = fixture.try_run(&unmapped).expect_err("refused").to_string();
    assert!(error.contains("70000 is not mapped"), "{error}");

    let mut alone = plan(&fixture, "true");
    alone.namespaces.user = Namespace::Host;
    let error = fixture.try_run(&alone).expect_err("refused").to_string();
    assert!(error.contains("user namespace"), "{error}");

    let mut clocks = plan(&fixture, "true");
    clocks.time_offsets = vec![offset(Clock::Boottime, 1)];
    let error = fixture.try_run(&clocks).expect_err("refused").to_string();
    assert!(error.contains("time namespace"), "{error}");
}

fn offset(clock: Clock, seconds: i64) -> TimeOffset {
    TimeOffset {
        clock,
        seconds,
        nanoseconds: 0,
    }
}

fn uptime(text: &str) -> f64 {
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .expect("uptime")
}

#[test]
fn new_time_namespace_has_its_offsets_and_exec_sees_them() {
    const DAYS: i64 = 500 * 86_400;
    let fixture = Fixture::new();
    for with_users in [false, true] {
        let mut plan = plan(&fixture, "cat /proc/uptime; sleep 100");
        if !with_users {
            plan.namespaces.user = Namespace::Host;
            plan.id_mappings = IdMappings::default();
        }
        plan.namespaces.time = Namespace::New;
        plan.time_offsets = vec![
            offset(Clock::Monotonic, DAYS),
            offset(Clock::Boottime, DAYS),
        ];
        let (running, mut output) = fixture.start(&plan);
        let outside = uptime(&std::fs::read_to_string("/proc/uptime").expect("uptime"));
        let inside = uptime(&output.line());
        assert!(
            (inside - outside - DAYS as f64).abs() < 100.0,
            "{inside} {outside}"
        );
        let (text, _) = running
            .exec(
                &fixture,
                &process(&["/bin/cat", "/proc/uptime", "/proc/self/timens_offsets"]),
            )
            .expect("exec");
        assert!(
            (uptime(&text) - outside - DAYS as f64).abs() < 100.0,
            "{text}"
        );
        assert_eq!(text.matches(&DAYS.to_string()).count(), 2, "{text}");
    }
    // The caller's own clocks are as they were.
    let own = std::fs::read_link("/proc/self/ns/time").expect("link");
    let children = std::fs::read_link("/proc/self/ns/time_for_children").expect("link");
    assert_eq!(own, children);
}

#[test]
fn given_time_namespace_is_joined() {
    let fixture = Fixture::new();
    let mut first = fixture.plan("echo up; sleep 100");
    first.namespaces.time = Namespace::New;
    first.time_offsets = vec![offset(Clock::Boottime, 1_000_000)];
    let (running, mut output) = fixture.start(&first);
    assert_eq!(output.line(), "up");
    let path = format!("/proc/{}/ns/time", running.0.process.pid);
    let second = Fixture::new();
    let mut plan = second.plan("cat /proc/self/timens_offsets");
    plan.namespaces.time = Namespace::Fd(0);
    let given = OwnedFd::from(File::open(path).expect("open"));
    let (text, status) = second.try_run_with(&plan, &[given]).expect("run");
    assert_eq!(status, 0, "{text}");
    assert!(text.contains("1000000"), "{text}");
}

#[test]
fn no_mount_namespace_root_is_detached_with_a_failure_and_kept_otherwise() {
    let fixture = Fixture::new();
    let mut plan = fixture
        .plan("cat /etc/passwd | head -n 1; test -d /proc/self && readlink /proc/self/ns/mnt");
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    plan.namespaces.mount = Namespace::Host;
    let error = fixture.try_run(&plan).expect_err("refused").to_string();
    assert!(error.contains("masked or read-only"), "{error}");
    plan.masked_paths.clear();
    plan.readonly_paths.clear();

    let mounted = || {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("read");
        table.contains(&fixture.id)
    };
    let (running, output) = fixture.start(&plan);
    let text = output.text();
    running.wait();
    let own = std::fs::read_link("/proc/self/ns/mnt").expect("link");
    assert!(text.starts_with("root:x:0"), "{text}");
    assert_eq!(text.lines().nth(1), own.to_str());
    let id = running.0.root_mount.expect("id");
    assert!(mounted());
    // Not what somebody else has mounted there.
    hull_container::detach_root(&fixture.lower(), id + 1000).expect("nothing");
    assert!(mounted());
    hull_container::detach_root(&fixture.lower(), id).expect("detached");
    assert!(!mounted());
    drop(running);

    plan.process.args = vec!["/no/such".to_owned()];
    fixture.try_run(&plan).expect_err("no program");
    assert!(!mounted());
}

#[test]
fn given_mount_namespace_keeps_its_root_and_loses_what_failed() {
    let fixture = Fixture::new();
    // A namespace of somebody's: a copy of ours, private.
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "100"])
        .spawn()
        .expect("unshare");
    let path = format!("/proc/{}/ns/mnt", holder.id());
    let own = std::fs::read_link("/proc/self/ns/mnt").expect("link");
    while std::fs::read_link(&path).expect("link") == own {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let table = || {
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", holder.id()));
        table.expect("table").matches(&fixture.id).count()
    };
    let given = || OwnedFd::from(File::open(&path).expect("open"));
    let mut plan = fixture.plan("head -n 1 /etc/passwd; readlink /proc/self/ns/mnt");
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    plan.namespaces.mount = Namespace::Fd(0);
    let theirs = std::fs::read_link(&path).expect("link");
    let (text, status) = fixture.try_run_with(&plan, &[given()]).expect("run");
    let attached = table();
    plan.process.args = vec!["/no/such".to_owned()];
    let failed = fixture.try_run_with(&plan, &[given()]);
    let left = table();
    let root = std::fs::metadata(format!("/proc/{}/root/usr", holder.id()));
    let _ = holder.kill();
    let _ = holder.wait();
    assert_eq!(status, 0, "{text}");
    assert!(text.starts_with("root:x:0"), "{text}");
    assert_eq!(text.lines().nth(1), theirs.to_str());
    assert!(root.is_ok());
    assert!(failed.is_err());
    assert!(attached > 0);
    assert_eq!(left, attached);
}

#[test]
fn exec_into_user_namespace_with_a_covered_proc_works() {
    let fixture = Fixture::new();
    let mut hostile = plan(&fixture, "mount -t tmpfs none /proc && echo up; sleep 100");
    hostile.process.capabilities.push("SYS_ADMIN".to_owned());
    hostile.process.seccomp = hull_proto::plan::SeccompPlan::Unconfined;
    let (running, mut output) = fixture.start(&hostile);
    assert_eq!(output.line(), "up");
    let script = "id -u; ls -A /proc | wc -l; ls /proc/1 2>/dev/null";
    let (text, status) = running
        .exec(&fixture, &process(&["/bin/sh", "-c", script]))
        .expect("exec");
    assert_eq!((text.as_str(), status), ("0\n0\n", 1), "{text}");
}
