//! Mounts, the root and devices of a bundle, looked at from inside; by runc, too, where it has the
//! same to say.

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::{Value, json};
use support::{Bundle, Runtime};

/// Runs a script with further mounts; what it says.
#[track_caller]
fn with(runtime: &Runtime, mounts: &[Value], script: &str) -> String {
    let bundle = bundle(runtime, mounts, script);
    runtime.ok(&["run", "-b", bundle.path(), "c"])
}

fn bundle(runtime: &Runtime, mounts: &[Value], script: &str) -> Bundle {
    let mut bundle = Bundle::new(runtime, "c", &["sh", "-c", script]);
    for mount in mounts {
        bundle.set("/mounts/-", mount.clone());
    }
    bundle
}

fn new(kind: &str, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": kind, "options": options })
}

fn bind(source: &Path, target: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": "none", "source": source, "options": options })
}

/// The fields of mountinfo from the options on, of the mount at a path.
fn show(target: &str) -> String {
    format!(
        "while read a b c d at rest; do [ $at = {target} ] && echo $rest; done < \
         /proc/self/mountinfo; true"
    )
}

/// Makes a tmpfs in a mount namespace of this thread's own, which the test's containers come from.
fn own_mounts() {
    hull_sys::ns::unshare(hull_sys::clone3::Namespaces::MOUNT).expect("unshare");
    hull_sys::mount::set_root_propagation(hull_sys::mount::Propagation::Private).expect("private");
}

fn c_text(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("path")
}

fn mount_tmpfs(path: &Path, flags: u64) {
    fs::create_dir_all(path).expect("folder");
    hull_sys::mount::mount_legacy(Some(c"t"), &c_text(path), Some(c"tmpfs"), flags, None)
        .expect("tmpfs");
}

#[test]
fn mounts_of_each_type_show_the_options_they_were_given() {
    for (kind, options, expected) in [
        ("tmpfs", &["ro"][..], "ro,relatime - tmpfs tmpfs rw"),
        (
            "tmpfs",
            &["nosuid", "nodev", "noexec"],
            "rw,nosuid,nodev,noexec,relatime - tmpfs",
        ),
        ("tmpfs", &["noatime"], "rw,noatime - tmpfs"),
        ("tmpfs", &["strictatime"], "rw - tmpfs"),
        ("tmpfs", &["nodiratime"], "rw,nodiratime,relatime - tmpfs"),
        ("tmpfs", &["nosymfollow"], "rw,relatime,nosymfollow - tmpfs"),
        ("tmpfs", &["sync"], "rw,relatime - tmpfs tmpfs rw,sync"),
        (
            "tmpfs",
            &["dirsync", "lazytime"],
            "rw,relatime - tmpfs tmpfs rw,dirsync,lazytime",
        ),
        (
            "tmpfs",
            &["silent", "iversion", "acl", "async"],
            "rw,relatime - tmpfs tmpfs rw",
        ),
        (
            "tmpfs",
            &["mode=700", "size=1m"],
            "rw,relatime - tmpfs tmpfs rw,size=1024k,mode=700",
        ),
        (
            "tmpfs",
            &["mode=700,size=1m"],
            "rw,relatime - tmpfs tmpfs rw,size=1024k,mode=700",
        ),
        ("tmpfs", &["shared"], "rw,relatime shared:"),
        ("tmpfs", &["unbindable"], "rw,relatime unbindable - tmpfs"),
        ("ramfs", &[], "rw,relatime - ramfs ramfs rw"),
        (
            "mqueue",
            &["noexec"],
            "rw,noexec,relatime - mqueue mqueue rw",
        ),
        ("sysfs", &["ro"], "ro,relatime - sysfs sysfs r"),
        (
            "devpts",
            &["newinstance", "max=5", "ptmxmode=0600"],
            "rw,relatime - devpts devpts rw,mode=600,ptmxmode=600,max=5",
        ),
    ] {
        for runtime in Runtime::both() {
            let said = with(&runtime, &[new(kind, "/x", options)], &show("/x"));
            assert!(said.starts_with(expected), "{kind} {options:?}: {said}");
        }
    }
}

