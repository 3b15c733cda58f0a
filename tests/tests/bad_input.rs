//! Bad input: a clear message, Docker's exit code, and nothing broken by it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, Run, http};
use serde_json::json;

fn load_bytes(daemon: &Daemon, bytes: Vec<u8>) -> hull_testkit::Output {
    daemon
        .cli(["load"])
        .input(bytes)
        .limit(Duration::from_secs(120))
        .run()
}

#[test]
fn references_malformed_are_refused() {
    let daemon = Daemon::new();
    for name in [
        "UPPER/case",
        "a//b",
        "name:tag:tag",
        "-dash",
        "name@sha256:short",
        "name:",
        "a b",
        "../up",
        "name:-x",
    ] {
        let out = daemon.hull(["run", "--rm", "--pull", "never", "--", name, "true"]);
        assert_eq!(out.code, 125, "{name}: {}", out.stderr);
        assert!(
            out.stderr
                .to_lowercase()
                .contains("invalid reference format")
                || out.stderr.contains("repository name"),
            "{name}: {}",
            out.stderr
        );
    }
    let long = "a".repeat(300);
    daemon
        .hull(["run", "--rm", "--pull", "never", &long, "true"])
        .fails(125);
}

#[test]
fn flags_malformed_are_refused() {
    let daemon = Daemon::new();
    for flags in [
        ["-e", "=x"],
        ["--restart", "sometimes"],
        ["--network", ""],
        ["-m", "-1x"],
        ["--cpus", "many"],
        ["--ulimit", "nofile"],
        ["--log-opt", "max-size"],
        ["--pull", "perhaps"],
        ["--isolation", "nonsense"],
        ["--platform", "a/b/c/d/e"],
        ["--health-interval", "soon"],
        ["--stop-timeout", "x"],
        ["--pids-limit", "x"],
        ["--env-file", "/no/such"],
        ["--tmpfs", "relative"],
        ["--sysctl", "nonsense"],
        ["--userns", "nonsense"],
    ] {
        let out = daemon.hull(["run", "--rm", flags[0], flags[1], "busybox", "true"]);
        assert!(
            out.code == 125 || (daemon.is_docker() && out.code != 0) || flags[0] == "--network",
            "{flags:?}: {} {}",
            out.code,
            out.stderr
        );
        assert!(
            !out.stderr.contains("panicked"),
            "{flags:?}: {}",
            out.stderr
        );
    }
    daemon.hull(["nosuchcommand"]).fails(1);
    daemon.hull(["ps", "--nosuchflag"]).fails(125);
    daemon.hull(["ps", "--filter", "nosuch=x"]).fails(1);
    daemon.hull(["ps", "--format", "{{.Nonsense}}"]).fails(1);
    daemon.hull(["ps", "--format", "{{"]).fails(1);
}

#[test]
fn isolation_without_a_guest_kernel_says_what_to_do_and_an_unknown_one_is_refused() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon
        .hull(["run", "--rm", "--isolation", "vm", "busybox", "true"])
        .fails_saying(125, "hull kernel install");
    daemon
        .hull(["run", "--rm", "--isolation", "hyperv", "busybox", "true"])
        .fails_saying(125, "use container or vm");
    assert_eq!(
        daemon.ok([
            "run",
            "--rm",
            "--isolation",
            "container",
            "busybox",
            "echo",
            "ok"
        ]),
        "ok"
    );
}

#[test]
fn mounts_over_proc_and_root_are_refused() {
    let daemon = Daemon::new();
    let dir = daemon.scratch().to_string_lossy().into_owned();
    for target in ["/proc", "/proc/sys", "/"] {
        let out = daemon.hull([
            "run",
            "--rm",
            "-v",
            &format!("{dir}:{target}"),
            "busybox",
            "true",
        ]);
        assert_ne!(out.code, 0, "{target}");
        assert!(!out.stderr.is_empty());
    }
}

