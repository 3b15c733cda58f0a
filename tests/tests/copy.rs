//! `hull image copy` between engines and `ssh://`: through a real sshd on loopback, and between
//! sockets. Only the layers that the other side lacks go over.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, Run, eventually, paths};
use hull_tests::registry::free_port;

/// An sshd of the test's own, with keys of its own.
struct Sshd {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sshd {
    /// Starts one that finds `hull` where the tests do.
    fn start(dir: &Path) -> Self {
        // It demands folders that nobody else may write to.
        fs::create_dir_all("/run/sshd").expect("make sshd's folder");
        for name in ["host", "user"] {
            Run::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.join(name))
                .ok();
        }
        fs::copy(dir.join("user.pub"), dir.join("authorized")).expect("copy");
        let port = free_port();
        let bin = paths::hull();
        let bin = bin.parent().expect("a folder").display();
        let shown = dir.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nPidFile none\n\
             AuthorizedKeysFile {shown}/authorized\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nLogLevel ERROR\n\
             SetEnv PATH={bin}:/usr/bin:/bin\n"
        );
        fs::write(dir.join("sshd_config"), config).expect("write");
        let log = fs::File::create(dir.join("sshd.log")).expect("make a log");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("start sshd");
        eventually("sshd listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        // The user's ssh is as it is; ours goes through a stand-in that adds the key.
        let stand_in = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F none -i {shown}/user -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n"
        );
        fs::create_dir_all(dir.join("bin")).expect("mkdir");
        let program = dir.join("bin/ssh");
        fs::write(&program, stand_in).expect("write");
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        Self {
            child,
            dir: dir.to_owned(),
            port,
        }
    }

    fn url(&self, daemon: &Daemon) -> String {
        format!(
            "ssh://root@127.0.0.1:{}{}",
            self.port,
            daemon.socket().display()
        )
    }

    fn path(&self) -> String {
        format!("{}/bin:/usr/bin:/bin", self.dir.display())
    }
}

/// An image of busybox and these layers of a megabyte each.
fn image(daemon: &Daemon, tag: &str, layers: &[u8]) -> PathBuf {
    let mut image = Image::new(tag).busybox();
    for number in layers {
        let mut seed = u64::from(*number) + 1;
        let mut content = Vec::new();
        while content.len() < 1 << 20 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            content.extend_from_slice(&seed.to_le_bytes());
        }
        image = image.layer(Layer::new().file(&format!("data{number}"), 0o644, &content));
    }
    let path = daemon
        .scratch()
        .join(format!("{}.tar", tag.replace(':', "-")));
    image.write(&path);
    path
}

fn id(daemon: &Daemon, name: &str) -> String {
    daemon.ok(["image", "inspect", "--format", "{{.Id}}", name])
}

#[test]
fn copy_between_sockets_sends_only_what_is_missing() {
    let (from, to) = (
        Daemon::builder().bare().start(),
        Daemon::builder().bare().start(),
    );
    if from.is_docker() {
        return;
    }
    let target = format!("unix://{}", to.socket().display());
    from.load(&image(&from, "app:1", &[1, 2]));
    from.load(&image(&from, "app:2", &[1, 2, 3]));
    let out = from.ok(["image", "copy", "app:1", &target]);
    assert!(out.contains(": 3 of 3 layers"), "{out}");
    assert_eq!(id(&from, "app:1"), id(&to, "app:1"));
    let out = from.ok(["image", "copy", "app:2", &target]);
    assert!(out.contains(": 1 of 4 layers"), "{out}");
    // The one megabyte that is new, and little more.
    let sent = out.rsplit(", ").next().expect("a size");
    assert!(sent.starts_with("1.") && sent.contains("MB sent"), "{out}");
    assert_eq!(id(&from, "app:2"), id(&to, "app:2"));
    let out = from.ok(["image", "copy", "app:1", "app:2", &target]);
    assert!(out.contains(": 0 of 4 layers"), "{out}");
    assert_eq!(
        to.ok(["run", "--rm", "app:2", "sh", "-c", "ls /data*"]),
        "/data1\n/data2\n/data3"
    );

    // Both ways: what one has is what the other gets.
    to.ok([
        "image",
        "copy",
        "-q",
        "app:2",
        &format!("unix://{}", from.socket().display()),
    ]);
    from.hull(["image", "copy", "none:1", &target])
        .fails_saying(1, "No such image");
    from.hull(["image", "copy", "app:1", "unix:///nowhere/at.all"])
        .fails_saying(1, "Cannot connect");
    from.hull(["image", "copy", "app:1", "tcp://127.0.0.1:1"])
        .fails_saying(125, "unable to parse host");
}

