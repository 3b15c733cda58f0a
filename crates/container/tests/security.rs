//! Bugs that other runtimes had and that must be impossible here.

mod support;

use std::os::unix::fs::symlink;
use std::path::Path;

use hull_proto::plan::{MountKind, Namespace, PlanDevice, RootFs};
use support::{Fixture, bind, process};

/// CVE-2021-30465, CVE-2026-41579: symlinks of the image on the way to mount targets.
#[test]
fn launch_symlinked_targets_stay_inside_the_root() {
    let fixture = Fixture::new();
    let outside = fixture.dir.join("outside");
    std::fs::create_dir(&outside).expect("mkdir");
    symlink(&outside, fixture.lower().join("abs")).expect("symlink");
    symlink("../../../../../../../../../..", fixture.lower().join("up")).expect("symlink");
    let mut plan = fixture.plan("cat /abs/made/mark; ls /up/bin | grep -c busybox");
    let source = fixture.dir.join("source");
    std::fs::create_dir(&source).expect("mkdir");
    std::fs::write(source.join("mark"), "seen\n").expect("write");
    // A dangling absolute link is an error, not a way out; so the folder is made inside first.
    let inside = fixture
        .lower()
        .join(outside.strip_prefix("/").expect("absolute"));
    std::fs::create_dir_all(inside).expect("mkdir");
    plan.mounts.push(bind(&source, "/abs/made"));
    plan.mounts.push(bind(&source, "/up/up/target"));
    let (text, code) = fixture.run(&plan);
    assert_eq!((text.as_str(), code), ("seen\n1\n", 0));
    assert_eq!(
        std::fs::read_dir(&outside).expect("dir").count(),
        0,
        "nothing was made outside"
    );
    assert!(!Path::new("/target").exists());
}

#[test]
fn launch_symlinked_dev_makes_nodes_inside_alone() {
    let fixture = Fixture::new();
    let outside = fixture.dir.join("hostdev");
    std::fs::create_dir(&outside).expect("mkdir");
    symlink(&outside, fixture.lower().join("dev")).expect("symlink");
    let plan = fixture.plan("true");
    // The link dangles inside, so the launch fails: but never by writing to the host.
    assert!(fixture.try_run(&plan).is_err());
    assert_eq!(std::fs::read_dir(&outside).expect("dir").count(), 0);
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc and /sys as symlinks.
#[test]
fn launch_symlinked_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.lower().join("evil")).expect("mkdir");
        symlink("/evil", fixture.lower().join(name)).expect("symlink");
        let error = fixture.try_run(&fixture.plan("true")).expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("cannot make the mount target /{name}")
        );
    }
}

/// CVE-2024-21626: a working directory that names a leaked descriptor.
#[test]
fn launch_working_directory_through_proc_self_fd_is_refused() {
    let fixture = Fixture::new();
    for cwd in ["/proc/self/fd/7", "/proc/self/cwd/x", "/proc/1/root"] {
        let mut plan = fixture.plan("pwd; ls");
        plan.process.cwd = cwd.to_owned();
        if let Ok((text, _)) = fixture.try_run(&plan) {
            panic!("{cwd} led to {text}");
        }
    }
}

/// CVE-2024-21626, other half: exec as well.
#[test]
fn exec_working_directory_through_proc_is_refused_and_no_descriptor_leaks() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let mut plan = process(&["/bin/ls", "/proc/self/fd"]);
    let (text, _) = running.exec(&fixture, &plan).expect("exec");
    // ls itself holds the folder it lists.
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3"],
        "{text}"
    );
    plan.cwd = "/proc/self/fd/9".to_owned();
    assert!(running.exec(&fixture, &plan).is_err());
}

/// CVE-2022-29162: inheritable capabilities of an exec.
#[test]
fn exec_capabilities_are_those_asked_for_and_none_is_inheritable() {
    let fixture = Fixture::new();
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let mut plan = process(&["/bin/grep", "^Cap", "/proc/self/status"]);
    plan.capabilities = vec!["CAP_NET_ADMIN".to_owned()];
    let (text, _) = running.exec(&fixture, &plan).expect("exec");
    let sets: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let (none, one) = ("0000000000000000", "0000000000001000");
    assert_eq!(sets, [none, one, one, one, none], "{text}");
}

