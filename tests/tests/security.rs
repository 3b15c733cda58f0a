//! Bugs other engines had and this one must not: one test for each row of the list that its
//! parts could have.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, Run, fixtures, paths};
use hull_tests::pid_of;
use serde_json::json;

fn digest_of(path: &Path) -> String {
    Run::new("sha256sum").arg(path).ok()
}

/// Loads an image of busybox and one more layer.
fn image(daemon: &Daemon, tag: &str, layer: Layer) {
    let path = daemon.scratch().join("image.tar");
    Image::new(tag).busybox().layer(layer).write(&path);
    daemon.load(&path);
}

/// CVE-2019-5736: the engine's own program is overwritten through /proc/self/exe.
#[test]
fn engine_binary_is_not_reachable_from_inside() {
    let daemon = Daemon::new();
    let before: Vec<String> = if daemon.is_docker() {
        Vec::new()
    } else {
        ["hull", "hull-shim", "hull-agent", "hull-oci"]
            .iter()
            .map(|name| digest_of(&paths::dist().join(name)))
            .collect()
    };
    image(
        &daemon,
        "exe:1",
        Layer::new()
            .symlink("self", "/proc/self/exe")
            .file("interpreted", 0o755, b"#!/proc/self/exe\n")
            .file("bin/sh2", 0o755, b"#!/self\n"),
    );
    for command in ["/self", "/proc/self/exe", "/interpreted", "/bin/sh2"] {
        let out = daemon.hull(["run", "--rm", "exe:1", command, "--help"]);
        assert!(
            !out.stdout.to_lowercase().contains("hull-shim"),
            "{command}: {}",
            out.stdout
        );
    }
    daemon.ok(["run", "-d", "--name", "box", "exe:1", "sleep", "1000"]);
    daemon.hull(["exec", "box", "/proc/self/exe", "x"]);
    // No process inside ever shows a program outside of the root.
    let out = daemon.ok([
        "exec",
        "box",
        "sh",
        "-c",
        "for p in /proc/[0-9]*; do readlink $p/exe; done",
    ]);
    assert!(
        out.lines()
            .all(|line| line == "/bin/busybox" || line.starts_with("/bin/")),
        "{out}"
    );
    let write = daemon.hull(["exec", "box", "sh", "-c", "echo x >>/proc/1/exe"]);
    assert_ne!(write.code, 0);
    if !daemon.is_docker() {
        let after: Vec<String> = ["hull", "hull-shim", "hull-agent", "hull-oci"]
            .iter()
            .map(|name| digest_of(&paths::dist().join(name)))
            .collect();
        assert_eq!(before, after);
    }
}

/// CVE-2019-16884, -19921, 2023-27561, -28642: mounts over /proc, or /proc and /sys as links.
#[test]
fn proc_and_sys_as_links_or_volumes_do_not_weaken_the_masks() {
    let daemon = Daemon::new();
    for (tag, layer) in [
        ("link:proc", Layer::new().symlink("proc", "/tmp")),
        ("link:sys", Layer::new().symlink("sys", "/tmp")),
        ("link:procrel", Layer::new().symlink("proc", "tmp")),
    ] {
        image(&daemon, tag, layer);
        let out = daemon.hull(["run", "--rm", tag, "sh", "-c", "echo x >/proc/sys/kernel/hostname 2>/dev/null && echo written; ls -ld /tmp/self /tmp/sys 2>/dev/null"]);
        assert!(!out.stdout.contains("written"), "{tag}: {}", out.stdout);
        assert!(
            !out.stdout.contains("/tmp/self"),
            "{tag}: proc was mounted through a link: {}",
            out.stdout
        );
    }
    let path = daemon.scratch().join("volume.tar");
    for volume in ["/proc", "/proc/sys", "/sys"] {
        Image::new("volume:proc")
            .busybox()
            .set("Volumes", json!({volume: {}}))
            .write(&path);
        if daemon
            .cli(["load", "-i", &path.to_string_lossy()])
            .run()
            .code
            != 0
        {
            continue;
        }
        let out = daemon.hull([
            "run",
            "--rm",
            "volume:proc",
            "sh",
            "-c",
            "echo x >/proc/sysrq-trigger && echo written",
        ]);
        assert!(!out.stdout.contains("written"), "{volume}");
    }
}

