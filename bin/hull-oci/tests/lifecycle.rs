//! The life of a container, on our runtime and on runc side by side.

mod support;

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use support::{Bundle, Runtime, wait_for_file};

/// Exit code, or the status where it is asked for.
fn life(runtime: &Runtime) -> Vec<String> {
    let bundle = Bundle::new(runtime, "c", &["sleep", "1000"]);
    let mut log = Vec::new();
    let mut step = |args: &[&str]| log.push(format!("{} {:?}", args[0], runtime.code(args)));
    step(&["create", "-b", bundle.path(), "c"]);
    step(&["create", "-b", bundle.path(), "c"]);
    let created = runtime.status("c");
    step(&["start", "c"]);
    step(&["start", "c"]);
    let running = runtime.status("c");
    step(&["delete", "c"]);
    step(&["pause", "c"]);
    let paused = runtime.status("c");
    step(&["resume", "c"]);
    step(&["exec", "c", "true"]);
    step(&["exec", "c", "no-such-program"]);
    step(&["kill", "c", "KILL"]);
    runtime.wait_for("c", "stopped");
    step(&["kill", "c", "KILL"]);
    step(&["start", "c"]);
    step(&["delete", "c"]);
    step(&["state", "c"]);
    step(&["delete", "c"]);
    step(&["delete", "--force", "c"]);
    log.extend([created, running, paused]);
    log
}

#[test]
fn lifecycle_codes_and_states_are_those_of_runc() {
    let [ours, theirs] = Runtime::both();
    assert_eq!(life(&ours), life(&theirs));
}

#[test]
fn state_fields_are_those_of_runc() {
    let [ours, theirs] = Runtime::both().map(|runtime| {
        let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        let state = runtime.state("c");
        let same = |field: &str, value: &str| assert_eq!(state[field], value, "{field}");
        same("id", "c");
        same("status", "created");
        same("bundle", bundle.path());
        same("rootfs", bundle.root().to_str().expect("text"));
        assert_eq!(state["annotations"]["org.example.key"], "value");
        assert!(state["pid"].as_u64().expect("pid") > 1);
        runtime.ok(&["delete", "--force", "c"]);
        state
            .as_object()
            .expect("object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    });
    assert_eq!(ours, theirs);
}

#[test]
fn run_exit_codes_and_streams_are_those_of_runc() {
    for script in [
        "exit 0",
        "exit 42",
        "echo out; echo err >&2; exit 3",
        "sh -c 'kill -9 $$'; exit $?",
    ] {
        let [ours, theirs] = Runtime::both().map(|runtime| {
            let bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
            let output = runtime.run(&["run", "-b", bundle.path(), "c"]);
            // Nothing is left.
            assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
            (output.status.code(), output.stdout, output.stderr)
        });
        assert_eq!(ours, theirs, "{script}");
    }
}

#[test]
fn run_missing_program_fails_as_runc_does() {
    for program in ["no-such-program", "/etc"] {
        let [ours, theirs] = Runtime::both().map(|runtime| {
            let bundle = Bundle::new(&runtime, "c", &[program]);
            let codes = [
                runtime.code(&["run", "-b", bundle.path(), "c"]),
                runtime.code(&["create", "-b", bundle.path(), "c"]),
                runtime.code(&["state", "c"]),
            ];
            if runtime.is_ours() {
                assert!(
                    runtime
                        .fails(&["create", "-b", bundle.path(), "c"])
                        .contains(&format!("exec: \\\"{program}\\\""))
                );
                let empty = runtime
                    .cgroup_dirs()
                    .iter()
                    .all(|dir| !dir.join("c").exists());
                assert!(empty, "a control group is left");
            }
            codes
        });
        assert_eq!(ours, theirs, "{program}");
    }
}

#[test]
fn run_standard_input_reaches_the_program() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["cat"]);
    let mut child = runtime
        .command(&["run", "-b", bundle.path(), "c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spawn");
    child
        .stdin
        .take()
        .expect("pipe")
        .write_all(b"over and out")
        .expect("write");
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.stdout, b"over and out");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn run_signal_reaches_the_program() {
    let runtime = Runtime::ours();
    let script = "trap 'exit 9' TERM; touch /data/ready; while :; do sleep 0.01; done";
    let bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    let mut child = runtime
        .command(&["run", "-b", bundle.path(), "c"])
        .spawn()
        .expect("spawn");
    wait_for_file(&bundle.root().join("data/ready"));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(9));
}

#[test]
fn create_program_runs_only_after_start() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sh", "-c", "touch /data/ran; sleep 1000"]);
    let pid_file = bundle.dir.path().join("pid");
    runtime.ok(&[
        "create",
        "-b",
        bundle.path(),
        "--pid-file",
        pid_file.to_str().expect("text"),
        "c",
    ]);
    assert_eq!(
        fs::read_to_string(&pid_file).expect("pid file"),
        runtime.state("c")["pid"].to_string()
    );
    std::thread::sleep(Duration::from_millis(100));
    assert!(!bundle.root().join("data/ran").exists());
    assert_eq!(runtime.status("c"), "created");
    runtime.ok(&["start", "c"]);
    wait_for_file(&bundle.root().join("data/ran"));
    assert_eq!(runtime.status("c"), "running");
}

