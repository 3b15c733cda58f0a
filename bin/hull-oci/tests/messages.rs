//! What engines read: errors in their words, logs in their form, versions, features.

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::Value;
use support::{Bundle, Runtime};
use tempfile::TempDir;

/// The last line of the log, as containerd takes it.
fn last_error(path: &std::path::Path) -> Value {
    let text = fs::read_to_string(path).expect("log");
    serde_json::from_str(text.lines().last().expect("a line")).expect("json")
}

#[test]
fn errors_in_the_log_are_those_that_engines_look_for() {
    for runtime in Runtime::both() {
        let dir = TempDir::new().expect("folder");
        let log = dir.path().join("log.json");
        let path = log.to_str().expect("text");
        let bundle = Bundle::new(&runtime, "c", &["true"]);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        let fails = |args: &[&str]| {
            let mut all = vec!["--log", path, "--log-format", "json"];
            all.extend(args);
            let said = runtime.fails(&all);
            let line = last_error(&log);
            assert_eq!(line["level"], "error");
            assert!(line["time"].as_str().is_some_and(|time| time.len() >= 20));
            let message = line["msg"].as_str().expect("msg").to_owned();
            assert!(said.contains(&message), "{said:?} has no {message:?}");
            assert!(!said.contains("level="), "{said}");
            message
        };
        let expect = |args: &[&str], wanted: &str| {
            let message = fails(args);
            assert!(message.contains(wanted), "{message}");
        };
        expect(&["state", "none"], "does not exist");
        expect(&["kill", "none", "KILL"], "does not exist");
        expect(
            &["create", "-b", bundle.path(), "c"],
            "container with given ID already exists",
        );
        runtime.ok(&["start", "c"]);
        runtime.wait_for("c", "stopped");
        expect(&["kill", "c", "TERM"], "container not running");
        expect(&["pause", "c"], "container not running");
        expect(&["resume", "c"], "container not paused");
        expect(&["start", "c"], "cannot start a container that has stopped");
        expect(&["exec", "c", "true"], "cannot exec in a stopped container");
    }
}

#[test]
fn errors_without_a_log_are_lines_on_standard_error() {
    for runtime in Runtime::both() {
        let said = runtime.fails(&["state", "none"]);
        assert!(
            said.starts_with("time=\"") && said.contains(" level=error msg=\""),
            "{said}"
        );
        let said = runtime.fails(&["--log-format", "json", "state", "none"]);
        let line: Value = serde_json::from_str(&said).expect("json");
        assert_eq!(line["level"], "error");
    }
}

#[test]
fn missing_program_is_said_in_words_that_engines_know() {
    for runtime in Runtime::both() {
        let bundle = Bundle::new(&runtime, "c", &["no-such-program"]);
        let said = runtime.fails(&["create", "-b", bundle.path(), "c"]);
        assert!(
            said.contains("executable file not found in $PATH"),
            "{said}"
        );
        let bundle = Bundle::new(&runtime, "c", &["/etc"]);
        let said = runtime.fails(&["create", "-b", bundle.path(), "c"]);
        assert!(
            said.contains("permission denied") || said.contains("is a directory"),
            "{said}"
        );
    }
}

#[test]
fn created_container_is_deleted_without_force() {
    for runtime in Runtime::both() {
        let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        runtime.ok(&["create", "-b", bundle.path(), "c"]);
        runtime.ok(&["delete", "c"]);
        assert!(runtime.fails(&["state", "c"]).contains("does not exist"));
        runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
        assert!(
            runtime
                .fails(&["delete", "c"])
                .contains("that is not stopped: running")
        );
        runtime.ok(&["delete", "--force", "c"]);
    }
}

#[test]
fn kill_takes_signals_by_any_name() {
    for runtime in Runtime::both() {
        let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        for signal in ["KILL", "SIGKILL", "kill", "9"] {
            runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
            runtime.fails(&["kill", "c", "NOPE"]);
            runtime.ok(&["kill", "c", signal]);
            runtime.wait_for("c", "stopped");
            runtime.ok(&["kill", "--all", "c", signal]);
            runtime.ok(&["delete", "c"]);
        }
    }
}

#[test]
fn version_lines_are_those_engines_take_apart() {
    for runtime in Runtime::both() {
        let text = runtime.ok(&["--version"]);
        assert_eq!(text, runtime.ok(&["-v"]));
        let first = text.lines().next().expect("a line");
        assert!(first.contains(" version "), "{first}");
        assert!(
            text.lines().any(|line| line.starts_with("spec: 1.")),
            "{text}"
        );
        assert_eq!(text.matches("version").count(), 1);
    }
}

#[test]
fn command_lines_that_are_wrong_end_with_one() {
    for runtime in Runtime::both() {
        assert_eq!(runtime.code(&["create"]), Some(1));
        assert_eq!(runtime.code(&["--no-such-flag"]), Some(1));
        assert_eq!(runtime.code(&["--help"]), Some(0));
    }
}

