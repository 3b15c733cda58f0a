//! hull-oci as the runtime of other engines: Debian's dockerd, containerd and Podman.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hull_testkit::{Output, Run, eventually, fixtures, paths};

/// How long an engine may take to end.
const STOP: Duration = Duration::from_secs(20);

/// A daemon of somebody else's, with folders of its own; it ends with the value.
struct Engine {
    child: Child,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Engine {
    fn spawn(program: &str, cgroup: &str, args: impl Fn(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("hp-")
            .tempdir_in("/tmp")
            .expect("folder");
        let log = fs::File::create(dir.path().join("log")).expect("log");
        let child = Command::new(program)
            .args(args(dir.path()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        Self {
            child,
            dir,
            cgroup: format!("{cgroup}-{}", std::process::id()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        hull_testkit::wait_until(STOP, || !matches!(self.child.try_wait(), Ok(None)));
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_groups(&self.cgroup);
    }
}

/// Removes the group, and those below it, from each hierarchy. The processes that Podman leaves to
/// watch a container end a moment after it.
fn remove_groups(name: &str) {
    let groups = || {
        let all = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        all.map(|hierarchy| hierarchy.path().join(name))
            .filter(|path| path.exists())
    };
    hull_testkit::wait_until(STOP, || {
        for group in groups() {
            for below in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            let _ = fs::remove_dir(group);
        }
        groups().next().is_none()
    });
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

#[test]
fn docker_runs_execs_updates_pauses_and_stops_through_it() {
    let runtime = paths::dist().join("hull-oci");
    let cgroup = format!("/hp-docker-{}", std::process::id());
    let engine = Engine::spawn("dockerd", "hp-docker", |dir| {
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
    let docker = |args: &[&str]| -> Output {
        Run::new("docker")
            .env(
                "DOCKER_HOST",
                format!("unix://{}", text(engine.path("sock"))),
            )
            .env("DOCKER_API_VERSION", "1.41")
            .args(args)
            .run()
    };
    eventually("dockerd answers", || docker(&["version"]).code == 0);
    docker(&["load", "-qi", &text(fixtures::busybox())]).ok();

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
fn containerd_runs_execs_and_kills_through_it() {
    let runtime = paths::dist().join("hull-oci");
    let engine = Engine::spawn("containerd", "hp-ctr", |dir| {
        let config = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{dir}/sock\"\n[ttrpc]\naddress = \"{dir}/ttrpc\"\n",
            dir = dir.display()
        );
        let file = dir.join("config.toml");
        fs::write(&file, config).expect("write the configuration");
        vec!["--config".to_owned(), text(file)]
    });
    let socket = text(engine.path("sock"));
    let ctr = |args: &[&str]| -> Output {
        Run::new("ctr")
            .args(["--address", &socket, "--namespace", "hull"])
            .args(args)
            .run()
    };
    eventually("containerd answers", || ctr(&["version"]).code == 0);
    ctr(&[
        "images",
        "import",
        "--base-name",
        "docker.io/library/busybox",
        &text(fixtures::busybox()),
    ])
    .ok();
    let image = ctr(&["images", "list", "-q"]).ok();
    let image = image.lines().next().expect("an image").to_owned();
    let binary = text(&runtime);
    let run = |extra: &[&str], rest: &[&str]| {
        let mut args = vec!["run", "--runc-binary", &binary, "--snapshotter", "native"];
        args.extend(extra);
        args.push(&image);
        args.extend(rest);
        ctr(&args)
    };
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

/// Podman has no daemon: a folder and a control group are all there is to clean up.
struct Podman {
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Podman {
    fn run(&self, args: &[&str]) -> Output {
        let at = |name: &str| text(self.dir.path().join(name));
        Run::new("podman")
            .env("CONTAINERS_CONF", "/dev/null")
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
        self.run(&["rm", "-af"]);
        remove_groups(self.cgroup.trim_start_matches('/'));
    }
}

#[test]
fn podman_runs_execs_pauses_and_stops_through_it() {
    let podman = Podman {
        dir: tempfile::Builder::new()
            .prefix("hp-")
            .tempdir_in("/tmp")
            .expect("folder"),
        cgroup: format!("/hp-podman-{}", std::process::id()),
    };
    podman
        .run(&["load", "-qi", &text(fixtures::busybox())])
        .ok();
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
