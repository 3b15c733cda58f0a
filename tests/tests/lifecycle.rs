//! A container's life: create, start, stop, restart, kill, rm, rename, pause, wait, restart
//! policies, health, and a daemon that comes and goes.

use std::time::{Duration, Instant};

use hull_testkit::archive::Image;
use hull_testkit::{Daemon, eventually, wait_until};
use hull_tests::{SLEEP, pid_of};
use serde_json::json;

fn sleeper(daemon: &Daemon, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.push("busybox");
    args.extend(SLEEP);
    daemon.ok(args);
}

#[test]
fn create_then_start_runs_once_and_again() {
    let daemon = Daemon::new();
    let id = daemon.ok(["create", "--name", "box", "busybox", "echo", "hello"]);
    assert_eq!(id.len(), 64);
    assert_eq!(
        daemon.inspect("box", "{{.State.Status}} {{.State.Pid}}"),
        "created 0"
    );
    assert_eq!(daemon.ok(["start", "-a", "box"]), "hello");
    assert_eq!(daemon.ok(["start", "box"]), "box");
    daemon.wait_state("box", "exited");
    assert_eq!(daemon.ok(["logs", "box"]), "hello\nhello");
}

#[test]
fn start_attached_returns_the_exit_code() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "box", "busybox", "sh", "-c", "exit 6"]);
    assert_eq!(daemon.hull(["start", "-a", "box"]).code, 6);
    daemon.ok(["create", "-i", "--name", "inter", "busybox", "cat"]);
    assert_eq!(
        daemon
            .cli(["start", "-a", "-i", "inter"])
            .input("typed")
            .run()
            .stdout,
        "typed"
    );
}

#[test]
fn start_of_missing_program_fails_and_leaves_created() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "bad", "busybox", "nosuchprogram"]);
    let out = daemon.hull(["start", "bad"]);
    out.fails_saying(1, "nosuchprogram");
    assert_eq!(
        daemon.inspect("bad", "{{.State.ExitCode}} {{.State.Running}}"),
        "127 false"
    );
}