#[test]
fn archive_with_layers_missing_is_refused_unless_it_says_so() {
    let (from, to) = (
        Daemon::builder().bare().start(),
        Daemon::builder().bare().start(),
    );
    if from.is_docker() {
        return;
    }
    from.load(&image(&from, "app:1", &[1]));
    let layers = from.ok([
        "image",
        "inspect",
        "--format",
        "{{json .RootFS.Layers}}",
        "app:1",
    ]);
    let layers: Vec<String> = serde_json::from_str(&layers).expect("JSON");
    let part = from.scratch().join("part.tar");
    let fetch = |socket: &Path, path: &str, more: &[&str]| {
        Run::new("curl")
            .args(["-sS", "--unix-socket", &socket.display().to_string()])
            .args(more)
            .arg(format!("http://hull{path}"))
            .ok()
    };
    fetch(
        &from.socket(),
        &format!("/images/get?names=app:1&without={}", layers[0]),
        &["-o", &part.display().to_string()],
    );
    let data = format!("@{}", part.display());
    let load = |path: &str| fetch(&to.socket(), path, &["-X", "POST", "--data-binary", &data]);
    // Whole or partial, what is nowhere cannot be had.
    for path in ["/images/load", "/images/load?partial=1"] {
        let out = load(path);
        assert!(out.contains("missing"), "{path}: {out}");
    }
    // With the layer there, only an archive that is said to be partial may name it.
    to.load(&image(&to, "base:1", &[]));
    let out = load("/images/load");
    assert!(out.contains("missing"), "{out}");
    let out = load("/images/load?partial=1");
    assert!(out.contains("Loaded image: app:1"), "{out}");
}

#[test]
fn ssh_leads_to_an_engine_for_every_command() {
    let (from, to) = (Daemon::builder().bare().start(), Daemon::new());
    if from.is_docker() {
        return;
    }
    let sshd = Sshd::start(&from.scratch());
    let url = sshd.url(&to);
    from.load(&image(&from, "app:1", &[1]));
    let out = from
        .cli(["image", "copy", "app:1", &url])
        .env("PATH", sshd.path())
        .ok();
    assert!(out.contains(": 1 of 2 layers"), "busybox is there: {out}");
    assert_eq!(id(&from, "app:1"), id(&to, "app:1"));

    let remote = |args: &[&str]| from.cli(["-H", &url]).args(args).env("PATH", sshd.path());
    assert_eq!(remote(&["images", "-q", "app"]).ok().len(), 12);
    // A connection taken over, with input whose end counts.
    let out = remote(&["run", "--rm", "-i", "busybox", "wc", "-c"])
        .input("12345")
        .ok();
    assert_eq!(out, "5");
    remote(&["run", "--rm", "busybox", "sh", "-c", "exit 7"])
        .run()
        .fails(7);
    let by_variable = from
        .cli(["ps", "-aq"])
        .env("HULL_HOST", &url)
        .env("PATH", sshd.path())
        .ok();
    assert_eq!(by_variable, "");

    // Where nobody answers, the way is named.
    let nowhere = format!("ssh://root@127.0.0.1:{}/nowhere/at.all", sshd.port);
    let out = from
        .cli(["-H", &nowhere, "ps"])
        .env("PATH", sshd.path())
        .run();
    out.fails_saying(1, "cannot reach the engine");
    assert!(out.stderr.contains("/nowhere/at.all"), "{}", out.stderr);
    let out = from
        .cli(["-H", "ssh://root@127.0.0.1:1", "ps"])
        .env("PATH", sshd.path())
        .run();
    out.fails_saying(1, "cannot reach the engine");
    from.hull(["-H", "ssh://-oProxyCommand=touch", "ps"])
        .fails_saying(125, "unable to parse host");
    remote(&["daemon", "stop"])
        .run()
        .fails_saying(1, "another host");
}

#[test]
fn dial_stdio_passes_both_directions_on() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let mut child = Command::new(paths::hull())
        .args(["system", "dial-stdio"])
        .envs(daemon.env().iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start dial-stdio");
    let mut input = child.stdin.take().expect("its input");
    let mut output = child.stdout.take().expect("its output");
    // The input stays open while the answer is awaited, as ssh's does.
    input
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("write a request");
    let mut answer = String::new();
    output.read_to_string(&mut answer).expect("read the answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"),
        "{answer}"
    );
    // It ends with the connection, though its input is open.
    assert!(child.wait().expect("wait").success());
    drop(input);
}
