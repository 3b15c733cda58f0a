//! `linux.seccomp`: every action, operator and flag, and filters that ask a listener.

use std::path::PathBuf;
use std::thread::JoinHandle;

use hull_oci_tests::{Runtime, sockets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::Case;

const PROFILE: &str = "/linux/seccomp";
/// Tries two signals of which a rule refuses one.
const SIGNALS: &str = "trap : USR1 USR2; kill -10 $$ 2>/dev/null && echo ten; \
    kill -12 $$ 2>/dev/null && echo twelve; true";

fn filter(rules: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn mkdir(action: &str) -> Value {
    filter(&json!([{"names": ["mkdir", "mkdirat"], "action": action}]))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, action, script, expected) in [
        (
            "linux.seccomp.kill",
            "SCMP_ACT_KILL",
            "mkdir /tmp/x 2>/dev/null; echo $?",
            "159",
        ),
        (
            "linux.seccomp.kill-thread",
            "SCMP_ACT_KILL_THREAD",
            "mkdir /tmp/x 2>/dev/null; echo $?",
            "159",
        ),
        (
            "linux.seccomp.kill-process",
            "SCMP_ACT_KILL_PROCESS",
            "mkdir /tmp/x 2>/dev/null; echo $?",
            "159",
        ),
        (
            "linux.seccomp.trap",
            "SCMP_ACT_TRAP",
            "mkdir /tmp/x 2>/dev/null; echo $?",
            "159",
        ),
        // Nobody traces: the call does not exist.
        (
            "linux.seccomp.trace",
            "SCMP_ACT_TRACE",
            "mkdir /tmp/x 2>&1 | grep -c implemented",
            "1",
        ),
        (
            "linux.seccomp.log",
            "SCMP_ACT_LOG",
            "mkdir /tmp/x && echo made",
            "made",
        ),
        (
            "linux.seccomp.allow",
            "SCMP_ACT_ALLOW",
            "mkdir /tmp/x && echo made",
            "made",
        ),
    ] {
        all.push(Case::says(
            name,
            vec![(PROFILE, mkdir(action))],
            script,
            expected,
        ));
    }
    for (name, op, value, two, expected) in [
        ("linux.seccomp.op.ne", "SCMP_CMP_NE", 10, 0, "ten"),
        ("linux.seccomp.op.lt", "SCMP_CMP_LT", 12, 0, "twelve"),
        ("linux.seccomp.op.le", "SCMP_CMP_LE", 10, 0, "twelve"),
        ("linux.seccomp.op.eq", "SCMP_CMP_EQ", 12, 0, "ten"),
        ("linux.seccomp.op.ge", "SCMP_CMP_GE", 12, 0, "ten"),
        ("linux.seccomp.op.gt", "SCMP_CMP_GT", 10, 0, "ten"),
        (
            "linux.seccomp.op.masked-eq",
            "SCMP_CMP_MASKED_EQ",
            4,
            4,
            "ten",
        ),
    ] {
        let rules = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": value, "valueTwo": two, "op": op}]}]);
        all.push(Case::says(
            name,
            vec![(PROFILE, filter(&rules))],
            SIGNALS,
            expected,
        ));
    }
    all.push(Case::says(
        "linux.seccomp.default-errno",
        vec![(
            PROFILE,
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95, "syscalls": [
                {"names": ["execve", "exit", "exit_group", "write", "read", "brk", "mmap", "munmap", "mprotect", "arch_prctl", "set_tid_address",
                    "set_robust_list", "rseq", "prlimit64", "getrandom", "readlink", "readlinkat", "uname", "getuid", "geteuid", "getgid", "getegid", "ioctl", "rt_sigaction",
                    "rt_sigprocmask", "rt_sigreturn", "getpid", "getppid", "stat", "lstat", "fstat", "newfstatat", "statx", "open", "openat", "close", "getcwd", "fcntl", "dup2",
                    "poll", "futex", "prctl", "sigaltstack", "wait4", "fork", "vfork", "clone", "clone3", "chdir", "faccessat", "faccessat2", "access", "sched_yield", "capget", "capset",
                    "setgid", "setuid", "setgroups", "getdents64", "close_range", "fchdir", "epoll_pwait", "epoll_ctl", "nanosleep", "tgkill", "madvise", "getgroups", "setresuid", "setresgid",
                    "fstatfs", "fchown", "umask", "seccomp", "pread64", "execveat", "keyctl", "setsid", "sendto", "sendmsg", "write", "writev", "rt_sigtimedwait", "pipe2", "gettid", "lseek", "time", "gettimeofday", "clock_gettime", "epoll_create1", "eventfd2"],
                 "action": "SCMP_ACT_ALLOW"}]}),
        )],
        "mkdir /tmp/x 2>&1 | grep -c 'not supported'; true",
        "1",
    ));
    all.push(Case::says(
        "linux.seccomp.architectures",
        vec![(
            PROFILE,
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}),
        )],
        "mkdir /tmp/x 2>&1 | grep -c 'No space'; true",
        "1",
    ));
    for (name, flag) in [
        ("linux.seccomp.flag.log", "SECCOMP_FILTER_FLAG_LOG"),
        ("linux.seccomp.flag.tsync", "SECCOMP_FILTER_FLAG_TSYNC"),
        (
            "linux.seccomp.flag.spec-allow",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        ),
    ] {
        let mut profile = mkdir("SCMP_ACT_ERRNO");
        profile["flags"] = json!([flag]);
        all.push(Case::says(
            name,
            vec![(PROFILE, profile)],
            "grep Seccomp: /proc/self/status",
            "Seccomp:\t2",
        ));
    }
    all.push(Case::new("linux.seccomp.notify", |runtime| {
        let (bundle, socket) = asking(runtime);
        let heard = listen(&socket);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        let pid = runtime.pid("c");
        runtime.ok(&["start", "c"]);
        let (state, asked) = told(heard);
        assert!(asked, "no call was seen");
        assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
        assert_eq!(state["pid"], json!(pid), "{state}");
        assert_eq!(state["metadata"], "some=metadata", "{state}");
        assert_eq!(state["state"]["id"], "c", "{state}");
        assert_eq!(state["state"]["bundle"], bundle.path(), "{state}");
        assert!(state["ociVersion"].is_string(), "{state}");
    }));
    all.push(Case::new("linux.seccomp.notify.exec", |runtime| {
        let (bundle, socket) = asking(runtime);
        let heard = listen(&socket);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        runtime.ok(&["start", "c"]);
        let _ = told(heard);
        std::fs::remove_file(&socket).expect("remove");
        let heard = listen(&socket);
        let said = runtime.run(&["exec", "c", "mkdir", "/tmp/y"]);
        let (state, asked) = told(heard);
        assert!(asked, "no call was seen");
        assert_ne!(state["pid"], json!(runtime.pid("c")), "{state}");
        assert_eq!(state["state"]["status"], "running", "{state}");
        // Nobody answers any more.
        assert!(said.err.contains("not implemented"), "{}", said.err);
    }));
    all.push(Case::new(
        "refused.seccomp-notify-without-listener",
        |runtime| {
            let bundle = runtime.bundle("c", &[(PROFILE, mkdir("SCMP_ACT_NOTIFY"))], "true");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert!(said.err.contains("listener"), "{}", said.err);
            runtime.nothing_left();
        },
    ));
    all.push(Case::new("failed.seccomp-listener-nobody", |runtime| {
        let (bundle, socket) = asking(runtime);
        let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
        assert!(said.code > 0, "was not refused, ended with {}", said.code);
        let path = socket.to_string_lossy().into_owned();
        assert!(
            said.err.contains(&path) || said.err.contains("seccomp"),
            "{}",
            said.err
        );
        runtime.nothing_left();
    }));
    all
}