#[test]
fn archives_corrupt_and_truncated_are_refused_and_leave_nothing() {
    let daemon = Daemon::builder().bare().start();
    let whole = Image::new("whole:1").busybox().docker_archive();
    let cuts = [
        0,
        1,
        100,
        511,
        512,
        1024,
        whole.len() / 2,
        whole.len() - 2000,
    ];
    for cut in cuts {
        let out = load_bytes(&daemon, whole.get(..cut).expect("a part").to_vec());
        assert_ne!(out.code, 0, "cut at {cut}: {}", out.stdout);
        assert!(!out.stderr.is_empty(), "cut at {cut}");
    }
    let mut noise = whole.clone();
    for byte in noise.iter_mut().skip(1000).step_by(997) {
        *byte ^= 0x55;
    }
    assert_ne!(load_bytes(&daemon, noise).code, 0);
    assert_ne!(
        load_bytes(&daemon, b"this is no archive at all".to_vec()).code,
        0
    );
    assert_ne!(
        load_bytes(&daemon, Layer::new().file("x", 0o644, b"y").finish()).code,
        0
    );
    // A gzip stream with a broken end.
    let path = daemon.scratch().join("whole.tar");
    fs::write(&path, &whole).expect("write");
    Run::new("gzip").arg(&path).ok();
    let mut packed = fs::read(daemon.scratch().join("whole.tar.gz")).expect("read");
    packed.truncate(packed.len() - 100);
    assert_ne!(load_bytes(&daemon, packed).code, 0);
    assert_eq!(daemon.hull(["images", "-q", "whole"]).stdout, "");
    assert_eq!(load_bytes(&daemon, whole).code, 0, "the whole one loads");
}

#[test]
fn archive_with_wrong_digest_is_refused() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let good = Layer::new()
        .file("x", 0o644, b"the content that was meant")
        .finish();
    let text = String::from_utf8_lossy(&Image::new("wrong:1").raw_layer(good).docker_archive())
        .into_owned();
    let bad = text.replace("the content that was meant", "the content of an attacker");
    let out = load_bytes(&daemon, bad.into_bytes());
    out.fails_saying(1, "digest");
    let oci = String::from_utf8_lossy(
        &Image::new("wrong:1")
            .raw_layer(
                Layer::new()
                    .file("x", 0o644, b"the content that was meant")
                    .finish(),
            )
            .oci_layout(),
    )
    .into_owned();
    let bad = oci.replace("the content that was meant", "the content of an attacker");
    load_bytes(&daemon, bad.into_bytes()).fails_saying(1, "digest");
}

#[test]
fn layers_that_reach_out_of_the_root_are_refused_or_kept_in() {
    let daemon = Daemon::new();
    let scratch = daemon.scratch();
    let victim = scratch.join("victim");
    fs::write(&victim, "untouched").expect("write");
    let outside = scratch.to_string_lossy().into_owned();
    let up = "../".repeat(20);
    let layers: Vec<(&str, Layer)> = vec![
        (
            "dot-dot file",
            Layer::new().file(&format!("{up}tmp/hull-evil-1"), 0o644, b"evil"),
        ),
        (
            "absolute file",
            Layer::new().file("/tmp/hull-evil-2", 0o644, b"evil"),
        ),
        (
            "symlink then file",
            Layer::new()
                .symlink("out", &outside)
                .file("out/victim", 0o644, b"evil"),
        ),
        (
            "symlink up then file",
            Layer::new()
                .symlink("up", &format!("{up}tmp"))
                .file("up/hull-evil-3", 0o644, b"evil"),
        ),
        (
            "hard link to host",
            Layer::new().hardlink("stolen", &victim.to_string_lossy()),
        ),
        (
            "hard link up",
            Layer::new().hardlink("stolen", &format!("{up}etc/shadow")),
        ),
        (
            "symlink then hard link",
            Layer::new()
                .symlink("etc2", "/etc")
                .hardlink("stolen", "etc2/shadow"),
        ),
        (
            "symlink then whiteout",
            Layer::new()
                .symlink("out", &outside)
                .file("out/.wh.victim", 0o644, b""),
        ),
        (
            "whiteout of dot-dot",
            Layer::new().file(".wh...", 0o644, b""),
        ),
        ("whiteout of dot", Layer::new().file(".wh..", 0o644, b"")),
        (
            "symlink then dir",
            Layer::new()
                .symlink("out", &outside)
                .dir("out/made/", 0o777),
        ),
    ];
    for (number, (what, layer)) in layers.into_iter().enumerate() {
        let tag = format!("evil:{number}");
        let out = load_bytes(
            &daemon,
            Image::new(&tag).busybox().layer(layer).docker_archive(),
        );
        // Either the archive is refused, or its entry landed inside of the image's root.
        if out.code == 0 {
            let _ = daemon.hull(["run", "--rm", &tag, "true"]);
        } else {
            assert!(!out.stderr.is_empty(), "{what}");
        }
        assert_eq!(
            fs::read_to_string(&victim).expect("read"),
            "untouched",
            "{what}"
        );
        assert!(!scratch.join("made").exists(), "{what}");
        for evil in ["/tmp/hull-evil-1", "/tmp/hull-evil-2", "/tmp/hull-evil-3"] {
            assert!(!Path::new(evil).exists(), "{what} wrote {evil}");
        }
        let stolen = daemon.hull(["run", "--rm", &tag, "cat", "/stolen"]);
        assert!(
            !stolen.stdout.contains("root:") && !stolen.stdout.contains("untouched"),
            "{what}: {}",
            stolen.stdout
        );
    }
}

