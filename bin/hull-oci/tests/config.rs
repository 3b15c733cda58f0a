//! What of config.json is honoured, and what is refused by name.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Bundle, Runtime};

/// Runs a script in a container with one more setting.
#[track_caller]
fn with(settings: &[(&str, Value)], script: &str) -> String {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    for (pointer, value) in settings {
        bundle.set(pointer, value.clone());
    }
    runtime.ok(&["run", "-b", bundle.path(), "c"])
}

#[track_caller]
fn refused(pointer: &str, value: Value) -> String {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    bundle.set(pointer, value);
    let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(runtime.ok(&["list", "-q"]).is_empty(), "something is left");
    assert!(runtime.cgroup_dirs().is_empty(), "a control group is left");
    text
}

#[test]
fn config_unsupported_fields_are_refused_by_name() {
    for (pointer, value, part) in [
        ("/ociVersion", json!("2.0.0"), "ociVersion 2.0.0"),
        ("/process/args", json!([]), "process.args names no program"),
        (
            "/process/cwd",
            json!("tmp"),
            "process.cwd: tmp is not an absolute path",
        ),
        (
            "/process/env/-",
            json!("NOEQUALS"),
            "process.env[2] has no '='",
        ),
        ("/process/apparmorProfile", json!("x"), "AppArmor profile"),
        ("/process/selinuxLabel", json!("x"), "SELinux label"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "priority": 1 }),
            "process.scheduler.priority",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
            "process.ioPriority.priority",
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND" }),
            "linux.memoryPolicy.nodes",
        ),
        (
            "/process/capabilities/effective",
            json!(["CAP_CHOWN"]),
            "capabilities.effective: CAP_CHOWN",
        ),
        (
            "/process/capabilities/bounding",
            json!([5]),
            "process.capabilities.bounding",
        ),
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/root/path", json!("missing"), "root.path"),
        (
            "/mounts/-",
            json!({ "destination": "/x" }),
            "mounts[4].type",
        ),
        (
            "/mounts/-",
            json!({ "destination": "/x", "type": "tmpfs", "options": ["copyup"] }),
            "mounts[4].options",
        ),
        (
            "/linux/namespaces/-",
            json!({ "type": "user" }),
            "linux.uidMappings",
        ),
        (
            "/linux/namespaces/-",
            json!({ "type": "pid" }),
            "linux.namespaces[5]",
        ),
        (
            "/linux/namespaces",
            json!([{ "type": "pid" }]),
            "linux.maskedPaths",
        ),
        (
            "/linux/uidMappings",
            json!([{ "hostID": 1, "containerID": 0, "size": 1 }]),
            "linux.uidMappings",
        ),
        (
            "/linux/rootfsPropagation",
            json!("peer"),
            "linux.rootfsPropagation",
        ),
        (
            "/linux/cgroupsPath",
            json!("system.slice:x:y"),
            "linux.cgroupsPath",
        ),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath"),
        ("/linux/intelRdt", json!({}), "linux.intelRdt"),
        (
            "/linux/resources/unified",
            json!({ "memory.high": "1" }),
            "linux.resources.unified",
        ),
        (
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 1 }]),
            "linux.resources.hugepageLimits",
        ),
        (
            "/linux/resources/cpu",
            json!({ "realtimeRuntime": 5 }),
            "linux.resources.cpu.realtimeRuntime",
        ),
        (
            "/linux/resources/devices/-",
            json!({ "allow": true, "type": "c", "access": "x" }),
            "linux.resources.devices[1].access",
        ),
        (
            "/linux/devices",
            json!([{ "path": "/dev/p", "type": "a", "major": 0, "minor": 0 }]),
            "linux.devices[0].type",
        ),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NOPE" }),
            "linux.seccomp",
        ),
        (
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
            }),
            "linux.seccomp.listenerPath",
        ),
    ] {
        let text = refused(pointer, value);
        assert!(text.contains(part), "{pointer}: {text}");
    }
}

#[test]
fn config_damaged_or_missing_file_says_which() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["true"]);
    let config = bundle.dir.path().join("config.json");
    for (text, part) in [
        ("", "config.json"),
        ("{", "config.json"),
        ("[]", "config.json"),
        (r#"{"root":{"path":3}}"#, "root.path"),
    ] {
        fs::write(&config, text).expect("write");
        let said = runtime.fails(&["run", "-b", bundle.path(), "c"]);
        assert!(said.contains(part), "{text}: {said}");
    }
    fs::remove_file(&config).expect("remove");
    assert!(
        runtime
            .fails(&["run", "-b", bundle.path(), "c"])
            .contains("config.json")
    );
    assert!(
        runtime
            .fails(&["run", "-b", "/does/not/exist", "c"])
            .contains("/does/not/exist")
    );
}

#[test]
fn config_process_settings_take_effect() {
    let script = "ulimit -n; umask; cat /proc/self/oom_score_adj; id";
    let text = with(
        &[
            (
                "/process/rlimits",
                json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]),
            ),
            (
                "/process/user",
                json!({ "uid": 33, "gid": 34, "additionalGids": [35], "umask": 0o027 }),
            ),
            ("/process/oomScoreAdj", json!(500)),
        ],
        script,
    );
    assert_eq!(text, "77\n0027\n500\nuid=33 gid=34 groups=35\n");
}

