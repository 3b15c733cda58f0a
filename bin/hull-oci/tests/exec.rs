//! `exec`, terminals, and the inside of a container.

mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;
use support::{Bundle, Runtime};

fn running(runtime: &Runtime) -> Bundle {
    let bundle = Bundle::new(runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    bundle
}

#[test]
fn exec_sees_the_container_and_ends_with_its_code() {
    let runtime = Runtime::ours();
    let _bundle = running(&runtime);
    assert_eq!(
        runtime.ok(&["exec", "c", "sh", "-c", "echo $GREETING; hostname; pwd"]),
        "hello\nbundle\n/\n"
    );
    assert_eq!(
        runtime.ok(&[
            "exec",
            "--cwd",
            "/tmp",
            "-e",
            "GREETING=moin",
            "c",
            "sh",
            "-c",
            "echo $GREETING; pwd"
        ]),
        "moin\n/tmp\n"
    );
    assert_eq!(
        runtime.ok(&["exec", "--user", "1000:50", "-g", "7", "c", "id"]),
        "uid=1000 gid=50 groups=7\n"
    );
    assert_eq!(
        runtime.code(&["exec", "c", "sh", "-c", "exit 17"]),
        Some(17)
    );
    assert_eq!(
        runtime.code(&["exec", "c", "sh", "-c", "kill -9 $$"]),
        Some(137)
    );
    assert!(
        runtime
            .fails(&["exec", "--user", "web", "c", "id"])
            .contains("--user")
    );
    assert!(runtime.fails(&["exec", "c"]).contains("no command"));
}

#[test]
fn exec_has_the_limits_of_the_container() {
    let runtime = Runtime::ours();
    let _bundle = running(&runtime);
    let status = runtime.ok(&["exec", "c", "cat", "/proc/self/status"]);
    for line in [
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000020",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let status = runtime.ok(&[
        "exec",
        "--cap",
        "CAP_CHOWN",
        "c",
        "cat",
        "/proc/self/status",
    ]);
    assert!(status.contains("CapEff:\t0000000000000021"), "{status}");
    let groups = runtime.ok(&["exec", "c", "cat", "/proc/self/cgroup"]);
    assert!(groups.contains(&runtime.cgroup("c")), "{groups}");
}

#[test]
fn exec_process_file_is_followed() {
    let runtime = Runtime::ours();
    let bundle = running(&runtime);
    let file = bundle.dir.path().join("process.json");
    let process = json!({ "user": { "uid": 5, "gid": 6 }, "args": ["id"], "env": ["PATH=/bin"], "cwd": "/tmp" });
    std::fs::write(&file, process.to_string()).expect("write");
    let file = file.to_str().expect("text");
    assert_eq!(runtime.ok(&["exec", "-p", file, "c"]), "uid=5 gid=6\n");
    std::fs::write(file, r#"{"user":{"uid":"x"},"args":["id"],"cwd":"/"}"#).expect("write");
    assert!(
        runtime
            .fails(&["exec", "-p", file, "c"])
            .contains("user.uid")
    );
}

#[test]
fn exec_detached_returns_at_once_and_writes_its_pid() {
    let runtime = Runtime::ours();
    let bundle = running(&runtime);
    let pid_file = bundle.dir.path().join("exec.pid");
    runtime.ok(&[
        "exec",
        "-d",
        "--pid-file",
        pid_file.to_str().expect("text"),
        "c",
        "sleep",
        "999",
    ]);
    let pid = std::fs::read_to_string(&pid_file).expect("pid");
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).expect("cmdline");
    assert_eq!(line, b"sleep\x00999\x00");
}

#[test]
fn run_with_terminal_relays_it_and_its_size() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(
        &runtime,
        "c",
        &[
            "sh",
            "-c",
            "tty; stty size; read line; echo got:$line; exit 6",
        ],
    );
    bundle.set("/process/terminal", json!(true));
    let pty = hull_sys::tty::open_pty().expect("pty");
    hull_sys::tty::set_size(&pty.master, 33, 101).expect("size");
    let mut child = runtime
        .command(&["run", "-b", bundle.path(), "c"])
        .stdin(pty.slave.try_clone().expect("dup"))
        .stdout(pty.slave.try_clone().expect("dup"))
        .stderr(Stdio::inherit())
        .spawn()
        .expect("spawn");
    let mut master = File::from(pty.master);
    let mut seen = String::new();
    let mut buffer = [0; 512];
    let mut read_until = |master: &mut File, text: &str| {
        while !seen.contains(text) {
            let count = master.read(&mut buffer).expect("read");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        seen.clone()
    };
    read_until(&mut master, "33 101");
    master.write_all(b"word\r").expect("write");
    let text = read_until(&mut master, "got:word");
    assert!(text.starts_with("/dev/"), "{text}");
    assert_eq!(child.wait().expect("wait").code(), Some(6));
}

#[test]
fn create_with_terminal_sends_it_to_the_console_socket() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(
        &runtime,
        "c",
        &["sh", "-c", "echo from inside; exec sleep 1000"],
    );
    bundle.set("/process/terminal", json!(true));
    assert!(
        runtime
            .fails(&["create", "-b", bundle.path(), "c"])
            .contains("--console-socket")
    );
    let path = bundle.dir.path().join("console.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    runtime.ok(&[
        "create",
        "-b",
        bundle.path(),
        "--console-socket",
        path.to_str().expect("text"),
        "c",
    ]);
    let (connection, _) = listener.accept().expect("accept");
    let mut fds: Vec<OwnedFd> = Vec::new();
    hull_sys::fdpass::receive(&connection, &mut [0; 64], &mut fds).expect("receive");
    let mut terminal = File::from(fds.pop().expect("a descriptor"));
    runtime.ok(&["start", "c"]);
    let mut buffer = [0; 64];
    let count = terminal.read(&mut buffer).expect("read");
    assert_eq!(&buffer[..count], b"from inside\r\n");
}
