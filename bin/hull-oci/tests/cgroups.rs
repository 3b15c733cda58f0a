//! Limits from outside and inside: at create, changed by update, told by events. What runc can do
//! on the host is asked of both.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Bundle, Runtime};

/// A file of the container's group, in whichever hierarchy has it.
fn find(runtime: &Runtime, id: &str, name: &str) -> Option<PathBuf> {
    let dirs = runtime.cgroup_dirs();
    let mut files = dirs.iter().map(|dir| dir.join(id).join(name));
    files.find(|file| file.exists())
}

/// Its text: by the v1 name, or the v2 name where the host has that.
#[track_caller]
fn read(runtime: &Runtime, id: &str, names: [&str; 2]) -> String {
    let file = names.iter().find_map(|name| find(runtime, id, name));
    let file = file.unwrap_or_else(|| panic!("{names:?} is not there"));
    fs::read_to_string(file).expect("limit").trim().to_owned()
}

fn is_v1(runtime: &Runtime, id: &str) -> bool {
    find(runtime, id, "memory.limit_in_bytes").is_some()
}

/// A container that sleeps, with these resources.
#[track_caller]
fn sleeping(runtime: &Runtime, resources: &[(&str, Value)]) -> Bundle {
    let mut bundle = Bundle::new(runtime, "c", &["sleep", "1000"]);
    for (name, value) in resources {
        bundle.set(&format!("/linux/resources/{name}"), value.clone());
    }
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    bundle
}

#[test]
fn create_limits_are_those_of_the_bundle() {
    for runtime in Runtime::both() {
        let _bundle = sleeping(
            &runtime,
            &[
                (
                    "memory",
                    json!({ "limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20 }),
                ),
                (
                    "cpu",
                    json!({ "shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0" }),
                ),
                ("pids", json!({ "limit": 33 })),
            ],
        );
        let read = |names| read(&runtime, "c", names);
        assert_eq!(read(["memory.limit_in_bytes", "memory.max"]), "67108864");
        assert_eq!(
            read(["memory.soft_limit_in_bytes", "memory.low"]),
            "33554432"
        );
        assert_eq!(read(["pids.max", "pids.max"]), "33");
        assert_eq!(read(["cpuset.cpus", "cpuset.cpus"]), "0");
        if is_v1(&runtime, "c") {
            assert_eq!(read(["memory.memsw.limit_in_bytes", ""]), "100663296");
            assert_eq!(read(["cpu.shares", ""]), "512");
            assert_eq!(read(["cpu.cfs_quota_us", ""]), "50000");
            assert_eq!(read(["cpu.cfs_period_us", ""]), "200000");
        } else {
            assert_eq!(read(["", "cpu.weight"]), "20");
            assert_eq!(read(["", "cpu.max"]), "50000 200000");
        }
    }
}

#[test]
fn create_burst_idle_and_huge_pages_are_set() {
    let runtime = Runtime::ours();
    let _bundle = sleeping(
        &runtime,
        &[
            ("cpu", json!({ "quota": 50_000, "burst": 7000, "idle": 1 })),
            (
                "hugepageLimits",
                json!([{ "pageSize": "2MB", "limit": 4_194_304 }]),
            ),
        ],
    );
    let read = |names| read(&runtime, "c", names);
    assert_eq!(read(["cpu.cfs_burst_us", "cpu.max.burst"]), "7000");
    assert_eq!(read(["cpu.idle", "cpu.idle"]), "1");
    let pages = ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"];
    assert_eq!(read(pages), "4194304");
    let reserved = ["hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"];
    assert_eq!(read(reserved), "4194304");
}

#[test]
fn create_rules_of_devices_hold_in_their_order() {
    let runtime = Runtime::ours();
    let script = "cat /dev/zero | true; echo zero $?; \
                  (echo x >/dev/full) 2>/dev/null; (: </dev/kmsg) 2>/dev/null && echo kmsg; \
                  (: </dev/fuse) 2>/dev/null && echo fuse; echo end";
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    bundle.set(
        "/linux/devices",
        json!([
            { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 },
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 },
        ]),
    );
    bundle.set(
        "/linux/resources/devices/-",
        json!({ "allow": true, "type": "c", "major": 10, "access": "rw" }),
    );
    let text = runtime.ok(&["run", "-b", bundle.path(), "c"]);
    // fuse needs its driver to be opened, kmsg is refused by the rules.
    assert!(
        text.contains("zero 0\n") && !text.contains("kmsg"),
        "{text}"
    );
    assert!(text.ends_with("end\n"), "{text}");
}

#[test]
fn create_rule_that_the_host_cannot_keep_is_refused() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", ": </dev/zero"]);
    for rule in [
        json!({ "allow": true, "type": "c", "major": 1, "access": "rw" }),
        json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "r" }),
    ] {
        bundle.set("/linux/resources/devices/-", rule);
    }
    if PathBuf::from("/sys/fs/cgroup/devices").is_dir() {
        let text = runtime.fails(&["run", "-b", bundle.path(), "c"]);
        assert!(text.contains("linux.resources.devices"), "{text}");
    } else {
        runtime.ok(&["run", "-b", bundle.path(), "c"]);
    }
}