/// CVE-2021-30465, 2024-45310: a mount's target is a link that leads out of the root.
#[test]
fn mount_targets_through_links_stay_in_the_root() {
    let daemon = Daemon::new();
    let scratch = daemon.scratch();
    let outside = scratch.join("outside");
    fs::create_dir(&outside).expect("make");
    let source = scratch.join("source");
    fs::create_dir(&source).expect("make");
    fs::write(source.join("mark"), "x").expect("write");
    let up = "../".repeat(20);
    image(
        &daemon,
        "links:1",
        Layer::new()
            .symlink("absolute", &outside.to_string_lossy())
            .symlink("relative", &format!("{up}{}", outside.display()))
            .symlink("loop", "loop"),
    );
    for target in ["/absolute", "/relative", "/absolute/made", "/relative/made"] {
        let _ = daemon.hull([
            "run",
            "--rm",
            "-v",
            &format!("{}:{target}", source.display()),
            "links:1",
            "ls",
            target,
        ]);
        assert_eq!(
            fs::read_dir(&outside).expect("read").count(),
            0,
            "{target} made something on the host"
        );
    }
    assert_ne!(
        daemon
            .hull([
                "run",
                "--rm",
                "-v",
                &format!("{}:/loop", source.display()),
                "links:1",
                "true"
            ])
            .code,
        0
    );
    for (flag, value) in [("--tmpfs", "/absolute/t"), ("-w", "/absolute/w")] {
        let _ = daemon.hull(["run", "--rm", flag, value, "links:1", "true"]);
        assert_eq!(
            fs::read_dir(&outside).expect("read").count(),
            0,
            "{flag} made something on the host"
        );
    }
}

/// CVE-2026-41579: the image's /dev is a link.
#[test]
fn dev_as_a_link_writes_nothing_outside() {
    let daemon = Daemon::new();
    let outside = daemon.scratch().join("outside-dev");
    fs::create_dir(&outside).expect("make");
    image(
        &daemon,
        "devlink:1",
        Layer::new().symlink("dev", &outside.to_string_lossy()),
    );
    let _ = daemon.hull(["run", "--rm", "devlink:1", "true"]);
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
    image(
        &daemon,
        "etclink:1",
        Layer::new().symlink("etc", &outside.to_string_lossy()),
    );
    let _ = daemon.hull(["run", "--rm", "etclink:1", "true"]);
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
    image(
        &daemon,
        "hostslink:1",
        Layer::new()
            .file("dev/null", 0o666, b"")
            .symlink("dev/console", "/etc/passwd")
            .symlink("dev/pts", &outside.to_string_lossy()),
    );
    let _ = daemon.hull(["run", "--rm", "-t", "hostslink:1", "true"]);
    assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
}

/// CVE-2022-29162: inheritable capabilities.
#[test]
fn inheritable_and_ambient_capabilities_are_empty() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "sleep",
        "1000",
    ]);
    for args in [
        vec!["exec", "box", "cat", "/proc/self/status"],
        vec!["exec", "-u", "1000", "box", "cat", "/proc/self/status"],
        vec![
            "run",
            "--rm",
            "-u",
            "1000",
            "--cap-add",
            "NET_ADMIN",
            "busybox",
            "cat",
            "/proc/self/status",
        ],
    ] {
        let status = daemon.ok(args);
        assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
        assert!(status.contains("CapAmb:\t0000000000000000"), "{status}");
    }
}

/// CVE-2024-21626: descriptors of the engine leak, and the working folder is one of them.
#[test]
fn no_descriptor_leaks_and_workdir_through_proc_fd_is_refused() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "ls", "/proc/self/fd"]),
        "0\n1\n2\n3"
    );
    daemon.ok(["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    assert_eq!(daemon.ok(["exec", "box", "ls", "/proc/1/fd"]), "0\n1\n2");
    for number in 3..20 {
        let dir = format!("/proc/self/fd/{number}");
        let out = daemon.hull([
            "run",
            "--rm",
            "-w",
            &dir,
            "busybox",
            "cat",
            "../../../../etc/hostname",
            "/proc/self/cwd/../../../etc/shadow",
        ]);
        assert!(!out.stdout.contains("root:"), "-w {dir}: {}", out.stdout);
        let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
        assert!(
            host.trim().is_empty() || !out.stdout.contains(host.trim()),
            "-w {dir}"
        );
    }
}

/// CVE-2025-31133: /dev/null of the image is not what masks are made of.
#[test]
fn masks_do_not_come_from_the_images_dev_null() {
    let daemon = Daemon::new();
    image(
        &daemon,
        "null:1",
        Layer::new()
            .dir("dev/", 0o755)
            .symlink("dev/null", "/proc/sys/kernel/core_pattern"),
    );
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read");
    let out = daemon.hull(["run", "--rm", "null:1", "sh", "-c", "stat -c '%F %t:%T' /dev/null; cat /proc/kcore 2>/dev/null | head -c 10 | wc -c; echo pwned >/proc/timer_list 2>/dev/null"]);
    assert!(
        out.code != 0 || out.stdout.starts_with("character special file 1:3"),
        "{}",
        out.stdout
    );
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read"),
        pattern
    );
}