#[test]
fn bombs_are_bounded() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    // A manifest that names 100,000 layers.
    let names: Vec<String> = (0..100_000).map(|_| "l.tar".to_owned()).collect();
    let diff_ids: Vec<String> = (0..100_000)
        .map(|_| format!("sha256:{}", "0".repeat(64)))
        .collect();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}, "config": {}}).to_string();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["bomb:1"], "Layers": names}]).to_string();
    let archive = Layer::new()
        .file(
            "l.tar",
            0o644,
            &Layer::new().file("x", 0o644, b"x").finish(),
        )
        .file("c.json", 0o644, config.as_bytes())
        .file("manifest.json", 0o644, manifest.as_bytes())
        .finish();
    let out = load_bytes(&daemon, archive);
    assert_eq!(out.code, 1, "{}", out.stdout);
    assert!(out.elapsed < Duration::from_secs(20), "{:?}", out.elapsed);
    assert!(
        out.stderr.to_lowercase().contains("layers") || out.stderr.contains("MAX"),
        "{}",
        out.stderr
    );

    // Ten gigabytes of zeros in a layer, packed to almost nothing.
    let mut header = tar_header("zeros", 10 << 30);
    let layer_size = header.len() as u64 + (10 << 30) + 1024;
    let mut start = tar_header("layer.tar", layer_size);
    start.append(&mut header);
    let path = daemon.scratch().join("zeros.tar.zst");
    let mut zstd = std::process::Command::new("zstd")
        .args(["-q", "-1", "-T2", "-o"])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("zstd is installed");
    let mut pipe = zstd.stdin.take().expect("a pipe");
    pipe.write_all(&start).expect("write");
    let zeros = vec![0_u8; 1 << 20];
    for _ in 0..10 << 10 {
        pipe.write_all(&zeros).expect("write");
    }
    drop(pipe);
    assert!(zstd.wait().expect("wait").success());
    let out = daemon
        .cli(["load", "-i", &path.to_string_lossy()])
        .limit(Duration::from_secs(120))
        .run();
    assert_eq!(out.code, 1, "{}", out.stdout);
    assert!(
        out.stderr.contains("max_") || out.stderr.contains("bomb"),
        "{}",
        out.stderr
    );
    let used = Run::new("du")
        .args(["-s", "-B1"])
        .arg(daemon.data_dir())
        .ok();
    let used: u64 = used
        .split('\t')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!(
        used < 50_000_000,
        "{used} bytes are left in the data folder"
    );
}