#[test]
fn create_without_rules_refuses_devices_that_are_not_usual() {
    for runtime in Runtime::both() {
        let script = "(: </dev/kmsg) 2>/dev/null && echo kmsg; (: </dev/zero) && echo zero";
        let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
        bundle.set("/linux/resources", json!({}));
        bundle.set(
            "/linux/devices",
            json!([{ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 }]),
        );
        let text = runtime.ok(&["run", "-b", bundle.path(), "c"]);
        assert_eq!(text, "zero\n");
    }
}

#[test]
fn create_limit_of_512_kib_is_enough_to_start() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    bundle.set("/linux/resources/memory", json!({ "limit": 512 << 10 }));
    // The program's own pages are charged to whoever reads them first.
    fs::read(bundle.root().join("bin/busybox")).expect("read");
    assert_eq!(runtime.code(&["run", "-b", bundle.path(), "c"]), Some(0));
}

#[test]
fn create_refused_limit_names_its_field_and_leaves_nothing() {
    for (name, value, field) in [
        (
            "memory",
            json!({ "limit": 8 << 20, "swap": 4 << 20 }),
            "memory.swap",
        ),
        ("cpu", json!({ "quota": 10 }), "cpu.quota"),
        ("cpu", json!({ "shares": 1 << 20 }), "cpu.shares"),
        ("cpu", json!({ "cpus": "4000" }), "cpu.cpus"),
        (
            "hugepageLimits",
            json!([{ "pageSize": "3MB", "limit": 0 }]),
            "hugepageLimits",
        ),
        ("rdma", json!({ "mlx5_9": { "hcaHandles": 1 } }), "rdma"),
        (
            "blockIO",
            json!({ "throttleReadBpsDevice": [{ "major": 999, "minor": 9, "rate": 1 }] }),
            "blockIO.throttle",
        ),
        ("unified", json!({ "a/b": "1" }), "unified"),
        ("unified", json!({ "nocontroller.max": "1" }), "unified"),
    ] {
        let runtime = Runtime::ours();
        let mut bundle = Bundle::new(&runtime, "c", &["true"]);
        bundle.set(&format!("/linux/resources/{name}"), value);
        // Weights of v2 have no bound to break.
        if field == "cpu.shares" && !PathBuf::from("/sys/fs/cgroup/cpu").is_dir() {
            continue;
        }
        let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
        assert!(text.contains(&format!("linux.resources.{field}")), "{text}");
        assert!(runtime.cgroup_dirs().is_empty(), "{field}: a group is left");
    }
}

