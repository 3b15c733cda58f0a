//! Debian's dockerd with `--add-runtime`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hull_testkit::{Output, Run, eventually, fixtures, paths, wait_until};

use crate::kit::{Engine, text};

/// A dockerd whose runtime is `hull-oci`, with the image busybox.
struct Docker(Engine);

impl Docker {
    fn new(name: &str) -> Self {
        let runtime = paths::dist().join("hull-oci");
        let cgroup = format!("/{name}-{}", std::process::id());
        let engine = Engine::spawn("dockerd", name, |dir| {
            let at = |name: &str| text(dir.join(name));
            [
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
                "--host",
                &format!("unix://{}", at("sock")),
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
                "--cgroup-parent",
                &cgroup,
                "--add-runtime",
                &format!("hull={}", runtime.display()),
                "--default-runtime",
                "hull",
            ]
            .map(str::to_owned)
            .to_vec()
        });
        let docker = Self(engine);
        eventually("dockerd answers", || docker.run(&["version"]).code == 0);
        docker
            .run(&["load", "-qi", &text(fixtures::busybox())])
            .ok();
        docker
    }

    fn run(&self, args: &[&str]) -> Output {
        Run::new("docker")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", text(self.0.path("sock"))),
            )
            .env("DOCKER_API_VERSION", "1.41")
            .args(args)
            .run()
    }

    /// What `inspect` says by a template.
    fn inspect(&self, template: &str, name: &str) -> String {
        self.run(&["inspect", "-f", template, name]).ok()
    }
}

