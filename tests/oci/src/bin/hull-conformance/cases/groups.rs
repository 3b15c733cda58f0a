//! `linux.resources`: every limit as the kernel shows it, on whichever version of control groups.

use std::fs;

use hull_oci_tests::{Runtime, host};
use serde_json::{Value, json};

use super::Case;

const RESOURCES: &str = "/linux/resources";

/// A limit, where it shows on v1 and on v2, and as what.
struct Limit {
    name: &'static str,
    resources: fn() -> Value,
    v1: (&'static [&'static str], &'static str),
    v2: (&'static [&'static str], &'static str),
}

const LIMITS: [Limit; 9] = [
    Limit {
        name: "linux.resources.memory.swap",
        resources: || json!({"memory": {"limit": 67_108_864, "swap": 100_663_296}}),
        v1: (&["memory.memsw.limit_in_bytes"], "100663296"),
        v2: (&["memory.swap.max"], "33554432"),
    },
    Limit {
        name: "linux.resources.memory.none",
        resources: || json!({"memory": {"limit": -1}}),
        v1: (&["memory.limit_in_bytes"], "9223372036854771712"),
        v2: (&["memory.max"], "max"),
    },
    Limit {
        name: "linux.resources.pids.none",
        resources: || json!({"pids": {"limit": -1}}),
        v1: (&["pids.max"], "max"),
        v2: (&["pids.max"], "max"),
    },
    Limit {
        name: "linux.resources.cpu.period",
        resources: || json!({"cpu": {"quota": 20_000, "period": 50_000}}),
        v1: (&["cpu.cfs_period_us"], "50000"),
        v2: (&["cpu.max"], "20000 50000"),
    },
    Limit {
        name: "linux.resources.cpu.burst",
        resources: || json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 7000}}),
        v1: (&["cpu.cfs_burst_us"], "7000"),
        v2: (&["cpu.max.burst"], "7000"),
    },
    Limit {
        name: "linux.resources.cpu.idle",
        resources: || json!({"cpu": {"idle": 1}}),
        v1: (&["cpu.idle"], "1"),
        v2: (&["cpu.idle"], "1"),
    },
    Limit {
        name: "linux.resources.blockIO.weight",
        resources: || json!({"blockIO": {"weight": 300}}),
        v1: (&["blkio.bfq.weight", "blkio.weight"], "300"),
        v2: (&["io.bfq.weight", "io.weight"], "default 300"),
    },
    Limit {
        name: "linux.resources.hugepageLimits",
        resources: || json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        v1: (
            &["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"],
            "4194304",
        ),
        v2: (&["hugetlb.2MB.max"], "4194304"),
    },
    Limit {
        name: "linux.resources.hugepageLimits.reserved",
        resources: || json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
        v1: (
            &["hugetlb.2MB.rsvd.limit_in_bytes", "hugetlb.2MB.rsvd.max"],
            "4194304",
        ),
        v2: (&["hugetlb.2MB.rsvd.max"], "4194304"),
    },
];

