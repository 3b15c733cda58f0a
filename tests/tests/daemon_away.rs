//! What happens while no daemon runs, and what a new one makes of it.

use std::time::Duration;

use hull_testkit::{Daemon, Run, eventually, wait_until};
use hull_tests::pid_of;

#[test]
fn command_line_says_that_no_daemon_listens() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.kill();
    daemon.hull(["ps"]).fails_saying(1, "cannot connect");
    daemon
        .hull(["run", "--rm", "busybox", "true"])
        .fails_saying(125, "cannot connect");
    daemon.start();
}

#[test]
fn user_without_root_gets_a_clear_message() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let as_nobody = |args: &[&str], host: Option<String>| {
        let mut run = Run::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(hull_testkit::paths::hull())
            .args(args);
        if let Some(host) = host {
            run = run.env("HULL_HOST", host);
        } else {
            run = run.env("HULL_RUN_DIR", "/tmp/hull-nobody-has-this");
        }
        run.run()
    };
    let out = as_nobody(
        &["ps"],
        Some(format!("unix://{}", daemon.socket().display())),
    );
    assert_eq!(out.code, 1, "{}", out.stdout);
    assert!(out.stderr.contains("ermission denied"), "{}", out.stderr);
    let out = as_nobody(&["ps"], None);
    assert_ne!(out.code, 0);
    assert!(out.stderr.contains("root"), "{}", out.stderr);
}

#[test]
fn client_of_a_killed_daemon_ends_with_an_error_and_the_container_runs_on() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let run = daemon
        .cli([
            "run",
            "--name",
            "box",
            "busybox",
            "sh",
            "-c",
            "while :; do echo tick; sleep 0.1; done",
        ])
        .spawn();
    let follow = {
        daemon.wait_state("box", "running");
        daemon.cli(["logs", "-f", "box"]).spawn()
    };
    let pid = pid_of(&daemon, "box");
    daemon.kill();
    assert_ne!(run.finish().code, 0);
    let _ = follow.finish();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    daemon.start();
    assert_eq!(pid_of(&daemon, "box"), pid);
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn restart_policy_is_caught_up_with_after_a_kill() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "--name",
        "always",
        "--restart",
        "always",
        "busybox",
        "sh",
        "-c",
        "sleep 1; exit 3",
    ]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "never",
        "busybox",
        "sh",
        "-c",
        "sleep 1; exit 4",
    ]);
    daemon.ok([
        "run", "-d", "--rm", "--name", "vanish", "busybox", "sleep", "1",
    ]);
    daemon.kill();
    std::thread::sleep(Duration::from_millis(1500));
    daemon.start();
    daemon.wait_state("always", "running");
    assert_eq!(
        daemon.inspect("never", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 4"
    );
    eventually("--rm holds though the daemon was away", || {
        daemon.hull(["inspect", "vanish"]).code == 1
    });
    daemon.ok(["rm", "-f", "always", "never"]);
}

#[test]
fn port_of_a_container_that_ended_meanwhile_is_free_again() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run", "-d", "--name", "box", "-p", "80", "busybox", "sleep", "1",
    ]);
    let out = daemon.ok(["port", "box", "80/tcp"]);
    let port = out
        .lines()
        .next()
        .and_then(|line| line.rsplit(':').next())
        .expect("a port")
        .to_owned();
    daemon.kill();
    std::thread::sleep(Duration::from_millis(1300));
    daemon.start();
    daemon.wait_state("box", "exited");
    let publish = format!("{port}:80");
    let free = wait_until(Duration::from_secs(5), || {
        daemon
            .hull(["run", "--rm", "-p", &publish, "busybox", "true"])
            .code
            == 0
    });
    assert!(free);
    let table = Run::new("nft")
        .args(["list", "table", "inet", &daemon.territory().table])
        .run()
        .stdout;
    assert!(
        !table.contains(&format!("{port} :")) && !table.contains(&format!(". {port}")),
        "{table}"
    );
    daemon.ok(["rm", "box"]);
}

#[test]
fn health_and_pause_go_on_with_a_new_daemon() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "--name",
        "checked",
        "--health-cmd",
        "test -f /ok",
        "--health-interval",
        "200ms",
        "--health-retries",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    daemon.ok(["run", "-d", "--name", "frozen", "busybox", "sleep", "1000"]);
    daemon.ok(["pause", "frozen"]);
    eventually("unhealthy", || {
        daemon.inspect("checked", "{{.State.Health.Status}}") == "unhealthy"
    });
    daemon.kill();
    daemon.start();
    assert_eq!(daemon.inspect("frozen", "{{.State.Status}}"), "paused");
    daemon.ok(["unpause", "frozen"]);
    assert_eq!(daemon.ok(["exec", "frozen", "echo", "thawed"]), "thawed");
    daemon.ok(["exec", "checked", "touch", "/ok"]);
    eventually("healthy", || {
        daemon.inspect("checked", "{{.State.Health.Status}}") == "healthy"
    });
}

#[test]
fn logs_go_on_in_the_same_file_over_many_daemons() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "i=0; while [ $i -lt 150 ]; do echo $i; i=$((i+1)); sleep 0.01; done",
    ]);
    for _ in 0..4 {
        daemon.kill();
        daemon.start();
    }
    daemon.wait_state("box", "exited");
    let expected: String = (0..150).map(|number| format!("{number}\n")).collect();
    assert_eq!(daemon.hull(["logs", "box"]).stdout, expected);
}
