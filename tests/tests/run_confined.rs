//! `hull run`: what a container may and may not: capabilities, seccomp, namespaces, devices,
//! read-only trees, limits.

use std::fs;

use hull_testkit::Daemon;
use hull_tests::{cgroup_value, pid_of};

fn status_field(status: &str, field: &str) -> String {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[test]
fn run_default_capabilities_are_dockers_fourteen() {
    let daemon = Daemon::new();
    let status = daemon.ok(["run", "--rm", "busybox", "cat", "/proc/self/status"]);
    assert_eq!(status_field(&status, "CapEff"), "00000000a80425fb");
    assert_eq!(status_field(&status, "CapBnd"), "00000000a80425fb");
    assert_eq!(status_field(&status, "CapInh"), "0000000000000000");
    assert_eq!(status_field(&status, "CapAmb"), "0000000000000000");
    assert_eq!(status_field(&status, "Seccomp"), "2");
    assert_eq!(status_field(&status, "NoNewPrivs"), "0");
}

#[test]
fn run_non_root_user_has_no_effective_capability() {
    let daemon = Daemon::new();
    let status = daemon.ok([
        "run",
        "--rm",
        "-u",
        "1000",
        "busybox",
        "cat",
        "/proc/self/status",
    ]);
    for field in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status_field(&status, field), "0000000000000000", "{field}");
    }
    assert_eq!(status_field(&status, "CapBnd"), "00000000a80425fb");
}

#[test]
fn run_cap_add_and_drop_change_the_set() {
    let daemon = Daemon::new();
    let caps = |flags: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["busybox", "cat", "/proc/self/status"]);
        status_field(&daemon.ok(args), "CapEff")
    };
    assert_eq!(caps(&["--cap-drop", "ALL"]), "0000000000000000");
    assert_eq!(
        caps(&["--cap-drop", "all", "--cap-add", "CHOWN"]),
        "0000000000000001"
    );
    assert_eq!(caps(&["--cap-add", "NET_ADMIN"]), "00000000a80435fb");
    assert_eq!(caps(&["--cap-add", "CAP_NET_ADMIN"]), "00000000a80435fb");
    assert_eq!(caps(&["--cap-drop", "net_raw"]), "00000000a80405fb");
    daemon
        .hull(["run", "--rm", "--cap-add", "NOSUCH", "busybox", "true"])
        .fails_saying(125, "NOSUCH");
}

#[test]
fn run_privileged_may_mount_and_sees_devices() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        // Docker fails where the host itself lacks a capability; Hull keeps what there is.
        return;
    }
    let script = "mount -t tmpfs none /mnt && grep Seccomp: /proc/self/status && ls /dev | wc -l && touch /proc/sys/kernel/hostname";
    let out = daemon.ok([
        "run",
        "--rm",
        "--privileged",
        "-v",
        "/mnt",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert!(out.contains("Seccomp:\t0"), "{out}");
    let devices: u32 = out
        .lines()
        .last()
        .and_then(|line| line.parse().ok())
        .expect("a number");
    assert!(devices > 20, "{out}");
    let out = daemon.hull([
        "run", "--rm", "busybox", "mount", "-t", "tmpfs", "none", "/tmp",
    ]);
    assert_eq!(out.code, 1, "an ordinary container may not mount");
}

#[test]
fn run_security_opt_sets_no_new_privileges_and_seccomp() {
    let daemon = Daemon::new();
    let status = daemon.ok([
        "run",
        "--rm",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "busybox",
        "cat",
        "/proc/self/status",
    ]);
    assert_eq!(status_field(&status, "NoNewPrivs"), "1");
    assert_eq!(status_field(&status, "Seccomp"), "0");
    let profile = daemon.scratch().join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .expect("write");
    let option = format!("seccomp={}", profile.display());
    let out = daemon.hull([
        "run",
        "--rm",
        "--security-opt",
        &option,
        "busybox",
        "mkdir",
        "/x",
    ]);
    out.fails_saying(1, "not permitted");
    daemon
        .hull([
            "run",
            "--rm",
            "--security-opt",
            "seccomp=/no/such/file",
            "busybox",
            "true",
        ])
        .fails(125);
    daemon
        .hull([
            "run",
            "--rm",
            "--security-opt",
            "nonsense=1",
            "busybox",
            "true",
        ])
        .fails(125);
}

#[test]
fn run_read_only_root_refuses_writes_but_not_in_tmpfs_and_volumes() {
    let daemon = Daemon::new();
    daemon
        .hull(["run", "--rm", "--read-only", "busybox", "touch", "/x"])
        .fails_saying(1, "read-only");
    let script = "touch /scratch/a /data/b /dev/shm/c && echo fine";
    let out = daemon.ok([
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/scratch",
        "-v",
        "/data",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(out, "fine");
}

#[test]
fn run_tmpfs_takes_size_and_mode() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "--tmpfs",
        "/t:size=8m,mode=700,exec",
        "busybox",
        "sh",
        "-c",
        "grep ' /t ' /proc/mounts; stat -c %a /t; dd if=/dev/zero of=/t/f bs=1M count=9 2>&1; true",
    ]);
    assert!(out.contains("size=8192k"), "{out}");
    assert!(out.contains("\n700\n"), "{out}");
    assert!(out.contains("No space left"), "{out}");
    assert!(!out.contains("noexec"), "{out}");
    let out = daemon.ok([
        "run",
        "--rm",
        "--tmpfs",
        "/t",
        "busybox",
        "grep",
        " /t ",
        "/proc/mounts",
    ]);
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(out.contains(option), "{option}: {out}");
    }
    let out = daemon.ok([
        "run",
        "--rm",
        "--mount",
        "type=tmpfs,target=/m,tmpfs-size=1m",
        "busybox",
        "grep",
        " /m ",
        "/proc/mounts",
    ]);
    assert!(out.contains("size=1024k"), "{out}");
}

