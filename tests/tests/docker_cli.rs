//! Docker's own command line pointed at Hull's socket: the first real client.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hull_testkit::terminal::Terminal;
use hull_testkit::{Daemon, Run, eventually, fixtures, wait_until};

/// Docker's client, if the machine has one.
fn docker() -> Option<&'static str> {
    let found = ["/usr/local/bin/docker", "/usr/bin/docker"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        eprintln!("no docker client on this machine: Docker's command line is not tried");
    }
    found
}

/// A daemon, and Docker's client pointed at it.
struct Client {
    daemon: Daemon,
    program: &'static str,
    host: String,
}

impl Client {
    fn new() -> Option<Self> {
        let program = docker()?;
        let daemon = Daemon::builder().bare().start();
        let host = format!("unix://{}", daemon.socket().display());
        Some(Self {
            daemon,
            program,
            host,
        })
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::new(self.program)
            .args(["-H", &self.host])
            .args(args)
            .env("DOCKER_CONFIG", "/nonexistent")
    }

    fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    fn load(&self) {
        let out = self.ok(&["load", "-i", &fixtures::busybox().to_string_lossy()]);
        assert!(out.contains("Loaded image: busybox:latest"), "{out}");
    }

    fn terminal(&self, args: &[&str]) -> Terminal {
        Terminal::spawn(
            self.program,
            ["-H", self.host.as_str()].iter().chain(args),
            &[],
        )
    }
}

#[test]
fn docker_version_and_info_work() {
    let Some(client) = Client::new() else { return };
    let out = client.ok(&["version"]);
    assert!(
        out.contains("Server") && out.contains("API version"),
        "{out}"
    );
    let api = client.ok(&["version", "--format", "{{.Server.APIVersion}}"]);
    assert!(api.starts_with("1."), "{api}");
    let info = client.ok(&["info"]);
    assert!(
        info.contains("Server:") && info.contains("Containers: 0"),
        "{info}"
    );
    assert!(!info.contains("ERROR"), "{info}");
    assert_eq!(client.ok(&["info", "--format", "{{.OSType}}"]), "linux");
}

#[test]
fn docker_load_and_images_work() {
    let Some(client) = Client::new() else { return };
    client.load();
    let out = client.ok(&["images"]);
    assert!(out.contains("busybox") && out.contains("latest"), "{out}");
    assert_eq!(
        client.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "busybox"]),
        "busybox:latest"
    );
    assert_eq!(
        client.ok(&["image", "inspect", "--format", "{{.Os}}", "busybox"]),
        "linux"
    );
    assert!(client.ok(&["history", "-q", "busybox"]).lines().count() >= 1);
    client.ok(&["tag", "busybox", "other:1"]);
    client.ok(&["rmi", "other:1"]);
}

#[test]
fn docker_run_rm_works() {
    let Some(client) = Client::new() else { return };
    client.load();
    assert_eq!(
        client.ok(&["run", "--rm", "busybox", "echo", "hello"]),
        "hello"
    );
    let out = client
        .run(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 5",
        ])
        .run();
    assert_eq!(
        (out.code, out.stdout.as_str(), out.stderr.as_str()),
        (5, "out\n", "err\n")
    );
    assert_eq!(
        client
            .run(&["run", "--rm", "-i", "busybox", "cat"])
            .input("typed")
            .ok(),
        "typed"
    );
    client
        .run(&["run", "--rm", "busybox", "nosuchprogram"])
        .run()
        .fails(127);
    client
        .run(&["run", "--rm", "busybox", "/etc/passwd"])
        .run()
        .fails(126);
    client
        .run(&["run", "--rm", "--pull", "never", "nosuchimage", "x"])
        .run()
        .fails(125);
    assert_eq!(client.ok(&["ps", "-aq"]), "");
    for _ in 0..10 {
        assert_eq!(
            client.ok(&["run", "--rm", "busybox", "echo", "again"]),
            "again"
        );
    }
}

