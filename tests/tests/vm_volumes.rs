//! Volumes and binds with `--isolation vm`: live, both ways, and nothing else of the host.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use hull_testkit::kernel::guest_kernel;
use hull_testkit::wait_until;
use hull_tests::net::World;

fn world() -> World {
    let world = World::new();
    let kernel = guest_kernel().display().to_string();
    world.ok(["kernel", "install", &kernel]);
    world
}

#[test]
fn volumes_and_binds_are_those_of_the_host_and_of_containers() {
    let world = world();
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("b")).expect("folder");
    fs::write(path("b/from-host"), "host\n").expect("write");
    fs::write(path("one"), "one\n").expect("write");
    fs::write(path("secret"), "secret\n").expect("write");
    std::os::unix::fs::symlink("../secret", path("b/link")).expect("link");
    let bind = format!("{}:/b", path("b").display());
    let one = format!("{}:/one:ro", path("one").display());
    let script = "cat /b/from-host /one; echo x > /one; cat /b/link; \
        echo guest > /b/from-guest; chown 55:66 /b/from-guest; \
        echo kept > /data/kept; echo ready; \
        while ! [ -e /b/more ]; do sleep 0.1; done; cat /b/more; top -b -n 1 > /dev/null";
    let flags = ["run", "-d", "--name", "m1", "--isolation", "vm"];
    let mounts = ["-v", "vol:/data", "-v", &bind, "-v", &one];
    world.ok([&flags[..], &mounts, &["busybox", "sh", "-c", script]].concat());
    let said = |text: &str| world.ok(["logs", "m1"]).contains(text);
    assert!(wait_until(Duration::from_secs(20), || said("ready")));
    let log = world.ok(["logs", "m1"]);
    assert!(
        log.contains("host\none\n") && !log.contains("secret\n"),
        "{log}"
    );
    let meta = fs::metadata(path("b/from-guest")).expect("the guest's file");
    assert_eq!((meta.uid(), meta.gid()), (55, 66));
    assert_eq!(fs::read_to_string(path("one")).expect("read"), "one\n");
    let listed = world.ok(["top", "m1"]);
    assert!(listed.contains("sh -c"), "{listed}");

    // What the host writes meanwhile is seen, and a container sees what the guest wrote.
    fs::write(path("b/more"), "later\n").expect("write");
    assert_eq!(world.ok(["wait", "m1"]).trim(), "0");
    assert!(said("later"));
    let seen = world.ok([
        "run",
        "--rm",
        "-v",
        "vol:/data",
        "busybox",
        "cat",
        "/data/kept",
    ]);
    assert_eq!(seen.trim(), "kept");
    world.ok(["rm", "m1"]);
    world.ok(["volume", "rm", "vol"]);
}

#[test]
fn containers_cannot_join_the_namespaces_of_a_machine() {
    let world = world();
    let flags = ["run", "-d", "--name", "m1", "--isolation", "vm"];
    world.ok([&flags[..], &["busybox", "sleep", "1000"]].concat());
    for flag in ["--pid", "--network", "--ipc"] {
        let out = world.hull(["run", "--rm", flag, "container:m1", "busybox", "true"]);
        assert_ne!(out.code, 0, "{flag}");
        assert!(
            out.stderr.contains("virtual machine"),
            "{flag}: {}",
            out.stderr
        );
    }
    world.ok(["rm", "-f", "m1"]);
}