fn tar_header(name: &str, size: u64) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut put = |at: usize, text: &[u8]| {
        header
            .iter_mut()
            .skip(at)
            .zip(text)
            .for_each(|(to, from)| *to = *from)
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    // Sizes beyond eight gigabytes stand in base 256.
    let mut number = [0_u8; 12];
    number
        .iter_mut()
        .rev()
        .zip(size.to_le_bytes())
        .for_each(|(to, from)| *to = from);
    if let Some(first) = number.first_mut() {
        *first = 0x80;
    }
    put(124, &number);
    put(136, b"14524770400\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    let text = format!("{sum:06o}\0 ");
    header
        .iter_mut()
        .skip(148)
        .zip(text.bytes())
        .for_each(|(to, from)| *to = from);
    header
}

#[test]
fn api_broken_requests_get_an_answer_and_hurt_nobody() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        // Docker 20.10 answers 500 to some of these.
        return;
    }
    let socket = daemon.socket();
    // Wrong type, broken JSON, unknown paths and methods.
    let post = |path: &str, body: &str| daemon.api("POST", path, Some(body)).status;
    assert_eq!(post("/v1.41/containers/create", "{\"Image\": 5}"), 400);
    assert_eq!(post("/v1.41/containers/create", "{"), 400);
    assert_eq!(post("/v1.41/containers/create", "[]"), 400);
    assert_eq!(post("/v1.41/containers/create", "\"text\""), 400);
    assert_eq!(
        post("/v1.41/containers/create", "{\"Image\": \"nosuchimage\"}"),
        404
    );
    assert_eq!(
        daemon
            .api("GET", "/v1.41/containers/nosuch/json", None)
            .status,
        404
    );
    assert_eq!(daemon.api("GET", "/v1.41/no/such/path", None).status, 404);
    assert_eq!(
        daemon
            .api("GET", "/v1.41/containers/json?filters=nonsense", None)
            .status,
        400
    );
    assert_eq!(
        daemon
            .api("GET", "/v1.41/containers/json?all=maybe&limit=x", None)
            .status,
        400
    );
    let answer = daemon.api("GET", "/v99.99/version", None);
    assert_eq!(answer.status, 400);
    assert!(
        answer.json()["message"]
            .as_str()
            .is_some_and(|text| text.contains("too new")),
        "{}",
        answer.body
    );
    let error = daemon.api("GET", "/v1.41/containers/nosuch/json", None);
    assert!(error.json()["message"].is_string());
    // Oversized body and headers.
    let huge = format!("{{\"Image\": \"{}\"}}", "x".repeat(20 << 20));
    let status = post("/v1.41/containers/create", &huge);
    assert!(
        [400, 413].contains(&status) || (daemon.is_docker() && status != 500),
        "{status}"
    );
    let head = format!(
        "GET /_ping HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "y".repeat(4 << 20)
    );
    let status = http::raw(&socket, head.as_bytes()).status;
    assert!(status == 0 || (400..500).contains(&status), "{status}");
    let path = format!("/v1.41/containers/{}/json", "z".repeat(100_000));
    let status = daemon.api("GET", &path, None).status;
    assert!(status == 0 || (400..500).contains(&status), "{status}");
    // Truncated and nonsensical bytes.
    for bytes in [
        &b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"Image\""[..],
        b"\x00\x01\x02\xff\xfe",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1.41/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ] {
        let status = http::raw(&socket, bytes).status;
        assert!(status == 0 || (400..600).contains(&status), "{status} for {bytes:?}");
    }
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "echo", "alive"]),
        "alive"
    );
}

#[test]
fn api_idle_connections_do_not_block_others() {
    let daemon = Daemon::new();
    let idle: Vec<_> = (0..200)
        .map(|_| {
            let mut stream =
                std::os::unix::net::UnixStream::connect(daemon.socket()).expect("connect");
            stream.write_all(b"GET /_ping HTTP/1.1\r\n").expect("write");
            stream
        })
        .collect();
    assert_eq!(
        daemon.ok(["run", "--rm", "busybox", "echo", "alive"]),
        "alive"
    );
    drop(idle);
}

#[test]
fn commands_on_missing_objects_fail_clearly() {
    let daemon = Daemon::new();
    for verb in [
        "start", "stop", "restart", "kill", "rm", "pause", "unpause", "wait", "logs", "top",
        "port", "attach", "export",
    ] {
        let out = daemon.hull([verb, "nosuch"]);
        out.fails_saying(1, "nosuch");
    }
    daemon
        .hull(["inspect", "nosuch"])
        .fails_saying(1, "no such");
    daemon
        .hull(["rename", "nosuch", "other"])
        .fails_saying(1, "nosuch");
    daemon
        .hull(["run", "--rm", "--volumes-from", "nosuch", "busybox", "true"])
        .fails(125);
}