#[test]
fn mounts_procfs_may_hide_processes() {
    for runtime in Runtime::both() {
        let proc = new("proc", "/x", &["hidepid=2"]);
        let said = with(&runtime, &[proc], &show("/x"));
        assert!(said.contains("hidepid="), "{said}");
    }
}

#[test]
fn mounts_recursive_options_reach_the_mounts_below() {
    own_mounts();
    let dir = tempfile::tempdir().expect("folder");
    mount_tmpfs(dir.path(), libc::MS_NOSUID | libc::MS_NODEV);
    mount_tmpfs(&dir.path().join("sub"), libc::MS_NOEXEC);
    for (options, expected) in [
        (
            &["rbind"][..],
            ["rw,nosuid,nodev,relatime -", "rw,noexec,relatime -"],
        ),
        (&["rbind", "ro"], ["ro,relatime -", "rw,noexec,relatime -"]),
        (
            &["rbind", "rro"],
            ["ro,nosuid,nodev,relatime -", "ro,noexec,relatime -"],
        ),
        (
            &["rbind", "rnosuid", "rnoexec"],
            [
                "rw,nosuid,nodev,noexec,relatime -",
                "rw,nosuid,noexec,relatime -",
            ],
        ),
        (
            &["rbind", "rexec"],
            ["rw,nosuid,nodev,relatime -", "rw,relatime -"],
        ),
        (
            &["rbind", "rnoatime"],
            ["rw,nosuid,nodev,noatime -", "rw,noexec,noatime -"],
        ),
        (
            &["rbind", "rstrictatime"],
            ["rw,nosuid,nodev -", "rw,noexec -"],
        ),
        (
            &["rbind", "rnosymfollow"],
            [
                "rw,nosuid,nodev,relatime,nosymfollow -",
                "rw,noexec,relatime,nosymfollow -",
            ],
        ),
    ] {
        for runtime in Runtime::both() {
            for (target, expected) in ["/x", "/x/sub"].iter().zip(expected) {
                let mount = bind(dir.path(), "/x", options);
                let said = with(&runtime, &[mount], &show(target));
                assert!(said.starts_with(expected), "{options:?} {target}: {said}");
            }
        }
    }
    for path in [dir.path().join("sub"), dir.path().to_owned()] {
        hull_sys::mount::detach(&c_text(&path)).expect("umount");
    }
}

#[test]
fn mounts_read_only_tmpfs_holds_others() {
    for runtime in Runtime::both() {
        let mounts = [new("tmpfs", "/x", &["ro"]), new("tmpfs", "/x/y/z", &[])];
        let script = "touch /x/y/a || echo ro; touch /x/y/z/a && echo rw";
        assert_eq!(with(&runtime, &mounts, script), "ro\nrw\n");
    }
}

#[test]
fn mounts_tmpcopyup_begins_with_what_the_root_has() {
    for runtime in Runtime::both() {
        let script = "ls -ln /x/a; ls /x; touch /x/new && echo rw";
        let bundle = bundle(&runtime, &[new("tmpfs", "/x", &["tmpcopyup"])], script);
        let x = bundle.root().join("x");
        fs::create_dir_all(x.join("a")).expect("folder");
        fs::write(x.join("a/file"), "text").expect("file");
        let mode = fs::Permissions::from_mode(0o640);
        std::os::unix::fs::chown(x.join("a/file"), Some(7), Some(8)).expect("chown");
        fs::set_permissions(x.join("a/file"), mode).expect("chmod");
        symlink("/etc/shadow", x.join("link")).expect("link");
        let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        assert!(
            said.contains("-rw-r-----    1 7        8                4 "),
            "{said}"
        );
        assert!(said.ends_with("a\nlink\nrw\n"), "{said}");
        assert!(!x.join("new").exists());
    }
}

#[test]
fn mounts_tmpfs_has_the_mode_of_its_folder() {
    for runtime in Runtime::both() {
        let bundle = bundle(&runtime, &[new("tmpfs", "/data", &[])], "ls -ld /data");
        let mode = fs::Permissions::from_mode(0o1711);
        fs::set_permissions(bundle.root().join("data"), mode).expect("chmod");
        let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        assert!(said.starts_with("drwx--x--t"), "{said}");
    }
}