#[test]
fn update_flags_up_and_down() {
    for runtime in Runtime::both() {
        let _bundle = sleeping(
            &runtime,
            &[("memory", json!({ "limit": 64 << 20, "swap": 64 << 20 }))],
        );
        let memory = ["memory.limit_in_bytes", "memory.max"];
        for (memory_flag, swap_flag, bytes) in [
            ("256M", "512M", 256 << 20),
            ("32M", "40M", 32 << 20),
            ("1g", "-1", 1 << 30),
        ] {
            runtime.ok(&[
                "update",
                "--memory",
                memory_flag,
                "--memory-swap",
                swap_flag,
                "c",
            ]);
            assert_eq!(read(&runtime, "c", memory), bytes.to_string());
        }
        runtime.ok(&[
            "update",
            "--pids-limit",
            "20",
            "--cpu-share",
            "256",
            "--cpu-period",
            "50000",
            "--cpu-quota",
            "25000",
            "--cpuset-cpus",
            "0",
            "c",
        ]);
        assert_eq!(read(&runtime, "c", ["pids.max", "pids.max"]), "20");
        assert!(read(&runtime, "c", ["cpu.cfs_quota_us", "cpu.max"]).starts_with("25000"));
        assert_eq!(read(&runtime, "c", ["cpuset.cpus", "cpuset.cpus"]), "0");
        let processes = find(&runtime, "c", "cpuset.cpus").expect("cpuset");
        let processes = fs::read_to_string(processes.with_file_name("cgroup.procs"));
        assert_eq!(processes.expect("processes").lines().count(), 1);
        runtime.ok(&["update", "--pids-limit", "-1", "c"]);
        assert_eq!(read(&runtime, "c", ["pids.max", "pids.max"]), "max");
    }
}

#[test]
fn update_file_and_standard_input() {
    let runtime = Runtime::ours();
    let bundle = sleeping(&runtime, &[]);
    let file = bundle.dir.path().join("limits.json");
    fs::write(&file, r#"{"memory":{"limit":33554432},"pids":{"limit":9}}"#).expect("file");
    runtime.ok(&["update", "--resources", file.to_str().expect("text"), "c"]);
    assert_eq!(
        read(&runtime, "c", ["memory.limit_in_bytes", "memory.max"]),
        "33554432"
    );
    let mut child = runtime
        .command(&["update", "-r", "-", "c"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut input = child.stdin.take().expect("input");
    std::io::Write::write_all(&mut input, br#"{"pids":{"limit":11}}"#).expect("write");
    drop(input);
    assert!(child.wait().expect("wait").success());
    assert_eq!(read(&runtime, "c", ["pids.max", "pids.max"]), "11");
}

#[test]
fn update_nonsense_is_refused() {
    let runtime = Runtime::ours();
    let _bundle = sleeping(&runtime, &[]);
    for (args, part) in [
        (["--memory", "x"], "--memory"),
        (["--cpu-quota", "x"], "--cpu-quota"),
        (["--cpu-period", "1.5"], "--cpu-period"),
        (["--l3-cache-schema", "L3:0=f"], "Intel RDT/CAT"),
        (["--mem-bw-schema", "MB:0=70"], "Intel RDT/MBA"),
        (["--blkio-weight", "5"], "blockIO.weight"),
        (["--memory-swap", "4"], "memory.swap"),
    ] {
        let text = runtime.fails(&["update", args[0], args[1], "c"]);
        assert!(text.contains(part), "{text}");
    }
    runtime.ok(&["kill", "c", "KILL"]);
    runtime.wait_for("c", "stopped");
    let text = runtime.fails(&["update", "--pids-limit", "5", "c"]);
    assert!(text.contains("not running"), "{text}");
}

#[test]
fn events_stats_have_the_shape_of_runc() {
    let mut shapes = Vec::new();
    for runtime in Runtime::both() {
        let _bundle = sleeping(
            &runtime,
            &[
                ("memory", json!({ "limit": 64 << 20 })),
                ("pids", json!({ "limit": 9 })),
                ("cpu", json!({ "cpus": "0" })),
            ],
        );
        let text = runtime.ok(&["events", "--stats", "c"]);
        let event: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (&event["type"], &event["id"]),
            (&json!("stats"), &json!("c"))
        );
        let data = &event["data"];
        assert_eq!(data["memory"]["usage"]["limit"], json!(64 << 20));
        assert_eq!(data["pids"], json!({ "current": 1, "limit": 9 }));
        assert_eq!(data["cpuset"]["cpus"], json!([0]));
        assert!(data["memory"]["usage"]["usage"].as_u64() > Some(0));
        assert!(data["cpu"]["usage"]["total"].as_u64() > Some(0));
        let mut shape = Vec::new();
        keys(data, String::new(), &mut shape);
        // What is zero is left out, and may be zero in one of the two.
        let sometimes = ["/blkio/", "/throttling/", "/cache", "/usage/percpu"];
        shape.retain(|key| !sometimes.iter().any(|part| key.contains(part)));
        shapes.push(shape);
    }
    assert_eq!(shapes[0], shapes[1]);
}

fn keys(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                keys(value, format!("{path}/{key}"), found);
            }
        }
        _ => found.push(path),
    }
}

