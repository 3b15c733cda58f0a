//! sd_notify(3): the word of the program inside reaches the service manager outside.

mod support;

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use support::{Bundle, Runtime, wait_for_file};

/// How long a message may take that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The manager's side: a socket at a path.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn at_path(bundle: &Bundle) -> Self {
        let path = bundle.dir.path().join("manager.sock");
        let socket = UnixDatagram::bind(&path).expect("bind");
        Self::new(socket, path.display().to_string())
    }

    fn at_name() -> Self {
        let name = format!("hull-oci-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        Self::new(socket, format!("@{name}"))
    }

    fn new(socket: UnixDatagram, address: String) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self { socket, address }
    }

    #[track_caller]
    fn hear(&self) -> (String, Vec<OwnedFd>) {
        let (mut buffer, mut fds) = (vec![0; 4096], Vec::new());
        let count = hull_sys::fdpass::receive(&self.socket, &mut buffer, &mut fds).expect("word");
        let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
        (text, fds)
    }

    fn has_heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).expect("mode");
        let read = self.socket.recv(&mut [0; 16]);
        self.socket.set_nonblocking(false).expect("mode");
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn spawn(&self, runtime: &Runtime, args: &[&str]) -> Child {
        let mut command = runtime.command(args);
        command.env("NOTIFY_SOCKET", &self.address);
        command.stdout(Stdio::null()).stderr(Stdio::inherit());
        command.spawn().expect("spawn")
    }

    #[track_caller]
    fn ok(&self, runtime: &Runtime, args: &[&str]) {
        assert!(self.spawn(runtime, args).wait().expect("wait").success());
    }
}

/// The socket as the program sees it.
fn inside(pid: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root/run/notify/notify.sock"))
}

fn say(pid: &str, text: &str) {
    let path = inside(pid);
    wait_for_file(&path);
    let socket = UnixDatagram::unbound().expect("socket");
    socket.connect(path).expect("connect");
    let _ = socket.send(text.as_bytes()).expect("send");
}

#[test]
fn start_waits_for_the_word_of_the_program_and_hands_it_on() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(
        &runtime,
        "c",
        &["sh", "-c", "env > /tmp/env; exec sleep 1000"],
    );
    let manager = Manager::at_path(&bundle);
    manager.ok(&runtime, &["create", "-b", bundle.path(), "c"]);
    let pid = runtime.state("c")["pid"].to_string();
    assert!(!inside(&pid).exists());
    let mut start = manager.spawn(&runtime, &["start", "c"]);
    say(&pid, "STATUS=on the way");
    say(&pid, "STATUS=almost\nMAINPID=1");
    say(&pid, "STATUS=up\nREADY=1\n");
    let (text, fds) = manager.hear();
    assert_eq!(text, format!("READY=1\nMAINPID={pid}\n"));
    assert!(fds.is_empty());
    let (text, fds) = manager.hear();
    assert_eq!((text.as_str(), fds.len()), ("BARRIER=1", 1));
    // As long as that is open, the manager has not read all.
    assert!(start.try_wait().expect("wait").is_none());
    drop(fds);
    assert!(start.wait().expect("wait").success());
    let env = std::fs::read_to_string(bundle.root().join("tmp/env")).expect("env");
    assert!(
        env.contains("NOTIFY_SOCKET=/run/notify/notify.sock\n"),
        "{env}"
    );
    // It is the first program's alone.
    let env = runtime.ok(&["exec", "c", "env"]);
    assert!(!env.contains("NOTIFY_SOCKET"), "{env}");
    let refused = runtime.fails(&["exec", "c", "touch", "/run/notify/x"]);
    assert!(refused.contains("Read-only"), "{refused}");
}

#[test]
fn start_of_a_program_that_ends_without_a_word_returns() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["true"]);
    let manager = Manager::at_path(&bundle);
    manager.ok(&runtime, &["create", "-b", bundle.path(), "c"]);
    manager.ok(&runtime, &["start", "c"]);
    assert!(manager.has_heard_nothing());
    runtime.wait_for("c", "stopped");
}

#[test]
fn run_detached_waits_for_the_word_and_tells_a_name_without_a_file() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    let pid_file = bundle.dir.path().join("pid");
    let manager = Manager::at_name();
    let pid_path = pid_file.to_str().expect("text");
    let args = [
        "run",
        "-d",
        "--pid-file",
        pid_path,
        "-b",
        bundle.path(),
        "c",
    ];
    let mut run = manager.spawn(&runtime, &args);
    wait_for_file(&pid_file);
    let pid = std::fs::read_to_string(&pid_file).expect("pid");
    say(&pid, "READY=1");
    assert_eq!(manager.hear().0, format!("READY=1\nMAINPID={pid}\n"));
    drop(manager.hear());
    assert!(run.wait().expect("wait").success());
}

#[test]
fn run_in_the_foreground_stays_the_main_process() {
    let runtime = Runtime::ours();
    let script = "test -S $NOTIFY_SOCKET && sleep 1000";
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    // What the bundle names is not what is meant.
    bundle.set(
        "/process/env/-",
        serde_json::json!("NOTIFY_SOCKET=/elsewhere"),
    );
    let pid_file = bundle.dir.path().join("pid");
    let manager = Manager::at_path(&bundle);
    let pid_path = pid_file.to_str().expect("text");
    let mut run = manager.spawn(
        &runtime,
        &["run", "--pid-file", pid_path, "-b", bundle.path(), "c"],
    );
    wait_for_file(&pid_file);
    let pid = std::fs::read_to_string(&pid_file).expect("pid");
    say(&pid, "READY=1");
    assert_eq!(manager.hear().0, format!("READY=1\nMAINPID={}\n", run.id()));
    runtime.ok(&["kill", "c", "KILL"]);
    assert_eq!(run.wait().expect("wait").code(), Some(137));
}

#[test]
fn address_that_is_none_is_refused_and_leaves_nothing() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["true"]);
    for address in ["relative", "/no/such/socket"] {
        let mut command = runtime.command(&["run", "-b", bundle.path(), "c"]);
        let output = command.env("NOTIFY_SOCKET", address).output().expect("run");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains("NOTIFY_SOCKET"),
            "{text}"
        );
        runtime.fails(&["state", "c"]);
    }
    assert!(runtime.cgroup_dirs().is_empty());
}