#[test]
fn mounts_symbolic_links_of_sources_and_targets_are_taken_as_asked() {
    let dir = tempfile::tempdir().expect("folder");
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "text\n").expect("file");
    symlink("file", &link).expect("link");
    let runtime = Runtime::ours();
    let script = "ls -l /l; ls -l /made; cat /over; ls -l /over /etc";
    let mounts = [
        bind(&link, "/l", &["bind", "src-nofollow"]),
        bind(&link, "/made", &["bind", "copy-symlink"]),
        bind(&file, "/over", &["bind", "dest-nofollow"]),
    ];
    let bundle = bundle(&runtime, &mounts, script);
    symlink("/etc/none", bundle.root().join("over")).expect("link");
    let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("/l -> file"), "{said}");
    assert!(lines[1].ends_with("/made -> file"), "{said}");
    assert_eq!(lines[2], "text");
    assert!(
        lines[3].starts_with("-rw") && lines[3].ends_with("/over"),
        "{said}"
    );
    assert!(!said.contains("none"), "{said}");
}

#[test]
fn mounts_target_behind_a_dangling_link_is_made_inside() {
    let dir = tempfile::tempdir().expect("folder");
    fs::write(dir.path().join("resolv"), "nameserver\n").expect("file");
    for runtime in Runtime::both() {
        let source = dir.path().join("resolv");
        let mounts = [bind(&source, "/etc/resolv.conf", &["bind"])];
        let bundle = bundle(&runtime, &mounts, "cat /etc/resolv.conf");
        let link = bundle.root().join("etc/resolv.conf");
        symlink("../run/hull-stub/stub.conf", link).expect("link");
        assert_eq!(
            runtime.ok(&["run", "-b", bundle.path(), "c"]),
            "nameserver\n"
        );
        assert!(bundle.root().join("run/hull-stub/stub.conf").is_file());
    }
    assert!(!Path::new("/run/hull-stub").exists());
}

#[test]
fn mounts_over_the_root_and_procfs_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let runtime = Runtime::ours();
    for (mount, part) in [
        (bind(dir.path(), "/", &["bind"]), "over the root"),
        (bind(dir.path(), "/x/..", &["bind"]), "over the root"),
        (bind(dir.path(), "/proc", &["bind"]), "over procfs at /proc"),
        (
            bind(dir.path(), "/proc/sys", &["bind"]),
            "over procfs at /proc/sys",
        ),
        (new("tmpfs", "/proc", &[]), "mounts[4]"),
        (new("ext4", "/x", &["data=nonsense"]), "/x"),
    ] {
        let bundle = bundle(&runtime, &[mount], "true");
        let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
        assert!(said.contains(part), "{said}");
        assert!(runtime.ok(&["list", "-q"]).is_empty());
        assert!(runtime.cgroup_dirs().is_empty());
    }
    let allowed = dir.path().join("uptime");
    fs::write(&allowed, "7 7\n").expect("file");
    let mount = bind(&allowed, "/proc/uptime", &["bind"]);
    assert_eq!(with(&runtime, &[mount], "cat /proc/uptime"), "7 7\n");
}

#[test]
fn mounts_trusted_folders_that_are_links_are_refused() {
    let runtime = Runtime::ours();
    for name in ["dev", "proc", "sys"] {
        let outside = tempfile::tempdir().expect("folder");
        let bundle = bundle(&runtime, &[], "true");
        let path = bundle.root().join(name);
        fs::remove_dir(&path).expect("folder");
        fs::create_dir_all(bundle.root().join("data/evil")).expect("folder");
        for to in [Path::new("/data/evil"), outside.path()] {
            symlink(to, &path).expect("link");
            let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
            assert!(said.contains(&format!("/{name}")), "{said}");
            fs::remove_file(&path).expect("link");
        }
        for dir in [outside.path(), &bundle.root().join("data/evil")] {
            assert_eq!(fs::read_dir(dir).expect("folder").count(), 0, "{name}");
        }
    }
}

