//! Fields of config.json, looked at from inside.

use std::fs;

use serde_json::json;

use super::Case;

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::says("process.args", vec![], "echo $0 works", "sh works"),
        Case::says(
            "process.env",
            vec![("/process/env/-", json!("X=a=b c"))],
            "echo $GREETING $X",
            "hello a=b c",
        ),
        Case::says(
            "process.cwd",
            vec![("/process/cwd", json!("/data"))],
            "pwd",
            "/data",
        ),
        Case::says(
            "process.user.uid-gid",
            vec![("/process/user", json!({"uid": 33, "gid": 34}))],
            "id -u; id -g",
            "33\n34",
        ),
        Case::says(
            "process.user.additionalGids",
            vec![(
                "/process/user",
                json!({"uid": 33, "gid": 34, "additionalGids": [35, 36]}),
            )],
            "grep Groups: /proc/self/status",
            "~35 36",
        ),
        Case::says(
            "process.user.umask",
            vec![("/process/user/umask", json!(0o027))],
            "umask",
            "0027",
        ),
        Case::says(
            "process.noNewPrivileges.true",
            vec![],
            "grep NoNewPrivs /proc/self/status",
            "~\t1",
        ),
        Case::says(
            "process.noNewPrivileges.false",
            vec![("/process/noNewPrivileges", json!(false))],
            "grep NoNewPrivs /proc/self/status",
            "~\t0",
        ),
        Case::says(
            "process.capabilities.bounding",
            vec![],
            "grep CapBnd /proc/self/status",
            "~00000000000000e3",
        ),
        Case::says(
            "process.capabilities.unknown",
            vec![("/process/capabilities/bounding/-", json!("CAP_NONSENSE"))],
            "grep CapBnd /proc/self/status",
            "~00000000000000e3",
        ),
        Case::says(
            "process.capabilities.effective",
            vec![],
            "grep CapEff /proc/self/status",
            "~00000000000000e3",
        ),
        Case::says(
            "process.capabilities.none",
            vec![("/process/capabilities", json!({}))],
            "grep CapEff /proc/self/status",
            "~0000000000000000",
        ),
        Case::says(
            "process.capabilities.ambient",
            vec![
                ("/process/user", json!({"uid": 33, "gid": 33})),
                ("/process/capabilities/inheritable", json!(["CAP_KILL"])),
                ("/process/capabilities/ambient", json!(["CAP_KILL"])),
            ],
            "grep -E 'CapEff|CapAmb' /proc/self/status",
            "CapEff:\t0000000000000020\nCapAmb:\t0000000000000020",
        ),
        Case::says(
            "process.rlimits.nofile",
            vec![(
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}]),
            )],
            "ulimit -Sn; ulimit -Hn",
            "77\n99",
        ),
        Case::says(
            "process.rlimits.core",
            vec![(
                "/process/rlimits",
                json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
            )],
            "ulimit -c",
            "0",
        ),
        Case::says(
            "process.oomScoreAdj",
            vec![("/process/oomScoreAdj", json!(500))],
            "cat /proc/self/oom_score_adj",
            "500",
        ),
        Case::says(
            "process.scheduler",
            vec![(
                "/process/scheduler",
                json!({"policy": "SCHED_BATCH", "nice": 5}),
            )],
            "cut -d' ' -f19,41 /proc/self/stat",
            "5 3",
        ),
        Case::says(
            "process.ioPriority",
            vec![(
                "/process/ioPriority",
                json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
            )],
            "ionice -p $$",
            "best-effort: prio 6",
        ),
        Case::says(
            "root.readonly",
            vec![("/root/readonly", json!(true))],
            "touch /x 2>&1; true",
            "~Read-only file system",
        ),
        Case::says("hostname", vec![], "hostname", "inside"),
        Case::says(
            "domainname",
            vec![("/domainname", json!("nis.example"))],
            "cat /proc/sys/kernel/domainname",
            "nis.example",
        ),
        Case::says(
            "mounts.tmpfs.size",
            vec![(
                "/mounts/-",
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=64k", "mode=700"]}),
            )],
            "grep ' /x ' /proc/self/mountinfo",
            "~size=64k,mode=700",
        ),
        Case::says(
            "mounts.tmpfs.noexec",
            vec![(
                "/mounts/-",
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["nosuid", "nodev", "noexec"]}),
            )],
            "grep ' /x ' /proc/self/mountinfo",
            "~rw,nosuid,nodev,noexec",
        ),
        Case::says(
            "mounts.tmpfs.tmpcopyup",
            vec![(
                "/mounts/-",
                json!({"destination": "/bin", "type": "tmpfs", "source": "x", "options": ["tmpcopyup"]}),
            )],
            "ls -l /bin/sh | cut -c1; touch /bin/x && echo made",
            "l\nmade",
        ),
        Case::says(
            "mounts.mqueue",
            vec![(
                "/mounts/-",
                json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]}),
            )],
            "grep mqueue /proc/mounts",
            "~/dev/mqueue mqueue rw,nosuid",
        ),
        Case::says(
            "mounts.cgroup",
            vec![(
                "/mounts/-",
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}),
            )],
            "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>&1 | grep Read-only",
            "~Read-only",
        ),
        Case::says(
            "mounts.propagation",
            vec![(
                "/mounts/-",
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["shared"]}),
            )],
            "grep ' /x ' /proc/self/mountinfo",
            "~shared:",
        ),
        Case::says(
            "mounts.target-made",
            vec![(
                "/mounts/-",
                json!({"destination": "/a/b/c", "type": "tmpfs", "source": "x"}),
            )],
            "grep -c ' /a/b/c ' /proc/mounts",
            "1",
        ),
        Case::says(
            "devices.default",
            vec![],
            "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo no $d; done; for l in fd stdin ptmx; do readlink /dev/$l; done",
            "/proc/self/fd\n/proc/self/fd/0\npts/ptmx",
        ),
        Case::says(
            "devices.null",
            vec![],
            "echo x > /dev/null && stat -c %t:%T:%a /dev/null",
            "1:3:666",
        ),
        Case::says(
            "linux.devices.char",
            vec![(
                "/linux/devices",
                json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}]),
            )],
            "stat -c %t:%T:%a:%u:%g /dev/own",
            "1:5:640:3:4",
        ),
        Case::says(
            "linux.devices.block",
            vec![(
                "/linux/devices",
                json!([{"path": "/dev/own", "type": "b", "major": 7, "minor": 99}]),
            )],
            "stat -c %F:%t:%T /dev/own",
            "block special file:7:63",
        ),
        Case::says(
            "linux.devices.fifo",
            vec![(
                "/linux/devices",
                json!([{"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]),
            )],
            "stat -c %F /dev/pipe",
            "fifo",
        ),
        Case::says(
            "linux.maskedPaths.file",
            vec![("/linux/maskedPaths", json!(["/proc/version", "/not/there"]))],
            "cat /proc/version | wc -c",
            "0",
        ),
        Case::says(
            "linux.maskedPaths.folder",
            vec![("/linux/maskedPaths", json!(["/proc/fs", "/sys/kernel"]))],
            "ls /proc/fs /sys/kernel | grep -cv :",
            "1",
        ),
        Case::says(
            "linux.readonlyPaths",
            vec![("/linux/readonlyPaths", json!(["/data", "/not/there"]))],
            "touch /data/x 2>&1; true",
            "~Read-only file system",
        ),
        Case::says(
            "linux.sysctl.net",
            vec![("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))],
            "cat /proc/sys/net/ipv4/ip_forward",
            "1",
        ),
        Case::says(
            "linux.sysctl.ipc",
            vec![("/linux/sysctl", json!({"kernel.msgmax": "9000"}))],
            "cat /proc/sys/kernel/msgmax",
            "9000",
        ),
        Case::says("linux.namespaces.pid.new", vec![], "echo $$", "1"),
        Case::says(
            "linux.namespaces.network.new",
            vec![],
            "ls /sys/class/net; ip -o link | wc -l",
            "~lo",
        ),
        Case::says(
            "linux.namespaces.cgroup.new",
            vec![("/linux/namespaces/-", json!({"type": "cgroup"}))],
            "cut -d: -f3 /proc/self/cgroup | sort -u",
            "/",
        ),
        Case::says(
            "linux.namespaces.user.new",
            vec![
                ("/linux/namespaces/-", json!({"type": "user"})),
                (
                    "/linux/uidMappings",
                    json!([{"containerID": 0, "hostID": 0, "size": 10}]),
                ),
                (
                    "/linux/gidMappings",
                    json!([{"containerID": 0, "hostID": 0, "size": 20}]),
                ),
            ],
            "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '",
            " 0 0 10\n 0 0 20",
        ),
        Case::says(
            "linux.namespaces.time.offsets",
            vec![
                ("/linux/namespaces/-", json!({"type": "time"})),
                (
                    "/linux/timeOffsets",
                    json!({"boottime": {"secs": 1_000_000_000, "nanosecs": 0}}),
                ),
            ],
            "cut -c1 /proc/uptime",
            "1",
        ),
        Case::says(
            "linux.personality",
            vec![("/linux/personality", json!({"domain": "LINUX32"}))],
            "uname -m",
            "~i686",
        ),
        Case::says(
            "linux.seccomp.errno",
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]}),
            )],
            "mkdir /tmp/x 2>&1; true",
            "~Input/output error",
        ),
        Case::says(
            "linux.seccomp.args",
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95, "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]}),
            )],
            "kill -10 1 2>&1; kill -0 1 && echo other",
            "~not supported",
        ),
        Case::says(
            "linux.seccomp.unknown-names",
            vec![(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]}),
            )],
            "grep Seccomp: /proc/self/status",
            "~\t2",
        ),
        Case::says(
            "linux.rootfsPropagation",
            vec![("/linux/rootfsPropagation", json!("unbindable"))],
            "grep ' / / ' /proc/self/mountinfo || grep ' / rw' /proc/self/mountinfo",
            "~unbindable",
        ),
        Case::says(
            "linux.resources.devices.deny",
            vec![(
                "/linux/devices",
                json!([{"path": "/dev/mem", "type": "c", "major": 1, "minor": 1}]),
            )],
            "head -c1 /dev/mem 2>&1; true",
            "~not permitted",
        ),
    ];
    for (name, changes, files, value) in [
        (
            "linux.resources.memory.limit",
            json!({"memory": {"limit": 67_108_864}}),
            ["memory.limit_in_bytes", "memory.max"],
            "67108864",
        ),
        (
            "linux.resources.memory.reservation",
            json!({"memory": {"reservation": 33_554_432}}),
            ["memory.soft_limit_in_bytes", "memory.low"],
            "33554432",
        ),
        (
            "linux.resources.pids.limit",
            json!({"pids": {"limit": 20}}),
            ["pids.max", "pids.max"],
            "20",
        ),
        (
            "linux.resources.cpu.shares",
            json!({"cpu": {"shares": 512}}),
            ["cpu.shares", "cpu.weight"],
            "512",
        ),
        (
            "linux.resources.cpu.quota",
            json!({"cpu": {"quota": 50_000, "period": 100_000}}),
            ["cpu.cfs_quota_us", "cpu.max"],
            "50000",
        ),
        (
            "linux.resources.cpu.cpus",
            json!({"cpu": {"cpus": "0"}}),
            ["cpuset.cpus", "cpuset.cpus"],
            "0",
        ),
        (
            "linux.resources.cpu.mems",
            json!({"cpu": {"mems": "0"}}),
            ["cpuset.mems", "cpuset.mems"],
            "0",
        ),
    ] {
        all.push(Case::new(name, move |runtime| {
            let _bundle = runtime.sleeping(&[("/linux/resources", changes.clone())]);
            let seen = runtime.limit(&files);
            // cgroup v2 has shares as weights.
            assert!(
                seen.starts_with(value) || files[1] == "cpu.weight" && seen == "20",
                "{seen}"
            );
        }));
    }
    for kind in ["net", "ipc", "uts", "pid"] {
        let name = match kind {
            "net" => "linux.namespaces.network.path",
            "ipc" => "linux.namespaces.ipc.path",
            "uts" => "linux.namespaces.uts.path",
            _ => "linux.namespaces.pid.path",
        };
        all.push(Case::new(name, move |runtime| {
            let _first = runtime.sleeping(&[]);
            let path = format!("/proc/{}/ns/{kind}", runtime.pid("c"));
            let word = if kind == "net" { "network" } else { kind };
            let spaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"]
                .iter()
                .map(|name| {
                    if *name == word {
                        json!({"type": name, "path": path})
                    } else {
                        json!({"type": name})
                    }
                })
                .collect();
            let second = runtime.bundle(
                "d",
                &[("/linux/namespaces", json!(spaces))],
                &format!("readlink /proc/self/ns/{kind}"),
            );
            let said = runtime.ok(&["run", "-b", second.path(), "d"]);
            assert_eq!(
                said.trim(),
                fs::read_link(&path).expect("link").to_string_lossy()
            );
        }));
    }
    for (name, options, script, expected) in [
        (
            "mounts.bind.rw",
            json!(["rbind"]),
            "cat /x/given; echo more >> /x/given && echo written",
            "content\nwritten",
        ),
        (
            "mounts.bind.ro",
            json!(["rbind", "ro"]),
            "(echo more >> /x/given) 2>/dev/null || echo refused",
            "refused",
        ),
        (
            "mounts.bind.noexec",
            json!(["bind", "noexec"]),
            "/x/run 2>&1 | grep -c denied",
            "1",
        ),
        (
            "mounts.bind.rro",
            json!(["rbind", "rro"]),
            "(echo more >> /x/given) 2>/dev/null || echo refused",
            "refused",
        ),
    ] {
        all.push(Case::new(name, move |runtime| {
            let source = runtime.dir().join("source");
            fs::create_dir(&source).expect("folder");
            fs::write(source.join("given"), "content\n").expect("file");
            fs::copy("/bin/true", source.join("run")).expect("file");
            let mount =
                json!({"destination": "/x", "type": "bind", "source": source, "options": options});
            let said = runtime.script(&[("/mounts/-", mount)], script);
            assert_eq!(said.trim_end(), expected);
        }));
    }
    for (hook, name) in [
        ("prestart", "hooks.prestart"),
        ("createRuntime", "hooks.createRuntime"),
        ("createContainer", "hooks.createContainer"),
        ("poststart", "hooks.poststart"),
        ("poststop", "hooks.poststop"),
    ] {
        all.push(Case::new(name, move |runtime| {
            let file = runtime.dir().join("state");
            let entry = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", file.display())]});
            let bundle = runtime.bundle("c", &[("/hooks", json!({hook: [entry]}))], "true");
            runtime.ok(&["create", "-b", bundle.path(), "c"]);
            let before = file.exists();
            runtime.ok(&["start", "c"]);
            runtime.wait_for("c", "stopped");
            runtime.ok(&["delete", "c"]);
            assert_eq!(before, !hook.starts_with("post"));
            let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).expect("hook ran")).expect("JSON");
            assert_eq!((state["id"].as_str(), state["bundle"].as_str()), (Some("c"), Some(bundle.path())));
        }));
    }
    all
}