#[test]
fn run_shm_size_is_64m_or_as_asked() {
    let daemon = Daemon::new();
    let size = |flags: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend([
            "busybox",
            "sh",
            "-c",
            "df -k /dev/shm | tail -1 | awk '{print $2}'",
        ]);
        daemon.ok(args)
    };
    assert_eq!(size(&[]), "65536");
    assert_eq!(size(&["--shm-size", "16m"]), "16384");
}

#[test]
fn run_ulimit_sets_soft_and_hard() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "--ulimit",
        "nofile=64:128",
        "--ulimit",
        "core=0",
        "busybox",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    ]);
    assert_eq!(out, "64\n128\n0");
    let out = daemon.hull([
        "run",
        "--rm",
        "--ulimit",
        "nofile=128:64",
        "busybox",
        "true",
    ]);
    out.fails(125);
    daemon
        .hull(["run", "--rm", "--ulimit", "nosuch=1", "busybox", "true"])
        .fails(125);
}

#[test]
fn run_namespaces_are_private_by_default_and_shared_when_asked() {
    let daemon = Daemon::new();
    let host = |kind: &str| {
        fs::read_link(format!("/proc/self/ns/{kind}"))
            .expect("a namespace")
            .to_string_lossy()
            .into_owned()
    };
    let inside = |flags: &[&str], kind: &str| {
        let mut args = vec!["run".to_owned(), "--rm".to_owned()];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        args.extend([
            "busybox".to_owned(),
            "readlink".to_owned(),
            format!("/proc/self/ns/{kind}"),
        ]);
        daemon.ok(args)
    };
    for kind in ["pid", "ipc", "uts", "net", "mnt"] {
        assert_ne!(inside(&[], kind), host(kind), "{kind}");
    }
    assert_eq!(inside(&["--pid", "host"], "pid"), host("pid"));
    assert_eq!(inside(&["--ipc", "host"], "ipc"), host("ipc"));
    assert_eq!(inside(&["--uts", "host"], "uts"), host("uts"));
    assert_eq!(inside(&["--network", "host"], "net"), host("net"));
    assert_eq!(inside(&["--cgroupns", "host"], "cgroup"), host("cgroup"));
    assert_ne!(inside(&["--cgroupns", "private"], "cgroup"), host("cgroup"));
}

#[test]
fn run_namespaces_of_another_container_are_joined() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "first",
        "--ipc",
        "shareable",
        "busybox",
        "sleep",
        "1000",
    ]);
    let pid = pid_of(&daemon, "first");
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--network", "net")] {
        let host = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        let inside = daemon.ok([
            "run",
            "--rm",
            flag,
            "container:first",
            "busybox",
            "readlink",
            &format!("/proc/self/ns/{kind}"),
        ]);
        assert_eq!(inside, host.to_string_lossy(), "{flag}");
    }
    daemon
        .hull([
            "run",
            "--rm",
            "--pid",
            "container:nosuch",
            "busybox",
            "true",
        ])
        .fails_saying(125, "nosuch");
    let processes = daemon.ok([
        "run",
        "--rm",
        "--pid",
        "container:first",
        "busybox",
        "ps",
        "-o",
        "args",
    ]);
    assert!(processes.contains("sleep 1000"), "{processes}");
}

#[test]
fn run_limits_are_seen_in_the_cgroup() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "limited",
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "50",
        "busybox",
        "sleep",
        "1000",
    ]);
    let pid = pid_of(&daemon, "limited");
    assert_eq!(
        cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(
        cgroup_value(pid, "memory", "memory.soft_limit_in_bytes", "memory.low"),
        "33554432"
    );
    assert_eq!(cgroup_value(pid, "pids", "pids.max", "pids.max"), "50");
    assert_eq!(
        cgroup_value(pid, "cpuset", "cpuset.cpus", "cpuset.cpus"),
        "0"
    );
    let quota = cgroup_value(pid, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split(' ').next(), Some("50000"));
    let memory = daemon.inspect(
        "limited",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}",
    );
    assert_eq!(memory, "67108864 500000000 50");
}

