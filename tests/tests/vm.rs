//! `--isolation vm` with the real binaries: the same commands, and another kernel below.

use std::fs;
use std::time::Duration;

use hull_testkit::kernel::guest_kernel;
use hull_testkit::{Daemon, Run, wait_until};
use hull_tests::net::World;

/// A command line with the flag in it.
fn vm<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<&'a str> {
    [before, &["--isolation", "vm"], after].concat()
}

/// A daemon that can boot guests.
fn world() -> World {
    let world = World::new();
    let kernel = guest_kernel().display().to_string();
    world.ok(["kernel", "install", &kernel]);
    world
}

fn host_kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's version");
    text.trim().to_owned()
}

#[test]
fn machine_is_used_as_a_container_is() {
    let world = world();
    // Another kernel, a user and a folder as asked for, and the exit code of the process.
    let script = "uname -r; id -u; pwd; cat /proc/1/comm; exit 3";
    let run = ["run", "--rm", "-u", "7", "-w", "/tmp"];
    let out = world.hull(vm(&run, &["busybox", "sh", "-c", script]));
    out.fails(3);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_ne!(lines.first(), Some(&host_kernel().as_str()));
    assert_eq!(lines.get(1..), Some(&["7", "/tmp", "sh"][..]), "{out:?}");
    // Standard input goes in, and both streams come out.
    let echo = ["busybox", "sh", "-c", "cat; echo oops >&2"];
    let out = world
        .cli(vm(&["run", "--rm", "-i"], &echo))
        .input("through")
        .run();
    assert_eq!((out.code, out.stdout.as_str()), (0, "through"), "{out:?}");
    assert!(out.stderr.contains("oops"), "{out:?}");
    let missing = vm(&["run", "--rm"], &["busybox", "/nowhere"]);
    world.hull(missing).fails(127);
}

#[test]
fn machine_that_stays_serves_execs_pauses_and_keeps_its_disk() {
    let mut world = world();
    let script = "echo begun >> /kept; cat /kept; exec httpd -f -p 80 -h /";
    let run = [
        "run",
        "-d",
        "--name",
        "m1",
        "-p",
        "127.0.0.1:0:80",
        "-m",
        "128m",
    ];
    world.ok(vm(&run, &["busybox", "sh", "-c", script]));
    assert_eq!(world.inspect("m1", "{{.HostConfig.Isolation}}"), "vm");
    let port = world.ok(["port", "m1", "80"]);
    let served = || {
        wait_until(Duration::from_secs(20), || {
            let url = format!("http://{}/kept", port.trim());
            let out = Run::new("curl").args(["-s", "-m", "5", &url]).run();
            out.stdout.contains("begun")
        })
    };
    assert!(served(), "{port}");
    assert_ne!(world.inside("m1", "uname -r").ok().trim(), host_kernel());
    assert_eq!(world.inside("m1", "exit 9").code, 9);
    // What is of the host is not to be seen: no process, no file, no mount of it.
    let own = std::process::id();
    let look =
        format!("test ! -e /proc/{own}; ls /hull 2>/dev/null; grep -c hull-shim /proc/*/comm");
    assert!(!world.inside("m1", &look).stdout.contains("hull-shim"));
    world.ok(["pause", "m1"]);
    world.ok(["unpause", "m1"]);
    assert!(served());
    let stats = world.ok(["stats", "--no-stream", "--format", "{{.MemUsage}}", "m1"]);
    assert!(stats.contains("128MiB"), "{stats}");
    world.ok(["restart", "-t", "1", "m1"]);
    assert_eq!(world.inside("m1", "wc -l < /kept").ok().trim(), "2");
    // The daemon goes and comes: the machine runs on.
    let pid = world.inspect("m1", "{{.State.Pid}}");
    world.kill();
    world.start();
    assert_eq!(
        world.inspect("m1", "{{.State.Status}} {{.State.Pid}}"),
        format!("running {pid}")
    );
    assert_eq!(world.inside("m1", "echo here").ok().trim(), "here");
    world.ok(["kill", "m1"]);
    assert_eq!(world.ok(["wait", "m1"]).trim(), "137");
    let logs = world.ok(["logs", "m1"]);
    assert_eq!(logs.lines().filter(|l| *l == "begun").count(), 3, "{logs}");
    let left = world.run_dir().join("s");
    let id = world.inspect("m1", "{{.Id}}");
    assert!(wait_until(Duration::from_secs(10), || {
        let entries = fs::read_dir(&left).into_iter().flatten().flatten();
        !entries
            .map(|e| e.file_name())
            .any(|n| id.starts_with(&*n.to_string_lossy()))
    }));
}

#[test]
fn machine_and_container_reach_each_other_by_name() {
    let world = world();
    world.ok(["network", "create", "both"]);
    world.server("box", &["--network", "both"]);
    world.server("machine", &vm(&[], &["--network", "both"]));
    let ask = |from: &str, to: &str| {
        let script =
            format!("for i in $(seq 20); do nc -w 2 {to} 80 && exit 0; sleep 0.3; done; exit 1");
        world.inside(from, &script).stdout
    };
    assert_eq!(ask("box", "machine"), "served");
    assert_eq!(ask("machine", "box"), "served");
    // Not on the network, not in reach.
    world.sleeper("other", &[]);
    let address = world.place("machine", "both", "IPAddress");
    assert!(!world.reaches("other", &address));
}

#[test]
fn what_has_no_meaning_in_a_machine_is_refused_by_name() {
    let world = World::new();
    for (flag, value) in [
        ("--network", "host"),
        ("--pid", "host"),
        ("--ipc", "host"),
        ("--uts", "host"),
        ("--device", "/dev/null"),
    ] {
        let out = world.hull(vm(&["create", flag, value], &["busybox", "true"]));
        assert_ne!(out.code, 0, "{flag}");
        let named = out.stderr.contains(flag) && out.stderr.contains("no meaning");
        assert!(named, "{flag}: {}", out.stderr);
    }
    // Without a kernel the start says what to do, and nothing stays.
    let run = vm(&["run", "--rm"], &["busybox", "true"]);
    world.hull(run).fails_saying(125, "hull kernel install");
    assert_eq!(world.ok(["ps", "-aq"]).trim(), "");
}

#[test]
fn hello_says_that_it_runs_in_a_machine() {
    let daemon: Daemon = Daemon::new();
    let kernel = guest_kernel().display().to_string();
    daemon.ok(["kernel", "install", &kernel]);
    let text = daemon.ok(vm(&["run", "--rm"], &["hull/hello"]));
    assert!(!text.contains(&host_kernel()), "{text}");
    assert!(text.contains("vm: a kernel of its own"), "{text}");
}
