//! Debian's containerd with the runtime io.containerd.runc.v2 and a program of ours.

use std::fs;

use hull_testkit::{Output, Run, eventually, fixtures, paths};

use crate::kit::{Engine, text};

/// A containerd of the test's own with an image of busybox.
struct Containerd {
    engine: Engine,
    /// Of the test's own: the shim's records of all containerds lie in one folder, by namespace.
    namespace: String,
    image: String,
}

impl Containerd {
    fn new(name: &str) -> Self {
        let engine = Engine::spawn("containerd", name, |dir| {
            let config = format!(
                "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{dir}/sock\"\n[ttrpc]\naddress = \"{dir}/ttrpc\"\n",
                dir = dir.display()
            );
            let file = dir.join("config.toml");
            fs::write(&file, config).expect("write the configuration");
            vec!["--config".to_owned(), text(file)]
        });
        let mut containerd = Self {
            engine,
            namespace: format!("{name}-{}", std::process::id()),
            image: String::new(),
        };
        eventually("containerd answers", || {
            containerd.run(&["version"]).code == 0
        });
        containerd
            .run(&[
                "images",
                "import",
                "--base-name",
                "docker.io/library/busybox",
                &text(fixtures::busybox()),
            ])
            .ok();
        let images = containerd.run(&["images", "list", "-q"]).ok();
        containerd.image = images.lines().next().expect("an image").to_owned();
        containerd
    }

    fn run(&self, args: &[&str]) -> Output {
        Run::new("ctr")
            .args(["--address", &text(self.engine.path("sock"))])
            .args(["--namespace", &self.namespace])
            .args(args)
            .run()
    }

    /// `run` of the image by our program.
    fn start(&self, extra: &[&str], rest: &[&str]) -> Output {
        let binary = text(paths::dist().join("hull-oci"));
        let mut args = vec!["run", "--runc-binary", &binary, "--snapshotter", "native"];
        args.extend(extra);
        args.push(&self.image);
        args.extend(rest);
        self.run(&args)
    }
}

#[test]
fn containerd_runs_execs_and_kills_through_it() {
    let engine = Containerd::new("hp-ctr");
    let ctr = |args: &[&str]| engine.run(args);
    let run = |extra: &[&str], rest: &[&str]| engine.start(extra, rest);
    assert_eq!(run(&["--rm"], &["a", "echo", "hi"]).ok(), "hi");
    assert_eq!(run(&["--rm"], &["b", "sh", "-c", "exit 5"]).code, 5);
    run(&["-d"], &["box", "sleep", "1000"]).ok();
    let out = ctr(&[
        "tasks",
        "exec",
        "--exec-id",
        "x",
        "box",
        "sh",
        "-c",
        "echo in $(hostname)",
    ])
    .ok();
    assert!(out.starts_with("in "), "{out}");
    ctr(&["tasks", "pause", "box"]).ok();
    assert!(ctr(&["tasks", "list"]).ok().contains("PAUSED"));
    ctr(&["tasks", "resume", "box"]).ok();
    assert!(ctr(&["tasks", "ps", "box"]).ok().lines().count() >= 2);
    ctr(&["tasks", "kill", "-s", "SIGKILL", "box"]).ok();
    eventually("the task has stopped", || {
        ctr(&["tasks", "list"]).ok().contains("STOPPED")
    });
    ctr(&["tasks", "delete", "box"]);
    ctr(&["containers", "delete", "box"]).ok();
    assert!(!ctr(&["containers", "list", "-q"]).ok().contains("box"));
}

#[test]
fn containerd_limits_and_measures_through_it() {
    let engine = Containerd::new("hp-ctr-limits");
    let group = format!("/hp-ctr-limits-{}/box", std::process::id());
    let limits = [
        "-d",
        "--memory-limit",
        "67108864",
        "--cpus",
        "0.5",
        "--cpu-shares",
        "512",
        "--cgroup",
        &group,
        "--read-only",
        "--cap-drop",
        "CAP_KILL",
        "--env",
        "A=b c",
        "--cwd",
        "/tmp",
        "--seccomp",
        "--label",
        "x=y",
    ];
    engine.start(&limits, &["box", "sleep", "1000"]).ok();
    let limit = |name: &str| {
        let all = fs::read_dir("/sys/fs/cgroup").expect("groups").flatten();
        all.map(|hierarchy| {
            hierarchy
                .path()
                .join(group.trim_start_matches('/'))
                .join(name)
        })
        .find_map(|file| fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
    };
    assert_eq!(limit("memory.limit_in_bytes").as_deref(), Some("67108864"));
    assert_eq!(limit("cpu.cfs_quota_us").as_deref(), Some("50000"));
    assert_eq!(limit("cpu.shares").as_deref(), Some("512"));
    let inside = engine.run(&[
        "tasks", "exec", "--exec-id", "x", "box", "sh", "-c",
        "pwd; echo $A; touch /x 2>/dev/null || echo read-only; grep -E 'Seccomp:|CapEff' /proc/self/status",
    ]);
    let said = inside.ok();
    assert!(said.starts_with("/tmp\nb c\nread-only\n"), "{said}");
    assert!(said.contains("Seccomp:\t2"), "{said}");
    let metrics = engine.run(&["tasks", "metrics", "box"]).ok();
    assert!(
        metrics.contains("67108864") && metrics.contains("pids.current"),
        "{metrics}"
    );
    // A detached exec, a signal by number, an end by TERM that is waited for.
    engine
        .run(&[
            "tasks",
            "exec",
            "-d",
            "--exec-id",
            "y",
            "box",
            "sleep",
            "999",
        ])
        .ok();
    let listed = engine.run(&["tasks", "ps", "box"]).ok();
    assert!(listed.lines().count() >= 3, "{listed}");
    engine.run(&["tasks", "kill", "-s", "9", "box"]).ok();
    eventually("the task has stopped", || {
        engine.run(&["tasks", "list"]).ok().contains("STOPPED")
    });
    engine.run(&["tasks", "delete", "box"]);
    engine.run(&["containers", "delete", "box"]).ok();
    // On a terminal, and as a user.
    let said = engine.start(&["--rm", "--null-io"], &["quiet", "true"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
}