#[test]
fn stop_sends_term_then_kill_after_the_timeout() {
    let daemon = Daemon::new();
    sleeper(&daemon, "polite", &[]);
    assert_eq!(daemon.ok(["stop", "polite"]), "polite");
    assert_eq!(
        daemon.inspect("polite", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 0"
    );
    daemon.ok(["run", "-d", "--name", "deaf", "busybox", "sleep", "1000"]);
    let begun = Instant::now();
    daemon.ok(["stop", "-t", "1", "deaf"]);
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(
        daemon.inspect("deaf", "{{.State.ExitCode}} {{.State.Pid}}"),
        "137 0"
    );
    // Stopping what is stopped is no error.
    assert_eq!(daemon.ok(["stop", "deaf"]), "deaf");
    daemon
        .hull(["stop", "nosuch"])
        .fails_saying(1, "no such container");
}

#[test]
fn stop_signal_and_timeout_come_from_flags_or_image() {
    let daemon = Daemon::new();
    let script = "trap 'exit 5' INT; trap 'exit 6' USR1; while :; do sleep 0.1; done";
    daemon.ok([
        "run",
        "-d",
        "--name",
        "int",
        "--stop-signal",
        "SIGINT",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "short",
        "--stop-timeout",
        "1",
        "busybox",
        "sleep",
        "1000",
    ]);
    let archive = daemon.scratch().join("usr1.tar");
    Image::new("usr1:latest")
        .busybox()
        .set("StopSignal", json!("SIGUSR1"))
        .write(&archive);
    daemon.load(&archive);
    daemon.ok(["run", "-d", "--name", "usr1", "usr1", "sh", "-c", script]);
    std::thread::sleep(Duration::from_millis(300));
    daemon.ok(["stop", "int", "usr1"]);
    assert_eq!(daemon.inspect("int", "{{.State.ExitCode}}"), "5");
    assert_eq!(daemon.inspect("usr1", "{{.State.ExitCode}}"), "6");
    let begun = Instant::now();
    daemon.ok(["stop", "short"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    daemon
        .hull(["create", "--stop-signal", "SIGNONSENSE", "busybox"])
        .fails(1);
}

#[test]
fn restart_gives_a_new_process_and_keeps_the_files() {
    let daemon = Daemon::new();
    sleeper(&daemon, "box", &[]);
    daemon.ok(["exec", "box", "touch", "/kept"]);
    let first = pid_of(&daemon, "box");
    let started = daemon.inspect("box", "{{.State.StartedAt}}");
    assert_eq!(daemon.ok(["restart", "-t", "1", "box"]), "box");
    assert_ne!(pid_of(&daemon, "box"), first);
    assert_ne!(daemon.inspect("box", "{{.State.StartedAt}}"), started);
    daemon.ok(["exec", "box", "ls", "/kept"]);
    daemon.ok(["stop", "box"]);
    daemon.ok(["restart", "box"]);
    assert_eq!(daemon.inspect("box", "{{.State.Running}}"), "true");
}

#[test]
fn kill_sends_any_signal_and_refuses_the_stopped() {
    let daemon = Daemon::new();
    let script = "trap 'echo hup' HUP; trap 'exit 3' USR2; while :; do sleep 0.1; done";
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        &format!("echo ready; {script}"),
    ]);
    daemon.wait_log("box", "ready");
    std::thread::sleep(Duration::from_millis(200));
    daemon.ok(["kill", "-s", "HUP", "box"]);
    daemon.wait_log("box", "hup");
    daemon.ok(["kill", "--signal", "12", "box"]);
    daemon.wait_state("box", "exited");
    assert_eq!(daemon.inspect("box", "{{.State.ExitCode}}"), "3");
    daemon
        .hull(["kill", "box"])
        .fails_saying(1, "is not running");
    daemon.hull(["kill", "-s", "NONSENSE", "box"]).fails(1);
}

#[test]
fn rm_refuses_the_running_unless_forced() {
    let daemon = Daemon::new();
    sleeper(&daemon, "busy", &[]);
    daemon.ok(["create", "--name", "idle", "busybox"]);
    daemon.hull(["rm", "busy"]).fails_saying(1, "running");
    assert_eq!(daemon.ok(["rm", "-f", "busy"]), "busy");
    let out = daemon.hull(["rm", "nosuch", "idle"]);
    out.fails_saying(1, "nosuch");
    assert_eq!(out.stdout, "idle\n", "the others are removed all the same");
    daemon.hull(["inspect", "idle"]).fails(1);
}

#[test]
fn rename_changes_the_name_and_refuses_a_taken_one() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "old", "busybox"]);
    daemon.ok(["create", "--name", "other", "busybox"]);
    daemon.ok(["rename", "old", "new"]);
    assert_eq!(daemon.inspect("new", "{{.Name}}"), "/new");
    daemon.hull(["inspect", "old"]).fails(1);
    daemon
        .hull(["rename", "new", "other"])
        .fails_saying(1, "already in use");
    daemon.ok(["create", "--name", "old", "busybox"]);
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "while :; do echo tick; sleep 0.05; done",
    ]);
    daemon.wait_log("box", "tick");
    assert_eq!(daemon.ok(["pause", "box"]), "box");
    assert_eq!(
        daemon.inspect(
            "box",
            "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"
        ),
        "paused true true"
    );
    assert!(
        daemon
            .ok(["ps", "--format", "{{.Status}}"])
            .contains("(Paused)")
    );
    std::thread::sleep(Duration::from_millis(150));
    let before = daemon.ok(["logs", "box"]).len();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(daemon.ok(["logs", "box"]).len(), before);
    daemon
        .hull(["pause", "box"])
        .fails_saying(1, "already paused");
    daemon
        .hull(["exec", "box", "true"])
        .fails_saying(1, "paused");
    daemon.ok(["unpause", "box"]);
    eventually("it ticks again", || {
        daemon.ok(["logs", "box"]).len() > before
    });
    daemon
        .hull(["unpause", "box"])
        .fails_saying(1, "not paused");
    daemon.ok(["pause", "box"]);
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn wait_prints_exit_codes_of_running_and_ended() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "later",
        "busybox",
        "sh",
        "-c",
        "sleep 0.5; exit 4",
    ]);
    assert_eq!(daemon.ok(["wait", "later"]), "4");
    assert_eq!(daemon.ok(["wait", "later"]), "4");
    daemon.ok([
        "run", "-d", "--name", "other", "busybox", "sh", "-c", "exit 5",
    ]);
    assert_eq!(daemon.ok(["wait", "later", "other"]), "4\n5");
    daemon.hull(["wait", "nosuch"]).fails(1);
}

#[test]
fn restart_policy_on_failure_tries_so_many_times() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "fails",
        "--restart",
        "on-failure:3",
        "busybox",
        "sh",
        "-c",
        "exit 7",
    ]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "ok",
        "--restart",
        "on-failure:3",
        "busybox",
        "true",
    ]);
    eventually("three more tries", || {
        daemon.inspect("fails", "{{.RestartCount}}") == "3"
    });
    daemon.wait_state("fails", "exited");
    assert_eq!(daemon.inspect("fails", "{{.State.ExitCode}}"), "7");
    assert_eq!(
        daemon.inspect("ok", "{{.RestartCount}} {{.State.ExitCode}}"),
        "0 0"
    );
    daemon
        .hull(["run", "--rm", "--restart", "always", "busybox", "true"])
        .fails_saying(125, "--restart");
    // Docker's daemon refuses it with 1; a command line may do so first, with 125.
    let nonsense = daemon.hull(["create", "--restart", "nonsense", "busybox"]);
    assert!([1, 125].contains(&nonsense.code), "{}", nonsense.code);
}

#[test]
fn restart_policy_always_runs_again_until_stopped() {
    let daemon = Daemon::new();
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
        "echo again; sleep 0.05",
    ]);
    eventually("it runs again and again", || {
        daemon
            .inspect("always", "{{.RestartCount}}")
            .parse::<u32>()
            .is_ok_and(|count| count >= 2)
    });
    daemon.ok(["stop", "-t", "1", "always"]);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(daemon.inspect("always", "{{.State.Running}}"), "false");
}