pub(crate) fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = LIMITS
        .into_iter()
        .map(|limit| {
            Case::new(limit.name, move |runtime| {
                let (names, wanted) = if host::is_pure_v2() {
                    limit.v2
                } else {
                    limit.v1
                };
                let _bundle = runtime.sleeping(&[(RESOURCES, (limit.resources)())]);
                assert_eq!(runtime.limit(names), wanted);
            })
        })
        .collect();
    for (name, field, v1, v2) in [
        (
            "linux.resources.blockIO.throttleReadBpsDevice",
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps=1048576",
        ),
        (
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps=1048576",
        ),
        (
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops=1048576",
        ),
        (
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops=1048576",
        ),
    ] {
        all.push(Case::new(name, move |runtime| {
            let Some((major, minor)) = host::disk() else {
                return;
            };
            let limit =
                json!({"blockIO": {field: [{"major": major, "minor": minor, "rate": 1_048_576}]}});
            let _bundle = runtime.sleeping(&[(RESOURCES, limit)]);
            let seen = runtime.limit(&[v1, "io.max"]);
            let wanted = if host::is_pure_v2() { v2 } else { "1048576" };
            assert!(
                seen.starts_with(&format!("{major}:{minor} ")) && seen.contains(wanted),
                "said {seen}"
            );
        }));
    }
    all.extend([
        Case::new("linux.resources.blockIO.weightDevice", |runtime| {
            let Some((major, minor)) = host::disk() else { return };
            let limit = json!({"blockIO": {"weightDevice": [{"major": major, "minor": minor, "weight": 400}]}});
            let bundle = runtime.bundle("c", &[(RESOURCES, limit)], "exec sleep 1000");
            let said = runtime.run(&["run", "-d", "-b", bundle.path(), "c"]);
            let seen = runtime.try_limit(&["blkio.bfq.weight_device", "blkio.weight_device", "io.bfq.weight"]);
            let set = seen.is_some_and(|text| text.contains(&format!("{major}:{minor} 400")));
            // A disk whose scheduler has no weights refuses them.
            assert!(
                set || said.code > 0 && said.err.contains("eight"),
                "ended with {}: {}",
                said.code,
                said.err
            );
        }),
        Case::new("linux.resources.rdma", |runtime| {
            // No such device here: a limit on it cannot be kept, which must be said.
            let limit = json!({"rdma": {"none0": {"hcaHandles": 3, "hcaObjects": 10_000}}});
            let bundle = runtime.bundle("c", &[(RESOURCES, limit)], "true");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert!(said.err.contains("rdma"), "{}", said.err);
            runtime.nothing_left();
        }),
        Case::new("linux.resources.unified", |runtime| {
            let limit = json!({"unified": {"memory.high": "50331648", "pids.max": "19"}});
            if host::is_pure_v2() {
                let _bundle = runtime.sleeping(&[(RESOURCES, limit)]);
                assert_eq!(runtime.limit(&["memory.high"]), "50331648");
                assert_eq!(runtime.limit(&["pids.max"]), "19");
            } else {
                let bundle = runtime.bundle("c", &[(RESOURCES, limit)], "true");
                let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
                assert!(said.code > 0, "was not refused, ended with {}", said.code);
                assert!(said.err.contains("unified") || said.err.contains("v1"), "{}", said.err);
                runtime.nothing_left();
            }
        }),
        Case::new("refused.unified-path", |runtime| {
            let limit = json!({"unified": {"../memory.max": "1"}});
            let bundle = runtime.bundle("c", &[(RESOURCES, limit)], "true");
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            runtime.nothing_left();
        }),
        Case::new("linux.resources.pids.holds", |runtime| {
            let limit = json!({"pids": {"limit": 5}});
            let script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; true";
            let bundle = runtime.bundle("c", &[(RESOURCES, limit)], script);
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert!(said.err.contains("fork"), "said {}", said.err);
        }),
        Case::new("linux.resources.memory.holds", |runtime| {
            let limit = json!({"memory": {"limit": 16_777_216, "swap": 16_777_216}});
            let script = "dd if=/dev/zero of=/dev/null bs=100M count=1";
            let bundle = runtime.bundle("c", &[(RESOURCES, limit)], &format!("exec {script}"));
            let said = runtime.run(&["run", "-b", bundle.path(), "c"]);
            assert_eq!(said.code, 137, "{}", said.err);
        }),
        Case::new("linux.resources.devices.allow", |runtime| {
            let Some((major, minor)) = host::readable_disk() else {
                return;
            };
            let rules = json!({"devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "b", "major": major, "minor": minor, "access": "r"}]});
            let device = json!([{"path": "/dev/own", "type": "b", "major": major, "minor": minor}]);
            let said = runtime.script(
                &[(RESOURCES, rules), ("/linux/devices", device)],
                "(: </dev/own) && echo read; (: >>/dev/own) 2>/dev/null || echo no write",
            );
            assert_eq!(said, "read\nno write\n");
        }),
        Case::new("linux.cgroupsPath.none", |runtime| {
            let mut bundle = runtime.bundle("c", &[], "cat /proc/self/cgroup");
            let id = format!("own-{}", std::process::id());
            let linux = bundle.config["linux"].as_object_mut().expect("an object");
            linux.remove("cgroupsPath");
            bundle.write();
            let said = runtime.ok(&["run", "-b", bundle.path(), &id]);
            assert!(said.contains(&id), "said {said}");
        }),
        Case::new("linux.cgroupsPath.shown", |runtime| {
            let bundle = runtime.bundle("c", &[], "cat /proc/self/cgroup");
            let said = runtime.ok(&["run", "-b", bundle.path(), "c"]);
            let path = runtime.cgroup("c");
            let wanted = match path.split(':').collect::<Vec<_>>()[..] {
                [slice, prefix, name] => format!("/{slice}/{prefix}-{name}.scope"),
                _ => path,
            };
            assert!(said.contains(&wanted), "said {said}");
        }),
        Case::new("mounts.cgroup.namespaced", |runtime| {
            let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]});
            let limit = json!({"pids": {"limit": 77}});
            let said = runtime.script(
                &[("/mounts/-", mount), ("/linux/namespaces/-", json!({"type": "cgroup"})), (RESOURCES, limit)],
                "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; true",
            );
            assert_eq!(said.trim(), "77");
        }),
    ]);
    all.extend(updates());
    all
}