#[test]
fn create_program_that_waits_cannot_be_overwritten() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    // The process in the container still is hull-oci. Whoever gets a handle on its program there
    // gets it through a read-only mount, and cannot write even when it is no longer busy
    // (CVE-2019-5736).
    let exe = format!("/proc/{}/exe", runtime.state("c")["pid"]);
    let program = fs::File::open(exe).expect("open the program");
    let flags = rustix::fs::fstatvfs(&program).expect("statvfs").f_flag;
    assert!(
        flags.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        "{flags:?}"
    );
}

#[test]
fn create_killed_before_start_is_stopped_and_cannot_start() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    runtime.ok(&["kill", "c", "9"]);
    runtime.wait_for("c", "stopped");
    assert!(runtime.fails(&["start", "c"]).contains("has stopped"));
    runtime.ok(&["delete", "c"]);
}

#[test]
fn start_called_twice_at_once_succeeds_once() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["create", "-b", bundle.path(), "c"]);
    let children: Vec<_> = (0..8)
        .map(|_| {
            runtime
                .command(&["start", "c"])
                .stderr(Stdio::null())
                .spawn()
                .expect("spawn")
        })
        .collect();
    let codes = children
        .into_iter()
        .map(|mut child| child.wait().expect("wait").code());
    assert_eq!(codes.filter(|code| *code == Some(0)).count(), 1);
    assert_eq!(runtime.status("c"), "running");
}

#[test]
fn delete_force_removes_process_control_group_and_record() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let pid = runtime.state("c")["pid"].to_string();
    assert!(
        runtime
            .cgroup_dirs()
            .iter()
            .any(|dir| dir.join("c").is_dir())
    );
    assert!(
        runtime
            .fails(&["delete", "c"])
            .contains("not stopped: running")
    );
    runtime.ok(&["pause", "c"]);
    runtime.ok(&["delete", "--force", "c"]);
    assert!(
        !runtime
            .cgroup_dirs()
            .iter()
            .any(|dir| dir.join("c").exists())
    );
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    assert_eq!(runtime.ok(&["list", "-q"]), "");
}

#[test]
fn list_and_ps_show_what_runs() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    assert_eq!(runtime.ok(&["list", "-f", "json"]), "[]\n");
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let state = runtime.state("c");
    let list: serde_json::Value =
        serde_json::from_str(&runtime.ok(&["list", "-f", "json"])).expect("json");
    assert_eq!(list[0], state);
    assert_eq!(runtime.ok(&["list", "-q"]), "c\n");
    let table = runtime.ok(&["list"]);
    assert!(
        table.starts_with("ID ") && table.contains("running"),
        "{table}"
    );
    assert_eq!(
        runtime.ok(&["ps", "-f", "json", "c"]),
        format!("[{}]\n", state["pid"])
    );
    let table = runtime.ok(&["ps", "c"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("sleep 1000"), "{table}");
}

#[test]
fn host_mount_table_stays_as_it_was() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(bundle.path()), "{mounts}");
}

#[test]
fn create_killed_at_any_moment_leaves_nothing_delete_does_not_find() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    for round in 0..40 {
        let mut child = runtime
            .command(&["create", "-b", bundle.path(), "c"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("spawn");
        std::thread::sleep(Duration::from_micros(200 * round));
        child.kill().expect("kill");
        child.wait().expect("wait");
        runtime.ok(&["delete", "--force", "c"]);
        assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
        let left = runtime
            .cgroup_dirs()
            .into_iter()
            .find(|dir| dir.join("c").exists());
        assert_eq!(left, None, "round {round}");
    }
}