/// CVE-2019-5736: while an exec is under way, nobody inside can look at our copy; and what runs
/// inside in the end is never our program.
#[test]
fn exec_processes_seen_inside_are_never_the_engine() {
    let fixture = Fixture::new();
    // Watches every process there is and says so if one has an executable it may open for
    // writing, or any link to follow that is not busybox.
    let script = "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do \
                  e=$(readlink $p/exe 2>/dev/null) && [ \"$e\" != /bin/busybox ] && echo FOUND $p $e; \
                  done; done; echo done";
    let mut plan = fixture.plan(script);
    plan.process.seccomp = hull_proto::plan::SeccompPlan::Unconfined;
    let (running, output) = fixture.start(&plan);
    for _ in 0..200 {
        running
            .exec(&fixture, &process(&["/bin/true"]))
            .expect("exec");
    }
    running
        .exec(&fixture, &process(&["/bin/touch", "/tmp/stop"]))
        .expect("exec");
    assert_eq!(output.text(), "done\n");
}

/// CVE-2023-25809: the control groups are not writable from inside.
#[test]
fn launch_cgroup_files_cannot_be_written() {
    let fixture = Fixture::new();
    let script = "ls /sys/fs/cgroup/memory | grep -c limit_in_bytes; \
                  echo 0 > /sys/fs/cgroup/memory/memory.limit_in_bytes; \
                  mkdir /sys/fs/cgroup/memory/x; mkdir /sys/fs/cgroup/x";
    let (text, _) = fixture.run(&fixture.plan(script));
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
}

/// CVE-2025-31133, CVE-2025-52565: what hides paths is checked to be what it should.
#[test]
fn launch_image_with_its_own_dev_null_and_console_cannot_redirect_masks() {
    let fixture = Fixture::new();
    let dev = fixture.lower().join("dev");
    std::fs::create_dir(&dev).expect("mkdir");
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).expect("symlink");
    symlink("/proc/sys/kernel/core_pattern", dev.join("console")).expect("symlink");
    // Without a tmpfs on it the image's own /dev is used: the wrong node is an error.
    let mut plan = fixture.plan("true");
    plan.mounts
        .retain(|mount| !mount.target.starts_with("/dev"));
    let error = fixture.try_run(&plan).expect_err("refused");
    assert_eq!(error.to_string(), "cannot make the device /dev/null");
    // With it, the masks are the host's node.
    let (text, _) = fixture.run(&fixture.plan("stat -c %t:%T /proc/interrupts /dev/null"));
    assert_eq!(text, "1:3\n1:3\n");
}

/// CVE-2025-52881: writes to procfs go to procfs, whatever the image or the plan puts at /proc.
#[test]
fn launch_sysctl_without_any_proc_mount_still_reaches_the_namespace() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("cat /proc/sys/net/core/somaxconn");
    plan.sysctls
        .insert("net.core.somaxconn".to_owned(), "1234".to_owned());
    plan.process.oom_score_adj = Some(500);
    let fake = fixture.lower().join("proc/sys/net/core");
    std::fs::create_dir_all(&fake).expect("mkdir");
    std::fs::write(fake.join("somaxconn"), "fake\n").expect("write");
    assert_eq!(fixture.run(&plan).0, "1234\n");
    plan.mounts
        .retain(|mount| !matches!(mount.kind, MountKind::Proc));
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    assert_eq!(
        fixture.run(&plan).0,
        "fake\n",
        "the image's file was not written"
    );
}

/// The bound on device rules holds even if the node can be made.
#[test]
fn launch_device_not_in_the_rules_cannot_be_opened() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("cat /dev/fuse; echo $?");
    plan.devices.push(PlanDevice {
        path: "/dev/fuse".to_owned(),
        block: false,
        fifo: false,
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let (text, _) = fixture.run(&plan);
    assert!(text.contains("Operation not permitted"), "{text}");
}

/// A directory as root: the host's folder is not changed by what the container mounts.
#[test]
fn launch_directory_root_leaves_no_mount_behind() {
    let fixture = Fixture::new();
    let mut plan = fixture.plan("cat /etc/passwd | wc -l; mount | grep -c tmpfs");
    plan.rootfs = RootFs::Directory {
        path: fixture.lower(),
    };
    plan.namespaces.net = Namespace::Host;
    let (text, code) = fixture.run(&plan);
    assert_eq!(code, 0, "{text}");
    let host = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!host.contains(&fixture.id));
}