fn updates() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, args, v1, v2) in [
        (
            "update.cpu-quota",
            &["--cpu-period", "60000", "--cpu-quota", "30000"][..],
            ("cpu.cfs_quota_us", "30000"),
            ("cpu.max", "30000 60000"),
        ),
        (
            "update.cpu-share",
            &["--cpu-share", "2048"][..],
            ("cpu.shares", "2048"),
            ("cpu.weight", "79"),
        ),
        (
            "update.cpuset-cpus",
            &["--cpuset-cpus", "0"][..],
            ("cpuset.cpus", "0"),
            ("cpuset.cpus", "0"),
        ),
        (
            "update.cpuset-mems",
            &["--cpuset-mems", "0"][..],
            ("cpuset.mems", "0"),
            ("cpuset.mems", "0"),
        ),
        (
            "update.memory-reservation",
            &["--memory-reservation", "16777216"][..],
            ("memory.soft_limit_in_bytes", "16777216"),
            ("memory.low", "16777216"),
        ),
        (
            "update.memory-suffix",
            &["--memory", "64M"][..],
            ("memory.limit_in_bytes", "67108864"),
            ("memory.max", "67108864"),
        ),
        (
            "update.memory-swap",
            &["--memory", "33554432", "--memory-swap", "67108864"][..],
            ("memory.memsw.limit_in_bytes", "67108864"),
            ("memory.swap.max", "33554432"),
        ),
        (
            "update.pids-none",
            &["--pids-limit", "-1"][..],
            ("pids.max", "max"),
            ("pids.max", "max"),
        ),
        (
            "update.blkio-weight",
            &["--blkio-weight", "400"][..],
            ("blkio.bfq.weight", "400"),
            ("io.bfq.weight", "default 400"),
        ),
        (
            "update.cpu-idle",
            &["--cpu-idle", "1"][..],
            ("cpu.idle", "1"),
            ("cpu.idle", "1"),
        ),
        (
            "update.cpu-burst",
            &[
                "--cpu-period",
                "100000",
                "--cpu-quota",
                "50000",
                "--cpu-burst",
                "9000",
            ][..],
            ("cpu.cfs_burst_us", "9000"),
            ("cpu.max.burst", "9000"),
        ),
    ] {
        all.push(Case::new(name, move |runtime: &Runtime| {
            let (file, wanted) = if host::is_pure_v2() { v2 } else { v1 };
            let _bundle = runtime.sleeping(&[(
                RESOURCES,
                json!({"memory": {"limit": 50_331_648}, "pids": {"limit": 9}}),
            )]);
            let mut line = vec!["update"];
            line.extend(args);
            line.push("c");
            runtime.ok(&line);
            assert_eq!(runtime.limit(&[file]), wanted);
        }));
    }
    all.extend([
        Case::new("update.stdin", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            let file = runtime.dir().join("r.json");
            fs::write(
                &file,
                json!({"pids": {"limit": 23}, "cpu": {"shares": 512}}).to_string(),
            )
            .expect("write");
            let mut command = runtime.command(&["update", "-r", "-", "c"]);
            let said = hull_oci_tests::said(command.stdin(fs::File::open(file).expect("file")));
            assert_eq!(said.code, 0, "{}", said.err);
            assert_eq!(runtime.limit(&["pids.max"]), "23");
        }),
        Case::new("update.checkBeforeUpdate", |runtime| {
            let _bundle =
                runtime.sleeping(&[(RESOURCES, json!({"memory": {"limit": 67_108_864}}))]);
            let file = runtime.dir().join("r.json");
            let wish = json!({"memory": {"limit": 8192, "checkBeforeUpdate": true}});
            fs::write(&file, wish.to_string()).expect("write");
            let said = runtime.run(&["update", "-r", file.to_str().expect("text"), "c"]);
            assert!(said.code > 0, "was not refused, ended with {}", said.code);
            assert_eq!(runtime.state("c")["status"], "running");
            assert_eq!(
                runtime.limit(&["memory.limit_in_bytes", "memory.max"]),
                "67108864"
            );
        }),
        Case::new("update.missing", |runtime| {
            let text = runtime.fails(&["update", "--pids-limit", "3", "nobody"]);
            assert!(text.contains("exist"), "{text}");
        }),
        Case::new("update.nonsense", |runtime| {
            let _bundle = runtime.sleeping(&[]);
            runtime.fails(&["update", "--memory", "much", "c"]);
            runtime.fails(&["update", "-r", "/no/such/file", "c"]);
        }),
    ]);
    all
}
