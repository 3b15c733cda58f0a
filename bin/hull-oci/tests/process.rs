//! What of `process` and of scheduling is honoured, seen from inside.

mod support;

use serde_json::{Value, json};
use support::{Bundle, Runtime};

/// Runs a script in a container with more settings.
#[track_caller]
fn with(settings: &[(&str, Value)], script: &str) -> String {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    for (pointer, value) in settings {
        bundle.set(pointer, value.clone());
    }
    runtime.ok(&["run", "-b", bundle.path(), "c"])
}

#[test]
fn process_scheduler_and_io_priority_are_those_of_the_bundle() {
    let batch = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    let idle = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
    let out = with(
        &[("/process/scheduler", batch), ("/process/ioPriority", idle)],
        // Fields 19 and 41 of proc(5): nice, policy.
        "cut -d' ' -f19,41 /proc/self/stat; ionice",
    );
    assert_eq!(out, "7 3\nidle\n");
}

#[test]
fn process_personality_is_32_bit() {
    let out = with(
        &[("/linux/personality", json!({ "domain": "LINUX32" }))],
        "uname -m",
    );
    assert!(matches!(out.trim(), "i686" | "i386"), "{out}");
}

#[test]
fn process_memory_policy_is_seen_in_numa_maps() {
    let policy = json!({ "mode": "MPOL_BIND", "nodes": "0" });
    let out = with(
        &[("/linux/memoryPolicy", policy)],
        "head -n 1 /proc/self/numa_maps || echo bind",
    );
    // A kernel without NUMA has no such file, and no policies either.
    assert!(out.contains("bind"), "{out}");
}

#[test]
fn process_inheritable_capabilities_are_given_and_exec_adds_none() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    bundle.set("/process/capabilities/bounding", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/permitted", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/effective", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/inheritable", json!(["CAP_KILL"]));
    bundle.set("/process/capabilities/ambient", json!([]));
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let kill = 1u64 << 5;
    let sets = |args: &[&str]| {
        let text = runtime.ok(args);
        let set = |name: &str| {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .expect(name);
            u64::from_str_radix(line.split_whitespace().nth(1).expect("set"), 16).expect("hex")
        };
        (set("CapInh:"), set("CapAmb:"), set("CapBnd:"))
    };
    let status = ["grep", "Cap", "/proc/self/status"];
    assert_eq!(
        sets(&[&["exec", "c"], &status[..]].concat()),
        (kill, 0, kill)
    );
    let more = [&["exec", "--cap", "CAP_CHOWN", "c"], &status[..]].concat();
    assert_eq!(sets(&more), (kill, 0, kill | 1));
    runtime.ok(&["delete", "--force", "c"]);
}

#[test]
fn exec_cpu_affinity_is_for_those_that_join_alone() {
    let runtime = Runtime::ours();
    let script = "grep Cpus_allowed_list /proc/self/status; sleep 1000";
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    let all = std::thread::available_parallelism().expect("count").get();
    bundle.set(
        "/process/execCPUAffinity",
        json!({ "initial": "0", "final": "0" }),
    );
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let out = runtime.ok(&[
        "exec",
        "c",
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    ]);
    assert_eq!(out.split_whitespace().nth(1), Some("0"), "{out}");
    if all > 1 {
        let first = runtime.ok(&["exec", "c", "grep", "Cpus_allowed_list", "/proc/1/status"]);
        assert_ne!(first.split_whitespace().nth(1), Some("0"), "{first}");
    }
    runtime.ok(&["delete", "--force", "c"]);
}