#[test]
fn docker_run_it_gives_a_terminal() {
    let Some(client) = Client::new() else { return };
    client.load();
    let mut terminal = client.terminal(&["run", "--rm", "-it", "busybox", "sh"]);
    terminal.expect("#");
    terminal.send("tty; echo $((6*7))\n");
    terminal.expect("42");
    terminal.send("exit 3\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains("/dev/pts/0"), "{screen}");
}

#[test]
fn docker_run_d_ps_inspect_exec_logs_stop_rm_work() {
    let Some(client) = Client::new() else { return };
    client.load();
    let script = "trap 'exit 0' TERM; i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.1; done";
    let id = client.ok(&["run", "-d", "--name", "box", "busybox", "sh", "-c", script]);
    assert_eq!(id.len(), 64);
    let ps = client.ok(&["ps"]);
    assert!(
        ps.contains("box") && ps.contains("Up ") && ps.contains(&id[..12]),
        "{ps}"
    );
    assert_eq!(
        client.ok(&["inspect", "--format", "{{.State.Status}} {{.Name}}", "box"]),
        "running /box"
    );
    assert_eq!(client.ok(&["exec", "box", "echo", "inside"]), "inside");
    assert_eq!(
        client
            .run(&["exec", "box", "sh", "-c", "exit 9"])
            .run()
            .code,
        9
    );
    assert_eq!(
        client.run(&["exec", "-i", "box", "cat"]).input("in").ok(),
        "in"
    );
    let mut terminal = client.terminal(&["exec", "-it", "box", "sh"]);
    terminal.expect("#");
    terminal.send("exit 4\n");
    assert_eq!(terminal.finish().0, 4);
    let follow = client.run(&["logs", "-f", "box"]).spawn();
    std::thread::sleep(Duration::from_millis(800));
    assert!(client.ok(&["top", "box"]).contains("sh -c"));
    assert_eq!(client.ok(&["stop", "box"]), "box");
    let followed = follow.finish().ok();
    assert!(
        followed.starts_with("tick 0\ntick 1\n") && followed.lines().count() > 5,
        "{followed}"
    );
    assert!(
        client
            .ok(&["ps", "-a", "--format", "{{.Status}}"])
            .starts_with("Exited (0)")
    );
    assert_eq!(
        client.ok(&["logs", "--tail", "1", "box"]).lines().count(),
        1
    );
    client.ok(&["start", "box"]);
    client.ok(&["restart", "-t", "1", "box"]);
    client.ok(&["pause", "box"]);
    client.ok(&["unpause", "box"]);
    client.ok(&["kill", "box"]);
    assert_eq!(client.ok(&["wait", "box"]), "137");
    client.ok(&["rename", "box", "box2"]);
    assert_eq!(client.ok(&["rm", "box2"]), "box2");
}

#[test]
fn docker_run_p_and_v_work() {
    let Some(client) = Client::new() else { return };
    client.load();
    let dir = client.daemon.scratch();
    fs::write(dir.join("index.html"), "by docker").expect("write");
    client.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "80",
        "-v",
        &format!("{}:/www:ro", dir.display()),
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
    ]);
    let port = client.ok(&["port", "web", "80/tcp"]);
    let port = port
        .lines()
        .next()
        .and_then(|line| line.rsplit(':').next())
        .expect("a port")
        .to_owned();
    let mut last = String::new();
    let served = wait_until(Duration::from_secs(10), || {
        last = Run::new("curl")
            .args([
                "-s",
                "-m",
                "3",
                &format!("http://127.0.0.1:{port}/index.html"),
            ])
            .run()
            .stdout;
        last == "by docker"
    });
    assert!(served, "{last}");
    client.ok(&["rm", "-f", "web"]);
    client.ok(&["volume", "create", "data"]);
    client.ok(&["run", "--rm", "-v", "data:/d", "busybox", "touch", "/d/x"]);
    assert_eq!(
        client.ok(&["run", "--rm", "-v", "data:/d", "busybox", "ls", "/d"]),
        "x"
    );
    assert_eq!(client.ok(&["volume", "ls", "-q"]), "data");
    client.ok(&["volume", "rm", "data"]);
}

#[test]
fn docker_attach_events_stats_and_system_work() {
    let Some(client) = Client::new() else { return };
    client.load();
    client.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "read x; echo got $x; sleep 1000",
    ]);
    let stats = client.ok(&[
        "stats",
        "--no-stream",
        "--format",
        "{{.Name}} {{.PIDs}}",
        "box",
    ]);
    assert_eq!(stats, "box 1");
    let events = client.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Action}}",
    ]);
    assert!(events.lines().any(|line| line == "start"), "{events}");
    client.ok(&["system", "df"]);
    client.ok(&["network", "ls"]);
    client.ok(&["kill", "box"]);
    eventually("it ended", || client.ok(&["ps", "-q"]).is_empty());
    client.ok(&["container", "prune", "-f"]);
    assert_eq!(client.ok(&["ps", "-aq"]), "");
}

#[test]
fn docker_save_export_import_commit_of_files_work() {
    let Some(client) = Client::new() else { return };
    client.load();
    let dir = client.daemon.scratch();
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    client.ok(&["save", "-o", &at("s.tar"), "busybox"]);
    client.ok(&["rmi", "busybox"]);
    client.ok(&["load", "-q", "-i", &at("s.tar")]);
    client.ok(&["create", "--name", "box", "busybox", "true"]);
    client.ok(&["export", "-o", &at("e.tar"), "box"]);
    client.ok(&["import", &at("e.tar"), "imported:1"]);
    assert_eq!(
        client.ok(&["run", "--rm", "imported:1", "/bin/echo", "ok"]),
        "ok"
    );
    client.ok(&["rm", "box"]);
}

#[test]
fn diff_of_a_container_lists_what_it_changed_and_nothing_of_ours() {
    let Some(client) = Client::new() else { return };
    client.load();
    let script = "echo x >/new; rm /etc/group; echo y >>/etc/passwd";
    client.ok(&["run", "--name", "changer", "busybox", "sh", "-c", script]);
    let out = client.ok(&["diff", "changer"]);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /new", "C /etc", "C /etc/passwd", "D /etc/group"]);
}
