//! `hull exec`: exit codes, streams, user, folder, environment, terminal, many at once.

use std::time::Duration;

use hull_testkit::{Daemon, eventually};

fn with_sleeper() -> Daemon {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "-e",
        "FROM=container",
        "busybox",
        "sleep",
        "1000",
    ]);
    daemon
}

#[test]
fn exec_exit_codes_are_the_process_own_or_126_127() {
    let daemon = with_sleeper();
    assert_eq!(daemon.hull(["exec", "box", "true"]).code, 0);
    assert_eq!(daemon.hull(["exec", "box", "sh", "-c", "exit 33"]).code, 33);
    assert_eq!(
        daemon.hull(["exec", "box", "sh", "-c", "kill -9 $$"]).code,
        137
    );
    let missing = daemon.hull(["exec", "box", "nosuchprogram"]).code;
    // Docker answered 126 until its version 23.
    assert!(missing == 127 || daemon.is_docker(), "{missing}");
    assert_eq!(daemon.hull(["exec", "box", "/etc/passwd"]).code, 126);
    daemon
        .hull(["exec", "nosuch", "true"])
        .fails_saying(1, "no such container");
    daemon.ok(["create", "--name", "idle", "busybox"]);
    daemon
        .hull(["exec", "idle", "true"])
        .fails_saying(1, "is not running");
    daemon.hull(["exec", "box"]).fails(1);
}

#[test]
fn exec_streams_and_stdin_pass_whole() {
    let daemon = with_sleeper();
    let out = daemon.hull(["exec", "box", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("out\n", "err\n")
    );
    let out = daemon
        .cli(["exec", "-i", "box", "wc", "-c"])
        .input(vec![b'y'; 3_000_000])
        .run();
    assert_eq!(out.ok(), "3000000");
    let out = daemon.hull(["exec", "box", "dd", "if=/dev/zero", "bs=1M", "count=10"]);
    assert_eq!(out.bytes.len(), 10 << 20);
    assert_eq!(
        daemon
            .cli(["exec", "box", "wc", "-c"])
            .input("ignored")
            .ok(),
        "0"
    );
}

#[test]
fn exec_environment_user_and_folder() {
    let daemon = with_sleeper();
    let out = daemon.ok(["exec", "-e", "MORE=1", "box", "env"]);
    for line in ["FROM=container", "MORE=1", "HOME=/root"] {
        assert!(out.lines().any(|have| have == line), "{line}: {out}");
    }
    assert!(
        daemon
            .ok(["exec", "-u", "hull", "box", "id"])
            .starts_with("uid=1000(hull) gid=1000(hull)")
    );
    assert_eq!(
        daemon.ok(["exec", "-u", "1000", "box", "sh", "-c", "echo $HOME"]),
        "/home/hull"
    );
    assert_eq!(daemon.ok(["exec", "-w", "/tmp", "box", "pwd"]), "/tmp");
    assert_eq!(daemon.ok(["exec", "box", "pwd"]), "/");
    let out = daemon.hull(["exec", "-u", "nosuch", "box", "true"]);
    assert!([1, 126].contains(&out.code), "{}", out.code);
}

#[test]
fn exec_has_the_containers_limits_and_no_more() {
    let daemon = with_sleeper();
    let status = daemon.ok(["exec", "box", "cat", "/proc/self/status"]);
    assert!(status.contains("CapEff:\t00000000a80425fb"), "{status}");
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let cgroup = daemon.ok(["exec", "box", "cat", "/proc/1/cgroup"]);
    assert_eq!(
        daemon.ok(["exec", "box", "cat", "/proc/self/cgroup"]),
        cgroup
    );
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        let path = format!("/proc/1/ns/{kind}");
        let own = format!("/proc/self/ns/{kind}");
        assert_eq!(
            daemon.ok(["exec", "box", "readlink", &path]),
            daemon.ok(["exec", "box", "readlink", &own])
        );
    }
    if !daemon.is_docker() {
        let status = daemon.ok(["exec", "--privileged", "box", "cat", "/proc/self/status"]);
        assert!(!status.contains("CapEff:\t00000000a80425fb"), "{status}");
    }
}

#[test]
fn exec_sees_descriptors_0_1_2_and_no_other() {
    let daemon = with_sleeper();
    let list = daemon.ok(["exec", "box", "ls", "/proc/self/fd"]);
    // ls itself holds the folder it reads.
    assert_eq!(list, "0\n1\n2\n3");
}

#[test]
fn exec_detached_returns_at_once_and_runs() {
    let daemon = with_sleeper();
    assert_eq!(
        daemon.ok([
            "exec",
            "-d",
            "box",
            "sh",
            "-c",
            "sleep 0.3; touch /tmp/done"
        ]),
        ""
    );
    eventually("it ran", || {
        daemon.hull(["exec", "box", "ls", "/tmp/done"]).code == 0
    });
}

#[test]
fn exec_terminal_shell_works() {
    let daemon = with_sleeper();
    let mut terminal = daemon.terminal(["exec", "-it", "box", "sh"]);
    terminal.expect("#");
    terminal.send("tty; echo $((40+2))\n");
    terminal.expect("42");
    terminal.send("exit 3\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains("/dev/pts/"), "{screen}");
}

#[test]
fn exec_ends_when_the_container_does() {
    let daemon = with_sleeper();
    let running = daemon.cli(["exec", "box", "sleep", "1000"]).spawn();
    eventually("it runs", || {
        daemon.ok(["top", "box"]).matches("sleep").count() == 2
    });
    daemon.ok(["kill", "box"]);
    assert_eq!(running.finish().code, 137);
}

#[test]
fn exec_fifty_at_once_all_answer() {
    let daemon = with_sleeper();
    let all: Vec<_> = (0..50)
        .map(|number| {
            daemon
                .cli(["exec", "box", "echo", &number.to_string()])
                .limit(Duration::from_secs(60))
                .spawn()
        })
        .collect();
    for (number, one) in all.into_iter().enumerate() {
        assert_eq!(one.finish().ok(), number.to_string());
    }
    let processes = daemon.ok(["exec", "box", "ps", "-o", "stat"]);
    assert!(!processes.contains('Z'), "zombies: {processes}");
}

#[test]
fn exec_child_left_behind_is_reaped() {
    let daemon = with_sleeper();
    daemon.ok(["exec", "box", "sh", "-c", "sleep 0.2 & exit 0"]);
    assert_eq!(
        daemon.ok(["exec", "box", "echo", "still here"]),
        "still here"
    );
}