#[test]
fn run_pids_limit_stops_a_fork_bomb() {
    let daemon = Daemon::new();
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait";
    let out = daemon.hull([
        "run",
        "--rm",
        "--pids-limit",
        "8",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert!(
        out.stderr.contains("can't fork") || out.stderr.contains("temporarily unavailable"),
        "{}",
        out.stderr
    );
}

#[test]
fn run_out_of_memory_is_killed_and_told() {
    let daemon = Daemon::new();
    let out = daemon.hull([
        "run",
        "--name",
        "hog",
        "-m",
        "16m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=200M",
        "count=1",
    ]);
    assert_eq!(out.code, 137, "{}", out.stderr);
    assert_eq!(
        daemon.inspect("hog", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    daemon.ok(["run", "--name", "thrifty", "-m", "16m", "busybox", "true"]);
    assert_eq!(daemon.inspect("thrifty", "{{.State.OOMKilled}}"), "false");
}

#[test]
fn run_bad_limits_are_refused() {
    let daemon = Daemon::new();
    for flags in [
        ["-m", "1k"],
        ["-m", "abc"],
        ["--cpus", "-1"],
        ["--cpus", "10000"],
        ["--cpuset-cpus", "99"],
        ["--cpuset-cpus", "x"],
        ["--memory-swap", "1m"],
        ["--shm-size", "-5"],
        ["--oom-score-adj", "5000"],
    ] {
        let out = daemon.hull([
            "run", "--rm", flags[0], flags[1], "-m", "64m", "busybox", "true",
        ]);
        if flags[0] == "-m" {
            let out = daemon.hull(["run", "--rm", flags[0], flags[1], "busybox", "true"]);
            assert_eq!(out.code, 125, "{flags:?}: {}", out.stderr);
        } else {
            assert_eq!(out.code, 125, "{flags:?}: {}", out.stderr);
        }
    }
}

#[test]
fn run_oom_score_adj_is_set() {
    let daemon = Daemon::new();
    assert_eq!(
        daemon.ok([
            "run",
            "--rm",
            "--oom-score-adj",
            "500",
            "busybox",
            "cat",
            "/proc/self/oom_score_adj"
        ]),
        "500"
    );
}

#[test]
fn run_sysctl_in_a_namespace_is_set_and_another_refused() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "--sysctl",
        "kernel.msgmax=4096",
        "busybox",
        "cat",
        "/proc/sys/net/ipv4/ip_default_ttl",
        "/proc/sys/kernel/msgmax",
    ]);
    assert_eq!(out, "42\n4096");
    daemon
        .hull([
            "run",
            "--rm",
            "--sysctl",
            "kernel.panic=1",
            "busybox",
            "true",
        ])
        .fails_saying(125, "kernel.panic");
    daemon
        .hull([
            "run",
            "--rm",
            "--network",
            "host",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "busybox",
            "true",
        ])
        .fails(125);
}

#[test]
fn run_devices_are_few_and_added_by_flag() {
    let daemon = Daemon::new();
    let list = daemon.ok(["run", "--rm", "busybox", "ls", "/dev"]);
    // Docker links /dev/core to /proc/kcore where the host has one.
    let mut names: Vec<&str> = list.lines().filter(|name| *name != "core").collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero"
        ]
    );
    let out = daemon.ok([
        "run",
        "--rm",
        "--device",
        "/dev/fuse:/dev/myfuse:rw",
        "busybox",
        "sh",
        "-c",
        "ls -l /dev/myfuse && : </dev/myfuse && echo opened",
    ]);
    assert!(out.contains("10, 229") && out.contains("opened"), "{out}");
    let out = daemon.hull([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "mknod /dev/myfuse c 10 229 && : </dev/myfuse",
    ]);
    assert_ne!(out.code, 0, "a device that was not given opens");
    let out = daemon.hull([
        "run",
        "--rm",
        "--device",
        "/dev/nosuchdevice",
        "busybox",
        "true",
    ]);
    // Docker's command line takes any "no such file or directory" for a missing program.
    assert!([125, 127].contains(&out.code), "{}", out.code);
}

#[test]
fn run_proc_and_sys_are_masked() {
    let daemon = Daemon::new();
    let script = "cat /proc/kcore 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
                  echo b >/proc/sysrq-trigger; echo x >/proc/sys/kernel/hostname; mkdir /sys/x; true";
    let out = daemon.hull(["run", "--rm", "busybox", "sh", "-c", script]);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.get(1), Some(&"0"), "{}", out.stdout);
    // Not every kernel has the sysrq trigger.
    let refused = out.stderr.to_lowercase();
    assert!(
        refused.matches("read-only file system").count() >= 2,
        "{refused}"
    );
}

#[test]
fn run_add_host_and_dns_reach_the_files() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "9.9.9.9",
        "--dns",
        "1.1.1.1",
        "busybox",
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
    ]);
    assert!(out.contains("10.1.2.3\tdb"), "{out}");
    assert!(
        out.contains("nameserver 9.9.9.9\nnameserver 1.1.1.1"),
        "{out}"
    );
    daemon
        .hull(["run", "--rm", "--add-host", "nonsense", "busybox", "true"])
        .fails(125);
    daemon
        .hull(["run", "--rm", "--dns", "nonsense", "busybox", "true"])
        .fails(125);
}
