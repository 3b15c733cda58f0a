//! `hull attach` and the signals a client passes on.

use std::time::Duration;

use hull_testkit::{Daemon, eventually, wait_until};

#[test]
fn attach_two_clients_see_the_same_and_get_the_exit_code() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "-i",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "read line; echo got $line; exit 11",
    ]);
    let watcher = daemon.cli(["attach", "--no-stdin", "box"]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    let typist = daemon.cli(["attach", "box"]).input("hello\n").run();
    assert_eq!(typist.code, 11);
    // Docker's client leaves without the output when its input ends first.
    if !daemon.is_docker() {
        assert_eq!(typist.stdout, "got hello\n");
    }
    let watcher = watcher.finish();
    assert_eq!((watcher.code, watcher.stdout.as_str()), (11, "got hello\n"));
}

#[test]
fn attach_detach_keys_leave_the_container_running() {
    let daemon = Daemon::new();
    daemon.ok(["run", "-dit", "--name", "box", "busybox", "sh"]);
    let mut terminal = daemon.terminal(["attach", "box"]);
    terminal.send("echo $((6*7))\n");
    terminal.expect("42");
    terminal.send("\x10\x11");
    let (code, screen) = terminal.finish();
    // Docker ends with 0 and says "read escape sequence".
    assert!(code == 0 || code == 1, "{code} {screen}");
    assert_eq!(daemon.inspect("box", "{{.State.Running}}"), "true");
    let mut terminal = daemon.terminal(["attach", "--detach-keys", "ctrl-x,x", "box"]);
    terminal.send("echo $((40+3))\n");
    terminal.expect("43");
    terminal.send("\x18x");
    terminal.finish();
    assert_eq!(daemon.inspect("box", "{{.State.Running}}"), "true");
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn attach_refuses_the_stopped() {
    let daemon = Daemon::new();
    daemon.ok(["create", "--name", "box", "busybox"]);
    daemon
        .hull(["attach", "box"])
        .fails_saying(1, "stopped container");
    daemon.hull(["attach", "nosuch"]).fails(1);
}

#[test]
fn attach_slow_reader_blocks_neither_container_nor_log() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "-i",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "read go; seq 1 500000; echo finished >/tmp/f; sleep 1000",
    ]);
    let slow = daemon.cli(["attach", "--no-stdin", "box"]).spawn();
    std::thread::sleep(Duration::from_millis(300));
    slow.signal("STOP");
    let _ = daemon
        .cli(["attach", "--detach-keys", "ctrl-x", "box"])
        .input("go\n")
        .limit(Duration::from_secs(3600))
        .spawn();
    let typist = daemon.cli(["attach", "box"]).input("go\n").spawn();
    let finished = wait_until(Duration::from_secs(30), || {
        daemon.hull(["exec", "box", "cat", "/tmp/f"]).stdout == "finished\n"
    });
    slow.signal("CONT");
    assert!(finished, "a stopped reader holds the container up");
    eventually("the log has every line", || {
        daemon.ok(["logs", "--tail", "1", "box"]) == "500000"
    });
    assert_eq!(daemon.ok(["logs", "box"]).lines().count(), 500_000);
    daemon.ok(["rm", "-f", "box"]);
    drop((slow, typist));
}

#[test]
fn run_passes_signals_on_to_the_process() {
    let daemon = Daemon::new();
    let script = "trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let run = daemon
        .cli(["run", "--name", "box", "busybox", "sh", "-c", script])
        .spawn();
    daemon.wait_state("box", "running");
    daemon.wait_log("box", "ready");
    std::thread::sleep(Duration::from_millis(200));
    run.signal("TERM");
    let out = run.finish();
    assert_eq!((out.code, out.stdout.as_str()), (4, "ready\ncaught\n"));
}

#[test]
fn run_client_killed_leaves_the_container_running() {
    let daemon = Daemon::new();
    let run = daemon
        .cli(["run", "--name", "box", "busybox", "sleep", "1000"])
        .spawn();
    daemon.wait_state("box", "running");
    run.signal("KILL");
    drop(run);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.inspect("box", "{{.State.Running}}"), "true");
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn run_detached_from_terminal_by_keys_returns() {
    let daemon = Daemon::new();
    let mut terminal = daemon.terminal(["run", "-it", "--name", "box", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("\x10\x11");
    terminal.finish();
    assert_eq!(daemon.inspect("box", "{{.State.Running}}"), "true");
    daemon.ok(["rm", "-f", "box"]);
}