#[test]
fn mounts_nodes_are_not_led_into_a_volume_by_a_link_in_dev() {
    let runtime = Runtime::ours();
    let volume = tempfile::tempdir().expect("folder");
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    let mount = bind(volume.path(), "/data", &["bind"]);
    bundle.set("/mounts", json!([new("proc", "/proc", &[]), mount]));
    let device = json!({ "path": "/dev/sub/node", "type": "c", "major": 1, "minor": 3 });
    bundle.set("/linux/devices", json!([device]));
    symlink("/data", bundle.root().join("dev/sub")).expect("link");
    let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
    assert!(said.contains("/dev/sub/node"), "{said}");
    assert_eq!(fs::read_dir(volume.path()).expect("folder").count(), 0);
}

#[test]
fn root_propagation_is_what_was_asked_for() {
    own_mounts();
    let runtime = Runtime::ours();
    for (propagation, expected) in [
        ("private", "rw,relatime -"),
        ("rprivate", "rw,relatime -"),
        ("slave", "rw,relatime master:"),
        ("rslave", "rw,relatime master:"),
        ("shared", "rw,relatime shared:"),
        ("rshared", "rw,relatime shared:"),
        ("unbindable", "rw,relatime unbindable -"),
        ("runbindable", "rw,relatime unbindable -"),
    ] {
        let mut bundle = bundle(&runtime, &[], &show("/"));
        bundle.set("/linux/rootfsPropagation", json!(propagation));
        let root = c_text(&bundle.root());
        let mount = |source, flags| {
            hull_sys::mount::mount_legacy(source, &root, None, flags, None).expect("mount");
        };
        mount(Some(root.as_c_str()), libc::MS_BIND);
        mount(None, libc::MS_SHARED);
        let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        hull_sys::mount::detach(&root).expect("umount");
        assert!(said.starts_with(expected), "{propagation}: {said}");
    }
}

#[test]
fn mounts_shared_bind_is_the_hosts_peer_in_a_shared_root_alone() {
    own_mounts();
    let dir = tempfile::tempdir().expect("folder");
    mount_tmpfs(dir.path(), 0);
    let path = c_text(dir.path());
    hull_sys::mount::mount_legacy(None, &path, None, libc::MS_SHARED, None).expect("shared");
    for (root, is_peer) in [("", false), ("rslave", false), ("shared", true)] {
        for runtime in Runtime::both() {
            let mounts = [bind(dir.path(), "/x", &["rbind", "rshared"])];
            let mut bundle = bundle(&runtime, &mounts, &show("/x"));
            if !root.is_empty() {
                bundle.set("/linux/rootfsPropagation", json!(root));
            }
            let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
            assert!(said.starts_with("rw,relatime shared:"), "{root}: {said}");
            assert_eq!(!said.contains(" master:"), is_peer, "{root}: {said}");
        }
    }
    hull_sys::mount::detach(&path).expect("umount");
}

#[test]
fn root_by_chroot_shows_the_same_and_takes_an_exec() {
    for runtime in Runtime::both() {
        let bundle = bundle(&runtime, &[], "sleep 100");
        let args = ["run", "-d", "--no-pivot", "-b", bundle.path(), "c"];
        runtime.ok(&args);
        let said = runtime.ok(&["exec", "c", "sh", "-c", "pwd; ls -d /data; ls /.."]);
        assert!(said.starts_with("/\n/data\n"), "{said}");
        assert!(!said.contains("root"), "{said}");
        runtime.ok(&["delete", "--force", "c"]);
    }
}

#[test]
fn paths_are_hidden_and_read_only() {
    for runtime in Runtime::both() {
        let script = "ls /data | grep -c .; cat /etc/secret | grep -c .; touch /tmp/x || echo ro; \
                      touch /data/x || echo ro";
        let mut bundle = bundle(&runtime, &[], script);
        bundle.set(
            "/linux/maskedPaths",
            json!(["/data", "/etc/secret", "/none"]),
        );
        bundle.set("/linux/readonlyPaths", json!(["/tmp", "/none/x"]));
        fs::write(bundle.root().join("data/file"), "x").expect("file");
        fs::write(bundle.root().join("etc/secret"), "x").expect("file");
        let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        assert_eq!(said, "0\n0\nro\nro\n");
    }
}