#[test]
fn config_limits_reach_the_control_group() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    bundle.set("/linux/resources/memory", json!({ "limit": 67_108_864 }));
    bundle.set("/linux/resources/pids", json!({ "limit": 20 }));
    bundle.set(
        "/linux/resources/cpu",
        json!({ "quota": 50_000, "period": 100_000 }),
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let read = |names: [&str; 2]| {
        let dirs = runtime.cgroup_dirs();
        let found = dirs
            .iter()
            .flat_map(|dir| names.map(|name| dir.join("c").join(name)))
            .find_map(|file| fs::read_to_string(file).ok());
        found.expect("limit").trim().to_owned()
    };
    assert_eq!(read(["memory.limit_in_bytes", "memory.max"]), "67108864");
    assert_eq!(read(["pids.max", "pids.max"]), "20");
    assert!(read(["cpu.cfs_quota_us", "cpu.max"]).starts_with("50000"));
}

#[test]
fn config_seccomp_filter_takes_effect() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 }],
    });
    let text = with(
        &[("/linux/seccomp", profile)],
        "mkdir /tmp/x 2>&1; echo $?; grep Seccomp: /proc/self/status",
    );
    assert!(text.contains("Input/output error\n1\n"), "{text}");
    assert!(text.contains("Seccomp:\t2"), "{text}");
}

#[test]
fn config_read_only_root_and_mounts_take_effect() {
    let runtime = Runtime::ours();
    let script = "touch /x; echo $?; touch /mnt/y; echo $?; cat /mnt/given; touch /tmp/z; echo $?";
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    fs::create_dir(bundle.dir.path().join("shared")).expect("folder");
    fs::write(bundle.dir.path().join("shared/given"), "content\n").expect("file");
    bundle.set("/root/readonly", json!(true));
    // The mount target is made before the root becomes read-only.
    bundle.set("/mounts/-", json!({ "destination": "/mnt", "type": "bind", "source": "shared", "options": ["rbind", "ro"] }));
    bundle.set(
        "/mounts/-",
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["size=64k"] }),
    );
    assert_eq!(
        runtime.ok(&["run", "-b", bundle.path(), "c"]),
        "1\n1\ncontent\n0\n"
    );
}

#[test]
fn config_joined_network_namespace_is_the_given_one() {
    let own = fs::read_link("/proc/self/ns/net").expect("link");
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["ls", "-l", "/proc/self/ns/net"]);
    let other = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    assert!(!other.contains(own.to_str().expect("text")), "{other}");
    bundle.set(
        "/linux/namespaces",
        json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "network", "path": "/proc/self/ns/net" }]),
    );
    let joined = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    assert!(joined.contains(own.to_str().expect("text")), "{joined}");
}

#[test]
fn options_that_cannot_be_honoured_are_refused() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["true"]);
    for (args, part) in [
        (
            vec!["--systemd-cgroup", "run", "-b", bundle.path(), "c"],
            "--systemd-cgroup",
        ),
        (
            vec!["run", "--preserve-fds", "2", "-b", bundle.path(), "c"],
            "--preserve-fds",
        ),
        (
            vec!["run", "-b", bundle.path(), "../c"],
            "invalid container ID",
        ),
        (vec!["kill", "c", "NOSUCH"], "unknown signal"),
    ] {
        let said = runtime.fails(&args);
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

#[test]
fn spec_template_is_accepted_by_both_runtimes() {
    let [ours, theirs] = Runtime::both();
    for runtime in [ours, theirs] {
        let bundle = Bundle::new(&runtime, "c", &["true"]);
        let config = bundle.dir.path().join("config.json");
        fs::remove_file(&config).expect("remove");
        let maker = Runtime::ours();
        maker.ok(&["spec", "-b", bundle.path()]);
        assert!(
            maker
                .fails(&["spec", "-b", bundle.path()])
                .contains("Remove it first")
        );
        let mut value: Value =
            serde_json::from_str(&fs::read_to_string(&config).expect("read")).expect("json");
        value["process"]["terminal"] = json!(false);
        value["process"]["args"] = json!(["echo", "works"]);
        value["process"]["env"] = json!(["PATH=/bin"]);
        value["linux"]["cgroupsPath"] = json!(runtime.cgroup("c"));
        fs::write(&config, value.to_string()).expect("write");
        assert_eq!(runtime.ok(&["run", "-b", bundle.path(), "c"]), "works\n");
    }
}

#[test]
fn features_and_log_are_for_programs() {
    let runtime = Runtime::ours();
    let features: Value = serde_json::from_str(&runtime.ok(&["features"])).expect("json");
    assert_eq!(features["linux"]["cgroup"]["systemd"], true);
    assert!(
        features["linux"]["seccomp"]["actions"]
            .as_array()
            .expect("list")
            .len()
            > 5
    );
    let log = tempfile::NamedTempFile::new().expect("file");
    let path = log.path().to_str().expect("text");
    runtime.fails(&["--log", path, "--log-format", "json", "state", "nobody"]);
    let line: Value =
        serde_json::from_str(&fs::read_to_string(log.path()).expect("log")).expect("json");
    assert_eq!(
        (line["level"].as_str(), line["msg"].as_str()),
        (Some("error"), Some("container does not exist: \"nobody\""))
    );
    runtime.fails(&["--log", path, "state", "nobody"]);
    assert!(
        fs::read_to_string(log.path())
            .expect("log")
            .contains("level=error msg=")
    );
}