#[test]
fn docker_runs_execs_updates_pauses_and_stops_through_it() {
    let engine = Docker::new("hp-docker");
    let docker = |args: &[&str]| engine.run(args);

    assert_eq!(docker(&["run", "--rm", "busybox", "echo", "hi"]).ok(), "hi");
    assert_eq!(
        docker(&["run", "--rm", "-t", "busybox", "tty"]).ok().trim(),
        "/dev/pts/0"
    );
    assert_eq!(
        docker(&["run", "--rm", "busybox", "sh", "-c", "exit 7"]).code,
        7
    );
    docker(&["run", "--rm", "busybox", "nosuch"]).fails_saying(127, "executable file not found");
    assert_eq!(
        docker(&[
            "run",
            "--rm",
            "-m",
            "8m",
            "busybox",
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=100M",
            "count=1"
        ])
        .code,
        137
    );
    let out = docker(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/t",
        "--ulimit",
        "nofile=99",
        "--pids-limit",
        "20",
        "--security-opt",
        "no-new-privileges",
        "--init",
        "busybox",
        "sh",
        "-c",
        "ulimit -n; touch /t/x && ! touch /x && grep NoNewPrivs /proc/self/status",
    ]);
    assert_eq!(
        out.ok().split_whitespace().collect::<Vec<_>>(),
        ["99", "NoNewPrivs:", "1"]
    );

    docker(&[
        "run", "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000",
    ])
    .ok();
    let limit = || {
        docker(&[
            "exec",
            "box",
            "cat",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ])
        .ok()
    };
    assert_eq!(limit(), (64u64 << 20).to_string());
    docker(&["update", "-m", "128m", "--memory-swap", "256m", "box"]).ok();
    assert_eq!(limit(), (128u64 << 20).to_string());
    let out = docker(&[
        "exec",
        "-u",
        "5:6",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "box",
        "sh",
        "-c",
        "id -u; pwd; echo $A",
    ]);
    assert_eq!(out.ok(), "5\n/tmp\nb");
    assert_eq!(docker(&["exec", "box", "sh", "-c", "exit 9"]).code, 9);
    docker(&["pause", "box"]).ok();
    assert!(
        docker(&["ps", "--format", "{{.Status}}"])
            .ok()
            .contains("Paused")
    );
    docker(&["unpause", "box"]).ok();
    assert!(docker(&["top", "box"]).ok().contains("sleep 1000"));
    let stats = docker(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.PIDs}} {{.MemUsage}}",
        "box",
    ])
    .ok();
    assert!(
        stats.starts_with("1 ") && stats.contains("128MiB"),
        "{stats}"
    );
    docker(&["stop", "-t", "1", "box"]).ok();
    assert_eq!(
        docker(&["inspect", "-f", "{{.State.ExitCode}}", "box"]).ok(),
        "137"
    );
    docker(&["start", "box"]).ok();
    docker(&["rm", "-f", "box"]).ok();
    assert_eq!(docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn docker_checks_health_and_keeps_logs_through_it() {
    let docker = Docker::new("hp-docker-health");
    docker
        .run(&[
            "run", "-d", "--name", "box", "--health-cmd", "test -e /ok", "--health-interval", "300ms",
            "--health-retries", "1", "busybox", "sh", "-c",
            "echo out; echo err >&2; trap 'echo usr1' USR1; trap 'exit 5' TERM; while :; do sleep 0.1; done",
        ])
        .ok();
    let health = |wanted: &str| {
        let came = wait_until(Duration::from_secs(20), || {
            docker.inspect("{{.State.Health.Status}}", "box") == wanted
        });
        let log = docker.inspect("{{json .State.Health}}", "box");
        assert!(came, "not {wanted}: {log}");
    };
    health("unhealthy");
    docker.run(&["exec", "box", "touch", "/ok"]).ok();
    health("healthy");

    let logs = |args: &[&str]| {
        let mut line = vec!["logs"];
        line.extend(args);
        line.push("box");
        let output = docker.run(&line);
        (output.stdout.clone(), output.stderr.clone())
    };
    assert_eq!(logs(&[]), ("out\n".to_owned(), "err\n".to_owned()));
    docker.run(&["kill", "-s", "USR1", "box"]).ok();
    eventually("the signal came", || logs(&[]).0 == "out\nusr1\n");
    assert_eq!(logs(&["--tail", "1"]).0, "usr1\n");
    let line = logs(&["--timestamps", "--tail", "1"]).0;
    assert!(
        line.starts_with("20") && line.ends_with("Z usr1\n"),
        "{line}"
    );
    // The program's own end by TERM.
    docker.run(&["stop", "box"]).ok();
    assert_eq!(docker.inspect("{{.State.ExitCode}}", "box"), "5");
    docker.run(&["restart", "-t", "0", "box"]).ok();
    assert_eq!(docker.inspect("{{.State.Status}}", "box"), "running");
    docker.run(&["kill", "box"]).ok();
    assert_eq!(docker.run(&["wait", "box"]).ok(), "137");
    docker.run(&["rm", "box"]).ok();
}

#[test]
fn docker_updates_limits_and_gives_devices_and_rights_through_it() {
    let docker = Docker::new("hp-docker-limits");
    docker
        .run(&[
            "run", "-d", "--name", "box", "--cpus", "1", "busybox", "sleep", "1000",
        ])
        .ok();
    let file = |name: &str| {
        let path = format!("/sys/fs/cgroup/{name}");
        docker.run(&["exec", "box", "cat", &path]).ok()
    };
    assert_eq!(file("cpu/cpu.cfs_quota_us"), "100000");
    docker
        .run(&[
            "update",
            "--cpus",
            "0.5",
            "--cpu-shares",
            "512",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "33",
            "box",
        ])
        .ok();
    assert_eq!(file("cpu/cpu.cfs_quota_us"), "50000");
    assert_eq!(file("cpu/cpu.shares"), "512");
    // Groups of cpuset are made when they are asked for, so this one is looked at from outside.
    let id = docker.inspect("{{.Id}}", "box");
    let group = format!("hp-docker-limits-{}/{id}", std::process::id());
    let cpus = Path::new("/sys/fs/cgroup/cpuset")
        .join(group)
        .join("cpuset.cpus");
    assert_eq!(
        fs::read_to_string(cpus).expect("a group of cpuset").trim(),
        "0"
    );
    assert_eq!(file("pids/pids.max"), "33");
    docker.run(&["rm", "-f", "box"]).ok();

    // Killed for want of memory, which the engine learns from the runtime's group.
    let eater = "dd if=/dev/zero of=/dev/null bs=100M count=1";
    let code = docker
        .run(&[
            "run",
            "--name",
            "eater",
            "-m",
            "8m",
            "--memory-swap",
            "8m",
            "busybox",
            "sh",
            "-c",
            &format!("exec {eater}"),
        ])
        .code;
    assert_eq!(code, 137);
    assert_eq!(docker.inspect("{{.State.OOMKilled}}", "eater"), "true");
    docker.run(&["rm", "eater"]).ok();

    let run = |args: &[&str], script: &str| {
        let mut line = vec!["run", "--rm"];
        line.extend(args);
        line.extend(["busybox", "sh", "-c", script]);
        docker.run(&line).ok()
    };
    let caps = "grep -E 'CapEff|CapBnd' /proc/self/status | cut -f2 | sort -u";
    assert_eq!(run(&["--cap-drop", "ALL"], caps), "0000000000000000");
    assert_eq!(
        run(&["--cap-drop", "ALL", "--cap-add", "KILL"], caps),
        "0000000000000020"
    );
    assert_eq!(run(&["--user", "33:34"], "id -u; id -g"), "33\n34");
    assert_eq!(
        run(
            &["--sysctl", "net.ipv4.ip_forward=1"],
            "cat /proc/sys/net/ipv4/ip_forward"
        ),
        "1"
    );
    assert_eq!(
        run(
            &["--security-opt", "seccomp=unconfined"],
            "grep Seccomp: /proc/self/status | cut -f2"
        ),
        "0"
    );
    assert_eq!(run(&[], "grep Seccomp: /proc/self/status | cut -f2"), "2");
    assert_eq!(
        run(
            &["--device", "/dev/kmsg:/dev/own"],
            "stat -c %t:%T /dev/own"
        ),
        "1:b"
    );
    assert_eq!(
        run(&["--privileged"], "test -w /proc/sys/kernel && echo may"),
        "may"
    );
    assert_eq!(run(&["-v", "/vol"], "touch /vol/x && echo made"), "made");
    assert_eq!(run(&["--hostname", "named"], "hostname"), "named");
    assert_eq!(
        run(
            &["--ipc", "host", "--pid", "host", "--uts", "host"],
            "test $$ -gt 1 && echo of-the-host"
        ),
        "of-the-host"
    );
    let given = Run::new("docker")
        .env(
            "DOCKER_HOST",
            format!("unix://{}", text(docker.0.path("sock"))),
        )
        .env("DOCKER_API_VERSION", "1.41")
        .args(["run", "--rm", "-i", "busybox", "cat"])
        .input("through\n")
        .run();
    assert_eq!(given.ok(), "through");
}
