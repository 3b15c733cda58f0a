//! Podman with `--runtime`.

use std::fs;
use std::time::Duration;

use hull_testkit::{Output, Run, fixtures, paths, wait_until};

use crate::kit::{remove_groups, text};

/// Podman has no daemon: a folder and a control group are all there is to clean up.
struct Podman {
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Podman {
    /// With the image busybox.
    fn new(name: &str) -> Self {
        let podman = Self {
            dir: tempfile::Builder::new()
                .prefix("hp-")
                .tempdir_in("/tmp")
                .expect("folder"),
            cgroup: format!("/{name}-{}", std::process::id()),
        };
        // Podman asks for a log file only where it knows of a runtime that it writes such; else what
        // the runtime has to say lands among the container's own lines.
        let conf = "[engine]\nruntime_supports_json = [\"hull-oci\"]\n";
        fs::write(podman.dir.path().join("containers.conf"), conf).expect("configuration");
        podman
            .run(&["load", "-qi", &text(fixtures::busybox())])
            .ok();
        podman
    }

    fn run(&self, args: &[&str]) -> Output {
        let at = |name: &str| text(self.dir.path().join(name));
        Run::new("podman")
            .env("CONTAINERS_CONF", at("containers.conf"))
            .args([
                "--root",
                &at("root"),
                "--runroot",
                &at("run"),
                "--tmpdir",
                &at("tmp"),
            ])
            .args(["--runtime", &text(paths::dist().join("hull-oci"))])
            .args(["--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"])
            .args(["--events-backend", "none"])
            .args(args)
            .run()
    }

    /// `run` with what this host needs, then the rest.
    fn start(&self, rest: &[&str]) -> Output {
        let mut args = vec!["run", "--network", "none", "--cgroup-parent", &self.cgroup];
        args.extend(rest);
        self.run(&args)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["pod", "rm", "-af"]);
        self.run(&["rm", "-af"]);
        remove_groups(self.cgroup.trim_start_matches('/'));
    }
}

#[test]
fn podman_runs_execs_pauses_and_stops_through_it() {
    let podman = Podman::new("hp-podman");
    assert_eq!(podman.start(&["--rm", "busybox", "echo", "hi"]).ok(), "hi");
    assert_eq!(
        podman.start(&["--rm", "-t", "busybox", "tty"]).ok().trim(),
        "/dev/pts/0"
    );
    assert_eq!(
        podman
            .start(&["--rm", "busybox", "sh", "-c", "exit 7"])
            .code,
        7
    );
    assert_eq!(podman.start(&["--rm", "busybox", "nosuch"]).code, 127);
    podman
        .start(&[
            "-d", "--name", "box", "-m", "64m", "busybox", "sleep", "1000",
        ])
        .ok();
    let file = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    let out = podman.run(&[
        "exec",
        "box",
        "sh",
        "-c",
        &format!("cat {file}; hostname >/t; id -u"),
    ]);
    assert_eq!(out.ok(), format!("{}\n0", 64u64 << 20));
    assert_eq!(podman.run(&["exec", "box", "sh", "-c", "exit 9"]).code, 9);
    podman.run(&["pause", "box"]).ok();
    assert_eq!(
        podman
            .run(&["inspect", "-f", "{{.State.Status}}", "box"])
            .ok(),
        "paused"
    );
    podman.run(&["unpause", "box"]).ok();
    podman.run(&["stop", "-t", "1", "box"]).ok();
    assert_eq!(
        podman
            .run(&["inspect", "-f", "{{.State.ExitCode}}", "box"])
            .ok(),
        "137"
    );
    podman.run(&["start", "box"]).ok();
    podman.run(&["rm", "-f", "-t", "0", "box"]).ok();
    assert_eq!(podman.run(&["ps", "-aq"]).ok(), "");
}

#[test]
fn podman_updates_measures_and_keeps_logs_through_it() {
    let podman = Podman::new("hp-podman-more");
    podman
        .start(&[
            "-d",
            "--name",
            "box",
            "-m",
            "64m",
            "--health-cmd",
            "test -e /ok",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2; trap 'echo usr1' USR1; while :; do sleep 0.1; done",
        ])
        .ok();
    let logs = || {
        let output = podman.run(&["logs", "box"]);
        (output.stdout.clone(), output.stderr.clone())
    };
    let says = |out: &str| {
        let came = wait_until(Duration::from_secs(10), || logs().0 == out);
        assert!(came, "{:?}", logs());
    };
    says("out\n");
    assert_eq!(logs().1, "err\n");
    podman.run(&["kill", "--signal", "USR1", "box"]).ok();
    says("out\nusr1\n");
    podman
        .run(&["update", "--cpus", "0.5", "-m", "128m", "box"])
        .ok();
    let file = |name: &str| {
        let path = format!("/sys/fs/cgroup/{name}");
        podman.run(&["exec", "box", "cat", &path]).ok()
    };
    assert_eq!(file("cpu/cpu.cfs_quota_us"), "50000");
    assert_eq!(
        file("memory/memory.limit_in_bytes"),
        (128u64 << 20).to_string()
    );
    let stats = podman
        .run(&[
            "stats",
            "--no-stream",
            "--no-reset",
            "--format",
            "{{.Name}} {{.PIDs}} {{.MemUsage}}",
            "box",
        ])
        .ok();
    assert!(
        stats.starts_with("box ") && stats.contains(" / "),
        "{stats}"
    );
    assert!(podman.run(&["top", "box", "args"]).ok().contains("sleep"));
    assert_ne!(podman.run(&["healthcheck", "run", "box"]).code, 0);
    podman.run(&["exec", "box", "touch", "/ok"]).ok();
    podman.run(&["healthcheck", "run", "box"]).ok();
    podman.run(&["kill", "box"]).ok();
    assert_eq!(podman.run(&["wait", "box"]).ok(), "137");
    podman.run(&["rm", "box"]).ok();
}

#[test]
fn podman_pod_shares_namespaces_through_it() {
    let podman = Podman::new("hp-podman-pod");
    // Its first container holds the namespaces; an image for that is not at hand, so any is taken.
    podman
        .run(&[
            "pod",
            "create",
            "--name",
            "pod",
            "--network",
            "none",
            "--cgroup-parent",
            &podman.cgroup,
            "--infra-image",
            "busybox",
            "--infra-command",
            "sleep 1000",
            "--share",
            "ipc,uts,net",
        ])
        .ok();
    for name in ["one", "two"] {
        podman
            .run(&[
                "run", "-d", "--pod", "pod", "--name", name, "busybox", "sleep", "1000",
            ])
            .ok();
    }
    let spaces = |name: &str| {
        let script = "for n in net ipc uts mnt; do readlink /proc/self/ns/$n; done";
        let said = podman.run(&["exec", name, "sh", "-c", script]).ok();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (one, two) = (spaces("one"), spaces("two"));
    assert_eq!(one[..3], two[..3]);
    assert_ne!(one[3], two[3]);
    podman.run(&["pod", "pause", "pod"]).ok();
    let status = |name: &str| {
        podman
            .run(&["inspect", "-f", "{{.State.Status}}", name])
            .ok()
    };
    assert_eq!(status("one"), "paused");
    podman.run(&["pod", "unpause", "pod"]).ok();
    podman.run(&["pod", "stop", "-t", "0", "pod"]).ok();
    assert_eq!(status("two"), "exited");
    podman.run(&["pod", "start", "pod"]).ok();
    assert_eq!(status("two"), "running");
    podman.run(&["pod", "rm", "-f", "-t", "0", "pod"]).ok();
    assert_eq!(podman.run(&["ps", "-aq"]).ok(), "");
}
