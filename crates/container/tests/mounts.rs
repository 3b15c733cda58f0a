//! Binds, propagation, privileged containers and many launches at a time.

mod support;

use std::path::Path;

use hull_proto::plan::{DeviceRule, MountKind, MountOptions, PlanUser, SeccompPlan};
use hull_sys::clone3::Namespaces;
use hull_sys::mount::{self, Propagation};
use support::{Fixture, bind};

/// Runs a test in a mount namespace of its own, so that it may mount on the host's side.
fn in_own_mounts<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(|| {
        hull_sys::ns::unshare(Namespaces::MOUNT).expect("unshare");
        mount::set_root_propagation(Propagation::Private).expect("private");
        test()
    })
    .join()
    .expect("thread")
}

fn mount_tmpfs(path: &Path) {
    let text = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("path");
    mount::mount_legacy(Some(c"t"), &text, Some(c"tmpfs"), 0, None).expect("mount");
}

fn set_shared(path: &Path) {
    let text = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("path");
    mount::mount_legacy(None, &text, None, Propagation::Shared.bits(), None).expect("shared");
}

#[test]
fn launch_slave_bind_sees_later_mounts_of_the_host_and_a_private_one_does_not() {
    let seen = in_own_mounts(|| {
        ["rslave", "rprivate"].map(|propagation| {
            let fixture = Fixture::new();
            let shared = fixture.dir.join("shared");
            std::fs::create_dir_all(&shared).expect("mkdir");
            mount_tmpfs(&shared);
            set_shared(&shared);
            std::fs::create_dir(shared.join("sub")).expect("mkdir");
            let mut plan = fixture
                .plan("echo up; while [ ! -e /shared/go ]; do sleep 0.01; done; ls /shared/sub");
            let mut mount = bind(&shared, "/shared");
            mount.options.propagation = propagation.to_owned();
            plan.mounts.push(mount);
            let (running, mut output) = fixture.start(&plan);
            assert_eq!(output.line(), "up");
            mount_tmpfs(&shared.join("sub"));
            std::fs::write(shared.join("sub/late"), "").expect("write");
            std::fs::write(shared.join("go"), "").expect("write");
            let text = output.text();
            assert_eq!(running.wait(), 0);
            drop(running);
            for path in ["sub", "."] {
                let path = shared.join(path).canonicalize().expect("path");
                let path = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("path");
                mount::detach(&path).expect("umount");
            }
            text
        })
    });
    assert_eq!(seen, ["late\n", ""]);
}

#[test]
fn launch_readonly_bind_covers_mounts_below_it_only_if_asked() {
    let seen = in_own_mounts(|| {
        [false, true].map(|all| {
            let fixture = Fixture::new();
            let data = fixture.dir.join("data");
            std::fs::create_dir_all(data.join("sub")).expect("mkdir");
            mount_tmpfs(&data.join("sub"));
            let mut plan = fixture.plan(
                "touch /data/x 2>/dev/null || echo ro; touch /data/sub/x 2>/dev/null || echo ro",
            );
            let mut mount = bind(&data, "/data");
            mount.options.read_only = true;
            mount.options.recursive_read_only = all;
            plan.mounts.push(mount);
            let text = fixture.run(&plan).0;
            let sub = data.join("sub");
            let sub = std::ffi::CString::new(sub.to_string_lossy().as_bytes()).expect("path");
            mount::detach(&sub).expect("umount");
            text
        })
    });
    assert_eq!(seen, ["ro\n", "ro\nro\n"]);
}

#[test]
fn launch_bind_of_passwd_decides_who_the_user_is() {
    let fixture = Fixture::new();
    let passwd = fixture.dir.join("passwd");
    std::fs::write(&passwd, "other:x:1234:1235::/home/other:/bin/sh\n").expect("write");
    let mut plan = fixture.plan("id -u; id -g; id -G; echo $HOME; umask");
    plan.mounts.push(bind(&passwd, "/etc/passwd"));
    plan.process.user = PlanUser::Name("other".to_owned());
    plan.process.group_add = vec!["extra".to_owned(), "4321".to_owned()];
    plan.process.umask = Some(0o27);
    let (text, _) = fixture.run(&plan);
    assert_eq!(text, "1234\n1235\n1235 77 4321\n/home/other\n0027\n");
}

#[test]
fn launch_socket_and_file_binds_get_files_as_targets() {
    let fixture = Fixture::new();
    let socket = fixture.dir.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
    let mut plan = fixture.plan("test -S /var/run/x.sock && echo socket; cat /new/file");
    plan.mounts.push(bind(&socket, "/var/run/x.sock"));
    let file = fixture.dir.join("file");
    std::fs::write(&file, "text\n").expect("write");
    plan.mounts.push(bind(&file, "/new/file"));
    assert_eq!(fixture.run(&plan), ("socket\ntext\n".to_owned(), 0));
}

#[test]
fn launch_image_symlink_to_a_mounted_folder_is_followed_to_the_mount() {
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.lower().join("var")).expect("mkdir");
    std::os::unix::fs::symlink("/run", fixture.lower().join("var/run")).expect("symlink");
    std::fs::create_dir_all(fixture.lower().join("run")).expect("mkdir");
    let file = fixture.dir.join("file");
    std::fs::write(&file, "text\n").expect("write");
    let mut plan = fixture.plan("cat /run/file; grep -c ' /run/file ' /proc/self/mountinfo");
    plan.mounts.push(hull_proto::plan::PlanMount {
        target: "/run".to_owned(),
        kind: MountKind::Tmpfs {
            data: "mode=755".to_owned(),
        },
        options: MountOptions::default(),
    });
    plan.mounts.push(bind(&file, "/var/run/file"));
    assert_eq!(fixture.run(&plan), ("text\n1\n".to_owned(), 0));
}

#[test]
fn launch_privileged_plan_has_everything() {
    let fixture = Fixture::new();
    let script = "grep CapEff /proc/self/status; mkdir /tmp/m && mount -t tmpfs t /tmp/m && echo mounted; \
                  mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c; \
                  mkdir /sys/fs/cgroup/memory/x && rmdir /sys/fs/cgroup/memory/x && echo group; \
                  echo 7 > /proc/sys/kernel/shm_rmid_forced 2>/dev/null; cat /dev/kmsg 2>&1 | head -c 0; echo end";
    let mut plan = fixture.plan(script);
    plan.process.capabilities = vec!["ALL".to_owned()];
    plan.process.seccomp = SeccompPlan::Unconfined;
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    plan.cgroup.devices = vec![DeviceRule {
        allow: true,
        kind: 'a',
        major: None,
        minor: None,
        access: "rwm".to_owned(),
    }];
    for mount in &mut plan.mounts {
        mount.options.read_only = false;
    }
    let (text, code) = fixture.run(&plan);
    assert_eq!(code, 0, "{text}");
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own
        .lines()
        .find(|line| line.starts_with("CapEff"))
        .expect("line");
    assert!(text.contains(own), "{text}");
    assert!(
        text.contains("mounted\n1\ngroup\n") && text.ends_with("end\n"),
        "{text}"
    );
}

#[test]
fn launch_volatile_root_starts_again_and_keeps_its_files() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&fixture.plan("echo kept > /file")).1, 0);
    assert_eq!(fixture.run(&fixture.plan("cat /file")).0, "kept\n");
}

#[test]
fn launch_from_many_threads_all_succeed() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::spawn(move || {
                let fixture = Fixture::new();
                for round in 0..10 {
                    let plan = fixture.plan(&format!("exit {}", number + round));
                    assert_eq!(fixture.run(&plan).1, number + round);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("thread");
    }
}