#[test]
fn events_follow_until_the_end_and_tell_of_memory_that_ran_out() {
    let runtime = Runtime::ours();
    let script = "read x < /tmp/go; x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done";
    let mut bundle = Bundle::new(&runtime, "c", &["sh", "-c", script]);
    bundle.set(
        "/linux/resources/memory",
        json!({ "limit": 16 << 20, "swap": 16 << 20 }),
    );
    let fifo = bundle.root().join("tmp/go");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo").success());
    runtime.ok(&["run", "-d", "-b", bundle.path(), "c"]);
    let mut child = runtime
        .command(&["events", "--interval", "50ms", "c"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("events");
    let mut lines = BufReader::new(child.stdout.take().expect("output")).lines();
    let first: Value =
        serde_json::from_str(&lines.next().expect("line").expect("text")).expect("JSON");
    assert_eq!(first["type"], "stats");
    fs::write(&fifo, "x\n").expect("go");
    let rest: Vec<Value> = lines
        .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
        .collect();
    let ooms = rest.iter().filter(|event| event["type"] == "oom").count();
    assert!(ooms >= 1, "{rest:?}");
    assert_eq!(
        rest.iter().find(|e| e["type"] == "oom"),
        Some(&json!({ "type": "oom", "id": "c" }))
    );
    assert!(child.wait().expect("wait").success());
    let text = runtime.fails(&["events", "--stats", "c"]);
    assert!(text.contains("not running"), "{text}");
    assert!(
        runtime
            .fails(&["events", "--interval", "0s", "c"])
            .contains("--interval")
    );
}

#[test]
fn delete_force_after_a_killed_create_is_quick() {
    let runtime = Runtime::ours();
    let bundle = Bundle::new(&runtime, "c", &["sleep", "1000"]);
    for round in 0..20u64 {
        let mut child = runtime
            .command(&["create", "-b", bundle.path(), "c"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("create");
        std::thread::sleep(std::time::Duration::from_micros(round * 400));
        let _ = child.kill();
        let _ = child.wait();
        let start = std::time::Instant::now();
        runtime.ok(&["delete", "--force", "c"]);
        assert!(start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
        let left: Vec<_> = runtime
            .cgroup_dirs()
            .into_iter()
            .filter(|dir| dir.join("c").is_dir())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn systemd_notation_needs_systemd_and_says_so() {
    let runtime = Runtime::ours();
    let mut bundle = Bundle::new(&runtime, "c", &["true"]);
    bundle.set("/linux/cgroupsPath", json!("machine.slice:hull:c"));
    let text = runtime.fails(&["create", "-b", bundle.path(), "c"]);
    assert!(text.contains("--systemd-cgroup"), "{text}");
    let mut command = runtime.command(&["create", "-b", bundle.path(), "c"]);
    // The global option comes first.
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    command = std::process::Command::new(command.get_program());
    command.arg("--systemd-cgroup").args(args);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/does/not/exist");
    let output = command.output().expect("run");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !PathBuf::from("/run/systemd/private").exists() {
        assert!(
            !output.status.success() && text.contains("systemd"),
            "{text}"
        );
    }
    assert!(runtime.ok(&["list", "-q"]).is_empty());
}
