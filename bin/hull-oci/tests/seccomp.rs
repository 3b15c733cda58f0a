//! `linux.seccomp`, seen from inside and from the listener's side.

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use support::{Bundle, Runtime};

const MAX_STATE: usize = 64 << 10;

fn filter(rules: &Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

/// Runs a script under rules.
#[track_caller]
fn under(rules: &Value, script: &str) -> String {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    bundle.set("/linux/seccomp", filter(rules));
    runtime.ok(&["run", "-b", bundle.path(), "c"])
}

/// Waits for one connection: the state and the descriptor, of which one call was seen. Then nobody
/// answers any more, and the kernel answers with ENOSYS.
fn listen(path: &Path) -> JoinHandle<(Value, bool)> {
    let listener = UnixListener::bind(path).expect("bind");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("accept");
        let (mut bytes, mut fds): (Vec<u8>, Vec<OwnedFd>) = (Vec::new(), Vec::new());
        loop {
            let mut part = vec![0u8; MAX_STATE];
            let count = hull_sys::fdpass::receive(&socket, &mut part, &mut fds).expect("receive");
            if count == 0 {
                break;
            }
            bytes.extend(&part[..count]);
        }
        assert_eq!(fds.len(), 1);
        let state = serde_json::from_slice(&bytes).expect("json");
        let mut wait = [PollFd::new(&fds[0], PollFlags::IN)];
        let limit = rustix::event::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let seen = poll(&mut wait, Some(&limit)).expect("poll") == 1
            && wait[0].revents().contains(PollFlags::IN);
        (state, seen)
    })
}

#[test]
fn seccomp_errno_is_the_one_of_the_rule_and_arguments_decide() {
    let refused = json!([{
        "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28
    }]);
    let out = under(&refused, "mkdir /x 2>&1; true");
    assert!(out.contains("No space left on device"), "{out}");
    let kill = json!([{
        "names": ["kill"], "action": "SCMP_ACT_ERRNO",
        "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }]
    }]);
    let out = under(&kill, "kill -0 $$ && echo may; kill -USR1 $$ 2>&1; true");
    assert!(
        out.starts_with("may\n") && out.contains("not permitted"),
        "{out}"
    );
}

#[test]
fn seccomp_kill_and_trap_end_the_process_by_sigsys() {
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        let rules = json!([{ "names": ["mkdir", "mkdirat"], "action": action }]);
        let out = under(&rules, "mkdir /x 2>/dev/null; echo $?");
        assert_eq!(out.trim(), "159", "{action}");
    }
    // Nobody traces: the call does not exist.
    let trace = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_TRACE" }]);
    let out = under(&trace, "mkdir /x 2>&1; true");
    assert!(out.contains("not implemented"), "{out}");
    let log = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG" }]);
    assert_eq!(under(&log, "mkdir /x && echo made").trim(), "made");
}

#[test]
fn seccomp_flags_are_taken() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["grep", "Seccomp:", "/proc/self/status"]);
    let mut profile = filter(&json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]));
    profile["flags"] = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC"
    ]);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    bundle.set("/linux/seccomp", profile);
    let out = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    assert_eq!(out.split_whitespace().nth(1), Some("2"), "{out}");
}

#[test]
fn seccomp_notify_descriptor_and_state_reach_the_listener_of_create_and_of_exec() {
    for no_new_privileges in [true, false] {
        let runtime = Runtime::ours();
        let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", "mkdir /x; sleep 1000"]);
        let socket = bundle.dir.path().join("listener");
        let mut profile = filter(&json!([{
            "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"
        }]));
        profile["listenerPath"] = json!(socket);
        profile["listenerMetadata"] = json!("some=metadata");
        bundle.set("/linux/seccomp", profile);
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));

        let heard = listen(&socket);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        let pid = runtime.state("c")["pid"].clone();
        runtime.ok(&["start", "c"]);
        let (state, seen) = heard.join().expect("listener");
        assert!(seen);
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["pid"], pid);
        assert_eq!(state["metadata"], "some=metadata");
        assert_eq!(state["ociVersion"], state["state"]["ociVersion"]);
        assert_eq!(state["state"]["id"], "c");
        assert_eq!(state["state"]["status"], "creating");
        assert_eq!(state["state"]["pid"], pid);
        assert_eq!(state["state"]["bundle"], bundle.path());

        std::fs::remove_file(&socket).expect("remove");
        let heard = listen(&socket);
        let output = runtime.run(&["exec", "c", "mkdir", "/y"]);
        let (state, seen) = heard.join().expect("listener");
        assert!(seen);
        assert_eq!(state["state"]["status"], "running");
        assert_eq!(state["state"]["pid"], pid);
        assert_ne!(state["pid"], pid);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("not implemented"), "{text}");
        runtime.ok(&["delete", "--force", "c"]);
    }
}

#[test]
fn seccomp_notify_without_anybody_at_the_socket_leaves_nothing() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    let mut profile = filter(&json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
    bundle.set("/linux/seccomp", profile.clone());
    let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(text.contains("linux.seccomp.listenerPath"), "{text}");
    profile["listenerPath"] = json!(bundle.dir.path().join("nobody"));
    bundle.set("/linux/seccomp", profile.clone());
    let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(text.contains("cannot connect"), "{text}");
    // The program of a filter that is never installed.
    profile["listenerPath"] = json!(bundle.dir.path().join("somebody"));
    bundle.set("/linux/seccomp", profile);
    bundle.set("/process/args", json!(["/no/such/program"]));
    let _listener = UnixListener::bind(bundle.dir.path().join("somebody")).expect("bind");
    let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(text.contains("no such file"), "{text}");
    runtime.fails(&["state", "c"]);
    assert!(runtime.cgroup_dirs().is_empty());
}