/// A container that makes a folder, which its filter asks about.
fn asking(runtime: &Runtime) -> (hull_oci_tests::Bundle, PathBuf) {
    let socket = runtime.dir().join("listener");
    let mut profile = mkdir("SCMP_ACT_NOTIFY");
    profile["listenerPath"] = json!(socket);
    profile["listenerMetadata"] = json!("some=metadata");
    let bundle = runtime.bundle("c", &[(PROFILE, profile)], "mkdir /tmp/x; exec sleep 1000");
    (bundle, socket)
}

/// What the listener is told, and whether one call was seen. Then nobody answers any more, and the
/// kernel answers with ENOSYS.
fn listen(socket: &std::path::Path) -> JoinHandle<(Value, bool)> {
    let heard = sockets::listen(socket, true);
    std::thread::spawn(move || {
        let message = heard.join().expect("the thread ended");
        let message = message.expect("nothing came by the listener's socket");
        assert_eq!(message.fds.len(), 1, "descriptors at the listener");
        let state = serde_json::from_slice(&message.bytes).expect("the state is JSON");
        let mut wait = [PollFd::new(&message.fds[0], PollFlags::IN)];
        let limit = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let asked = poll(&mut wait, Some(&limit)).expect("poll") == 1
            && wait[0].revents().contains(PollFlags::IN);
        (state, asked)
    })
}

/// What a listener was told, or why it was not.
fn told(heard: JoinHandle<(Value, bool)>) -> (Value, bool) {
    heard
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