#[test]
fn list_and_ps_have_the_forms_of_runc() {
    for runtime in Runtime::both() {
        let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
        assert_eq!(runtime.ok(&["list", "-q"]), "c\n");
        let table = runtime.ok(&["list"]);
        let mut lines = table.lines();
        let heading: Vec<&str> = lines.next().expect("heading").split_whitespace().collect();
        assert_eq!(
            heading,
            ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
        );
        let row: Vec<&str> = lines.next().expect("row").split_whitespace().collect();
        let pid = runtime.state("c")["pid"].to_string();
        assert_eq!(row[..4], ["c", pid.as_str(), "running", bundle.path()]);
        let list: Value =
            serde_json::from_str(&runtime.ok(&["list", "--format", "json"])).expect("json");
        assert_eq!(list[0]["id"], "c");
        let pids = runtime.ok(&["ps", "--format", "json", "c"]);
        assert_eq!(pids.trim(), format!("[{pid}]"));
        assert!(runtime.ok(&["ps", "c"]).contains("sleep 1000"));
        assert!(runtime.ok(&["ps", "c", "-o", "pid,comm"]).contains("sleep"));
    }
}

#[test]
fn features_have_what_runc_has() {
    let [ours, theirs] = Runtime::both();
    let parse = |runtime: &Runtime| -> Value {
        serde_json::from_str(&runtime.ok(&["features"])).expect("json")
    };
    let (ours, theirs) = (parse(&ours), parse(&theirs));
    for list in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/knownFlags",
    ] {
        let of = |document: &Value| document.pointer(list).and_then(Value::as_array).cloned();
        let ours = of(&ours).unwrap_or_else(|| panic!("{list}"));
        for word in of(&theirs).unwrap_or_default() {
            assert!(ours.contains(&word), "{list}: {word}");
        }
    }
    let archs = ours["linux"]["seccomp"]["archs"].to_string();
    for arch in [
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_AARCH64",
    ] {
        assert!(archs.contains(arch), "{archs}");
    }
    for flag in [
        "/linux/cgroup/v1",
        "/linux/cgroup/v2",
        "/linux/cgroup/systemd",
        "/linux/cgroup/systemdUser",
        "/linux/seccomp/enabled",
        "/linux/intelRdt/enabled",
        "/linux/mountExtensions/idmap/enabled",
        "/linux/netDevices/enabled",
    ] {
        assert_eq!(ours.pointer(flag), Some(&Value::Bool(true)), "{flag}");
    }
}

#[test]
fn version_of_the_bundle_decides() {
    for runtime in Runtime::both() {
        let mut bundle = Bundle::new(&runtime, "c", &["true"]);
        for good in ["1.0.0", "1.0.2-dev"] {
            bundle.set("/ociVersion", good.into());
            runtime.ok(&["run", "-b", bundle.path(), "c"]);
        }
    }
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    for bad in ["2.0.0", "0.9.0", "1", "one"] {
        bundle.set("/ociVersion", bad.into());
        let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
        assert!(said.contains("ociVersion"), "{said}");
    }
}

#[test]
fn pidfd_socket_gets_a_handle_on_the_first_process() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    let path = bundle.dir.path().join("pidfd.sock");
    let listener = UnixListener::bind(&path).expect("socket");
    let text = path.to_str().expect("text");
    runtime.ok(&["create", "-b", bundle.path(), "--pidfd-socket", text, "c"]);
    let (stream, _) = listener.accept().expect("accept");
    let mut fds = Vec::new();
    hull_sys::fdpass::receive(&stream, &mut [0; 64], &mut fds).expect("receive");
    hull_sys::pidfd::send_signal(&fds[0], 9).expect("a pidfd");
    runtime.wait_for("c", "stopped");
}

#[test]
fn create_killed_at_any_moment_leaves_what_delete_takes_away() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    for round in 0..60u64 {
        let mut child = runtime
            .command(&["create", "-b", bundle.path(), "c"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("create");
        std::thread::sleep(std::time::Duration::from_micros(round * 250));
        let _ = child.kill();
        let _ = child.wait();
        runtime.ok(&["delete", "--force", "c"]);
        for dir in runtime.cgroup_dirs() {
            assert!(!dir.join("c").exists(), "round {round}: {}", dir.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(bundle.path()), "round {round}");
    }
    assert_eq!(runtime.ok(&["list", "-q"]), "");
}

#[test]
fn interface_moves_in_with_its_addresses() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["busybox", "ip", "addr"]);
    bundle.set(
        "/linux/netDevices",
        serde_json::json!({ "hullt0": { "name": "inner0" } }),
    );
    let script = format!(
        "ip link add hullt0 type veth peer name hullt1 && ip addr add 10.9.8.7/24 dev hullt0 && \
         ip addr add fd00::5/64 dev hullt0 && exec {} --root {} run -b {} c",
        env!("CARGO_BIN_EXE_hull-oci"),
        bundle.dir.path().join("state").display(),
        bundle.path()
    );
    // In a network namespace of the test's own.
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &script])
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for wanted in ["inner0", "UP", "10.9.8.7/24", "fd00::5/64"] {
        assert!(text.contains(wanted), "{text}");
    }
    let mut bundle = Bundle::new(&runtime, "d", &["true"]);
    bundle.set("/linux/netDevices", serde_json::json!({ "hull-none0": {} }));
    let said = runtime.fails(&["create", "-b", bundle.path(), "d"]);
    assert!(
        said.contains("hull-none0") && said.contains("none on the host"),
        "{said}"
    );
}

#[test]
fn classes_of_resctrl_are_refused_where_there_is_none() {
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return;
    }
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    bundle.set("/linux/intelRdt", serde_json::json!({ "closID": "x" }));
    let said = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(
        said.contains("linux.intelRdt") && said.contains("mount -t resctrl"),
        "{said}"
    );
    assert!(runtime.cgroup_dirs().is_empty());
}