#[test]
fn restart_policies_hold_over_a_daemon_restart() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    sleeper(&daemon, "always", &["--restart", "always"]);
    sleeper(&daemon, "unless", &["--restart", "unless-stopped"]);
    sleeper(&daemon, "no", &[]);
    daemon.ok(["stop", "-t", "1", "always", "unless"]);
    daemon.stop();
    daemon.start();
    daemon.wait_state("always", "running");
    assert_eq!(daemon.inspect("unless", "{{.State.Status}}"), "exited");
    assert_eq!(daemon.inspect("no", "{{.State.Status}}"), "running");
}

#[test]
fn daemon_stop_leaves_containers_running_and_finds_them_again() {
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
        "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done",
    ]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "ends",
        "busybox",
        "sh",
        "-c",
        "sleep 0.7; exit 9",
    ]);
    let pid = pid_of(&daemon, "box");
    daemon.stop();
    std::thread::sleep(Duration::from_secs(1));
    daemon.start();
    assert_eq!(pid_of(&daemon, "box"), pid);
    assert_eq!(
        daemon.inspect("ends", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 9"
    );
    assert_eq!(daemon.ok(["exec", "box", "echo", "alive"]), "alive");
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn daemon_stop_all_stops_containers_too() {
    let mut daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    sleeper(&daemon, "aa", &[]);
    sleeper(&daemon, "bb", &["--restart", "always"]);
    daemon.ok(["daemon", "stop", "--all"]);
    assert!(wait_until(Duration::from_secs(5), || daemon
        .territory()
        .processes()
        .is_empty()));
    daemon.kill();
    daemon.start();
    assert_eq!(daemon.inspect("aa", "{{.State.Running}}"), "false");
}

#[test]
fn health_goes_from_starting_over_unhealthy_to_healthy() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "health",
        "--health-cmd",
        "test -f /tmp/ok || { echo not yet; false; }",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "--health-timeout",
        "2s",
        "busybox",
        "sleep",
        "1000",
    ]);
    let status = || daemon.inspect("health", "{{.State.Health.Status}}");
    eventually("unhealthy", || status() == "unhealthy");
    let streak = daemon.inspect("health", "{{.State.Health.FailingStreak}}");
    assert!(
        streak.parse::<u32>().is_ok_and(|streak| streak >= 2),
        "{streak}"
    );
    let log = daemon.inspect("health", "{{json .State.Health.Log}}");
    assert!(
        log.contains("not yet") && log.contains("\"ExitCode\":1"),
        "{log}"
    );
    assert!(
        daemon
            .ok(["ps", "--format", "{{.Status}}"])
            .contains("(unhealthy)")
    );
    daemon.ok(["exec", "health", "touch", "/tmp/ok"]);
    eventually("healthy", || status() == "healthy");
    assert!(
        daemon
            .ok(["ps", "--format", "{{.Status}}"])
            .contains("(healthy)")
    );
    assert_eq!(
        daemon.ok(["ps", "-q", "--filter", "health=healthy"]).len(),
        12
    );
    daemon.ok(["rm", "-f", "health"]);
}

#[test]
fn health_check_of_the_image_is_used_and_can_be_turned_off() {
    let daemon = Daemon::new();
    let archive = daemon.scratch().join("h.tar");
    Image::new("checked:latest")
        .busybox()
        .set(
            "Healthcheck",
            json!({"Test": ["CMD", "true"], "Interval": 200_000_000}),
        )
        .write(&archive);
    daemon.load(&archive);
    daemon.ok(["run", "-d", "--name", "health", "checked", "sleep", "1000"]);
    eventually("healthy", || {
        daemon.inspect("health", "{{.State.Health.Status}}") == "healthy"
    });
    daemon.ok([
        "run",
        "-d",
        "--name",
        "off",
        "--no-healthcheck",
        "checked",
        "sleep",
        "1000",
    ]);
    assert_eq!(
        daemon.inspect("off", "{{if .State.Health}}on{{else}}off{{end}}"),
        "off"
    );
    daemon.ok(["rm", "-f", "health", "off"]);
}

#[test]
fn top_and_stats_show_a_running_container() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000",
    ]);
    let top = daemon.ok(["top", "box"]);
    assert!(
        top.starts_with("UID") && top.contains("sleep 1000"),
        "{top}"
    );
    daemon.hull(["top", "nosuch"]).fails(1);
    let stats = daemon.ok(["stats", "--no-stream", "box"]);
    assert!(
        stats.contains("CPU %") && stats.contains("64MiB"),
        "{stats}"
    );
    let line = daemon.ok([
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDs}}",
        "box",
    ]);
    assert_eq!(line, "box 1");
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn twenty_starts_at_once_all_run() {
    let daemon = Daemon::new();
    let running: Vec<_> = (0..20)
        .map(|number| {
            daemon
                .cli(["run", "--rm", "busybox", "echo", &number.to_string()])
                .spawn()
        })
        .collect();
    for (number, run) in running.into_iter().enumerate() {
        assert_eq!(run.finish().ok(), number.to_string());
    }
}