#[test]
fn preserve_fds_passes_those_and_no_more() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sh", "-c", "cat <&3; ls /proc/self/fd"]);
    let command = runtime.command(&["run", "-b", bundle.path(), "--preserve-fds", "2", "c"]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().expect("text"))
        .collect();
    let given = bundle.dir.path().join("given");
    std::fs::write(&given, "given\n").expect("write");
    let script = format!(
        "exec 3<{} 4</dev/null 5</dev/null; exec {}",
        given.display(),
        words.join(" ")
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("run bash");
    let out = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<&str> = out.lines().skip(1).collect();
    assert_eq!(out.lines().next(), Some("given"), "{out}");
    // ls itself has one open, on the folder.
    assert!(numbers.contains(&"4") && numbers.len() == 6, "{out}");
    let text = runtime.fails(&["run", "-b", bundle.path(), "--preserve-fds", "9", "d"]);
    assert!(text.contains("is not open"), "{text}");
}

#[test]
fn exec_user_without_group_keeps_those_of_the_bundle_as_runc_does() {
    for runtime in Runtime::both() {
        let mut bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
        bundle.set(
            "/process/user",
            json!({ "uid": 0, "gid": 5, "additionalGids": [7], "umask": 63 }),
        );
        runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
        let ids = |args: &[&str]| {
            let out = runtime.ok(args);
            let mut lines: Vec<String> = Vec::new();
            for line in out.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                lines.push(words.join(" "));
            }
            lines.join(", ")
        };
        let status = ["grep", "-E", "^(Umask|Uid|Gid|Groups)", "/proc/self/status"];
        // runc forgets the mask in an exec.
        let umask = if runtime.is_ours() { "0077" } else { "0022" };
        assert_eq!(
            ids(&[&["exec", "-u", "9", "c"], &status[..]].concat()),
            format!("Umask: {umask}, Uid: 9 9 9 9, Gid: 5 5 5 5, Groups: 7")
        );
        assert_eq!(
            ids(&[&["exec", "-u", "9:8", "-g", "6", "c"], &status[..]].concat()),
            format!("Umask: {umask}, Uid: 9 9 9 9, Gid: 8 8 8 8, Groups: 6 7")
        );
        runtime.ok(&["delete", "--force", "c"]);
    }
}

/// A newer engine may name what nobody here knows: as runc, it is told and left out.
#[test]
fn process_capabilities_unknown_are_warned_of_and_left_out() {
    for runtime in Runtime::both() {
        let mut bundle = Bundle::new(&runtime, "c", &["grep", "Cap", "/proc/self/status"]);
        let sets = json!(["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
        for name in ["bounding", "effective", "permitted"] {
            bundle.set(&format!("/process/capabilities/{name}"), sets.clone());
        }
        let output = runtime.run(&["run", "-b", bundle.path(), "c"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("level=warning") && said.contains("CAP_FROM_THE_FUTURE"),
            "{said}"
        );
        let seen = String::from_utf8_lossy(&output.stdout);
        assert!(seen.contains("CapBnd:\t0000000000000020"), "{seen}");
    }
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let file = bundle.dir.path().join("process.json");
    let process = json!({
        "user": { "uid": 0, "gid": 0 }, "args": ["grep", "CapBnd", "/proc/self/status"],
        "env": ["PATH=/bin"], "cwd": "/",
        "capabilities": { "bounding": ["CAP_CHOWN", "CAP_FROM_THE_FUTURE"] },
    });
    std::fs::write(&file, process.to_string()).expect("write");
    let file = file.to_str().expect("text");
    for args in [
        &["exec", "-p", file, "c"][..],
        &[
            "exec",
            "--cap",
            "CAP_FROM_THE_FUTURE",
            "c",
            "grep",
            "CapBnd",
            "/proc/self/status",
        ],
    ] {
        let output = runtime.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("CAP_FROM_THE_FUTURE"), "{said}");
        assert!(!output.stdout.is_empty());
    }
}

/// As runc's own template has it: nothing is said of what every bundle has.
#[test]
fn process_capabilities_ambient_without_inheritable_are_no_warning() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    bundle.set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    let output = runtime.run(&["run", "-b", bundle.path(), "c"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let output = runtime.run(&["--debug", "run", "-b", bundle.path(), "c"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("level=debug") && said.contains("ambient"),
        "{said}"
    );
}