/// Families a container must not open: AF_ALG and AF_VSOCK.
#[test]
fn sockets_of_alg_and_vsock_are_refused() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let mount = format!("{}:/probe:ro", fixtures::probe().display());
    let open = |family: &str| {
        daemon.hull([
            "run", "--rm", "-v", &mount, "busybox", "/probe", "socket", family,
        ])
    };
    assert_eq!(open("2").ok(), "opened");
    for family in ["38", "40"] {
        let out = open(family);
        assert_eq!(out.code, 1, "family {family}: {}", out.stdout);
        assert!(
            out.stderr.contains("not permitted") || out.stderr.contains("not supported"),
            "{}",
            out.stderr
        );
    }
}

/// CVE-2022-0492 and its kin: new user namespaces, cgroups and keys are out of reach.
#[test]
fn namespaces_and_cgroups_cannot_be_made_from_inside() {
    let daemon = Daemon::new();
    assert_ne!(
        daemon
            .hull(["run", "--rm", "busybox", "unshare", "-U", "true"])
            .code,
        0
    );
    assert_ne!(
        daemon
            .hull(["run", "--rm", "busybox", "unshare", "-m", "true"])
            .code,
        0
    );
    let script = "find /sys/fs/cgroup -maxdepth 2 -type d | while read d; do [ -e $d/cgroup.procs ] && mkdir $d/x 2>/dev/null && echo made $d; done; true";
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "sh", "-c", script]),
        ""
    );
    let script = "find /sys/fs/cgroup -name release_agent -o -name cgroup.procs | while read f; do echo 1 >$f 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "sh", "-c", script]),
        ""
    );
}

/// CVE-2021-41091: others on the host must not walk through the data folder.
#[test]
fn data_folder_is_closed_to_other_users() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let mode = fs::metadata(daemon.data_dir())
        .expect("stat")
        .permissions()
        .mode()
        & 0o777;
    assert_eq!(mode & 0o007, 0, "data folder has mode {mode:o}");
    let socket = fs::metadata(daemon.socket()).expect("stat");
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);
    assert_eq!(socket.uid(), 0);
}

/// The container's process cannot be traced into the engine: shim and daemon are not in its pid
/// namespace, and its memory cannot be read by another user's container process.
#[test]
fn processes_of_the_host_are_not_seen() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ls -d /proc/[0-9]* | wc -l",
    ]);
    assert!(out.parse::<u32>().is_ok_and(|count| count <= 4), "{out}");
    daemon.ok(["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    let pid = pid_of(&daemon, "box");
    let limits = fs::read_to_string(format!("/proc/{pid}/status")).expect("read");
    assert!(limits.contains("Seccomp:\t2"), "{limits}");
    // Nothing of the daemon's environment reaches the container.
    let environ = fs::read(format!("/proc/{pid}/environ")).expect("read");
    let environ = String::from_utf8_lossy(&environ);
    assert!(!environ.contains("HULL_"), "{environ}");
}

/// The host's mount table shows nothing of a container, nor the container the host's.
#[test]
fn mounts_of_containers_do_not_show_on_the_host() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let before = fs::read_to_string("/proc/self/mountinfo")
        .expect("read")
        .lines()
        .count();
    daemon.ok([
        "run", "-d", "--name", "box", "-v", "vol:/v", "--tmpfs", "/t", "busybox", "sleep", "1000",
    ]);
    assert_eq!(
        daemon.territory().mounts(),
        Vec::<std::path::PathBuf>::new()
    );
    let during = fs::read_to_string("/proc/self/mountinfo")
        .expect("read")
        .lines()
        .count();
    assert!(during <= before + 1, "{before} mounts became {during}");
    let mounts = daemon.ok(["exec", "box", "cat", "/proc/mounts"]);
    let root = mounts.lines().next().unwrap_or_default();
    assert!(root.contains(" / overlay "), "{root}");
    assert!(
        !mounts.contains(" /etc/alternatives") && mounts.lines().count() < 50,
        "{mounts}"
    );
    daemon.ok(["rm", "-f", "box"]);
    daemon.ok(["volume", "rm", "vol"]);
}

/// A process that joins a container gets the root its first process has, also where that root lies
/// on a helper's mount: nothing of the host's root may be left in the namespace.
#[test]
fn exec_has_the_root_of_the_container_and_no_other() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let show = "stat -c %d:%i / && grep -c ' / / ' /proc/self/mountinfo";
    for image in ["busybox", "host"] {
        let name = format!("root-{image}");
        let script = format!("({show}) >/part; mv /part /where; sleep 100");
        daemon.ok(["run", "-d", "--name", &name, image, "sh", "-c", &script]);
        let inside = daemon.ok([
            "exec",
            &name,
            "sh",
            "-c",
            "while [ ! -e /where ]; do sleep 0.1; done; cat /where",
        ]);
        let joined = daemon.ok(["exec", &name, "sh", "-c", show]);
        assert_eq!(joined, inside, "{image}");
        daemon.ok(["exec", &name, "touch", "/only-in-the-container"]);
        assert!(!Path::new("/only-in-the-container").exists(), "{image}");
        daemon.ok(["rm", "-f", &name]);
    }
}