#[test]
fn devices_of_every_type_are_made_with_owner_and_mode() {
    for runtime in Runtime::both() {
        let mut bundle = bundle(&runtime, &[], "true");
        bundle.set("/mounts", json!([new("proc", "/proc", &[])]));
        bundle.set(
            "/linux/devices",
            json!([
                { "path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 3, "gid": 4 },
                { "path": "/dev/a/b/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 7, "gid": 8 },
                { "path": "/dev/loop", "type": "b", "major": 7, "minor": 0 },
            ]),
        );
        runtime.ok(&["run", "-b", bundle.path(), "c"]);
        let stat = |name: &str| fs::symlink_metadata(bundle.root().join("dev").join(name));
        let pipe = stat("pipe").expect("pipe");
        assert!(pipe.file_type().is_fifo());
        assert_eq!((pipe.mode() & 0o777, pipe.uid(), pipe.gid()), (0o640, 3, 4));
        let null = stat("a/b/null").expect("null");
        assert_eq!((null.rdev(), null.uid(), null.gid()), (0x103, 7, 8));
        assert_eq!(null.mode() & 0o777, 0o600);
        assert!(stat("loop").expect("loop").file_type().is_block_device());
        for (name, text) in [("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")] {
            let link = fs::read_link(bundle.root().join("dev").join(name)).expect("link");
            assert_eq!(link, Path::new(text));
        }
    }
}

#[test]
fn devices_of_a_bound_dev_are_left_as_they_are() {
    for runtime in Runtime::both() {
        let dev = tempfile::tempdir().expect("folder");
        fs::write(dev.path().join("own"), "").expect("file");
        let node = bind(Path::new("/dev/null"), "/dev/null", &["bind"]);
        fs::write(dev.path().join("null"), "").expect("file");
        let mut bundle = Bundle::new(&runtime, "c", &["ls", "/dev"]);
        let dev_mount = bind(dev.path(), "/dev", &["rbind"]);
        bundle.set(
            "/mounts",
            json!([new("proc", "/proc", &[]), dev_mount, node]),
        );
        assert_eq!(
            runtime.ok(&["run", "-b", bundle.path(), "c"]),
            "null\nown\n"
        );
        assert_eq!(fs::read_dir(dev.path()).expect("folder").count(), 2);
    }
}

/// Somebody who writes in the root swaps folders and links while containers are made: nothing is
/// ever made or mounted outside.
#[test]
fn mounts_race_with_swapped_links_stays_inside() {
    use std::sync::atomic::{AtomicBool, Ordering};
    const ROUNDS: usize = 60;
    let runtime = Runtime::ours();
    let outside = tempfile::tempdir().expect("folder");
    let source = tempfile::tempdir().expect("folder");
    fs::write(source.path().join("mark"), "").expect("file");
    let bundle = bundle(
        &runtime,
        &[
            new("tmpfs", "/data/a/b/c", &["tmpcopyup"]),
            bind(source.path(), "/data/a/x", &["bind"]),
        ],
        "true",
    );
    let (a, link) = (bundle.root().join("data/a"), bundle.root().join("data/l"));
    fs::create_dir_all(&a).expect("folder");
    symlink(outside.path(), &link).expect("link");
    let stop = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                let here = rustix::fs::CWD;
                let _ = rustix::fs::renameat_with(here, &a, here, &link, flags);
            }
        });
        let mut done = 0;
        for _ in 0..ROUNDS {
            let output = runtime.run(&["run", "-b", bundle.path(), "c"]);
            done += usize::from(output.status.success());
            assert!(runtime.ok(&["list", "-q"]).is_empty());
            assert_eq!(fs::read_dir(outside.path()).expect("folder").count(), 0);
        }
        stop.store(true, Ordering::Relaxed);
        done
    });
    assert!(done <= ROUNDS);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!table.contains(outside.path().to_str().expect("text")));
}
