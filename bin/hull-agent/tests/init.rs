//! The init of `--init`, from the built program.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const AGENT: &str = env!("CARGO_BIN_EXE_hull-agent");

fn init(script: &str) -> Command {
    let mut command = Command::new(AGENT);
    command.args(["init", "--", "sh", "-c", script]);
    command
}

fn code(command: &mut Command) -> Option<i32> {
    command.status().expect("run").code()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("pid");
    kill_process(pid, signal).expect("kill");
}

/// Waits, at most ten seconds.
fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("wait") {
            assert_eq!(status.signal(), None);
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("kill");
    panic!("the init did not end");
}

#[test]
fn init_command_exit_code_is_its_own() {
    assert_eq!(code(&mut init("exit 0")), Some(0));
    assert_eq!(code(&mut init("exit 42")), Some(42));
    assert_eq!(code(&mut init("kill -9 $$")), Some(137));
    assert_eq!(code(&mut init("kill -TERM $$")), Some(143));
}

#[test]
fn init_command_missing_is_127_not_executable_126() {
    let mut missing = Command::new(AGENT);
    let output = missing
        .args(["init", "--", "no-such-program"])
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exec no-such-program: No such file"));
    let mut folder = Command::new(AGENT);
    assert_eq!(
        code(
            folder
                .args(["init", "--", "/etc/passwd"])
                .stderr(Stdio::null())
        ),
        Some(126)
    );
    assert_eq!(
        code(Command::new(AGENT).arg("init").stderr(Stdio::null())),
        Some(2)
    );
}

#[test]
fn init_called_as_docker_init_takes_the_command() {
    let mut command = Command::new(AGENT);
    command
        .arg0("/sbin/docker-init")
        .args(["--", "sh", "-c", "exit 3"]);
    assert_eq!(code(&mut command), Some(3));
    let mut bare = Command::new(AGENT);
    bare.arg0("docker-init").args(["sh", "-c", "exit 4"]);
    assert_eq!(code(&mut bare), Some(4));
}

#[test]
fn init_signals_reach_the_command() {
    for (signal, number) in [(Signal::TERM, 15), (Signal::HUP, 1), (Signal::USR1, 10)] {
        let script = format!(
            "trap 'exit {}' {number}; echo ready; while :; do sleep 0.01; done",
            number + 20
        );
        let mut child = init(&script).stdout(Stdio::piped()).spawn().expect("spawn");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("pipe"))
            .read_line(&mut line)
            .expect("ready");
        send(&child, signal);
        assert_eq!(wait(&mut child), Some(number + 20), "{signal:?}");
    }
}

#[test]
fn init_command_starts_with_default_signals_and_nothing_blocked() {
    let mut command = Command::new(AGENT);
    let output = command
        .args(["init", "--", "cat", "/proc/self/status"])
        .output()
        .expect("run");
    let status = String::from_utf8(output.stdout).expect("text");
    let set = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("line");
        u64::from_str_radix(value.trim(), 16).expect("a set")
    };
    assert_eq!(set("SigBlk:"), 0);
    // Signals 32 and 33 are glibc's own: the test's posix_spawn leaves them ignored.
    assert_eq!(set("SigIgn:") & !(0b11 << 31), 0);
}

#[test]
fn init_orphans_are_reaped() {
    // The subshell ends at once; its child becomes an orphan of the init and ends a little later.
    let mut child = init("(sleep 0.1 & echo $!); sleep 5")
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("pipe"))
        .read_line(&mut line)
        .expect("pid");
    let orphan = Path::new("/proc").join(line.trim());
    assert!(orphan.exists());
    let deadline = Instant::now() + Duration::from_secs(4);
    while orphan.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        !orphan.exists(),
        "still there, {:?}",
        fs::read_to_string(orphan.join("stat"))
    );
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child), Some(143));
}

#[test]
fn init_as_process_1_ends_with_its_command() {
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        AGENT,
        "init",
        "--",
        "sh",
        "-c",
        "echo $$ $PPID; exit 6",
    ]);
    let output = command.output().expect("run unshare");
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "2 1\n");
}

#[test]
fn init_on_a_terminal_command_gets_the_foreground_and_ctrl_c() {
    let pty = hull_sys::tty::open_pty().expect("pty");
    let mut child = Command::new("setsid")
        .args([
            "--ctty",
            "--wait",
            AGENT,
            "init",
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 20",
        ])
        .stdin(pty.slave.try_clone().expect("dup"))
        .stdout(pty.slave)
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn setsid");
    let mut master = fs::File::from(pty.master);
    let mut seen = Vec::new();
    let mut buffer = [0; 64];
    while !seen.ends_with(b"ready\r\n") {
        let count = master.read(&mut buffer).expect("read");
        seen.extend_from_slice(&buffer[..count]);
    }
    master.write_all(b"\x03").expect("Ctrl-C");
    assert_eq!(wait(&mut child), Some(130));
}
