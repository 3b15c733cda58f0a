//! Pull, push and login against Debian's docker-registry, with skopeo as the other side, and
//! through a proxy that breaks things.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, DaemonBuilder, Run, fixtures};
use hull_tests::registry::{Fault, Kind, Proxy, Registry};

/// A daemon whose credentials are kept apart from the user's.
fn daemon(builder: DaemonBuilder) -> (Daemon, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("home");
    let daemon = builder
        .env("DOCKER_CONFIG", &home.path().display().to_string())
        .start();
    (daemon, home)
}

/// An image of several layers, one of them large and hard to compress.
fn large(daemon: &Daemon, layers: usize, bytes: usize) -> PathBuf {
    let mut image = Image::new("big:1").busybox();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..layers {
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            content.extend_from_slice(&seed.to_le_bytes());
        }
        image = image.layer(Layer::new().file(&format!("data/{number}"), 0o644, &content));
    }
    let path = daemon.scratch().join("big.tar");
    image.write(&path);
    path
}

/// Names of what the store has besides its base.
fn leftovers(daemon: &Daemon) -> Vec<String> {
    fs::read_dir(daemon.data_dir().join("image/tmp"))
        .expect("read tmp")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

#[test]
fn pull_of_both_families_runs_and_has_the_registrys_digest() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    for format in ["oci", "v2s2"] {
        let name = format!("lib/box:{format}");
        registry.put(&fixtures::busybox(), &name, format);
        let full = format!("{}/{name}", registry.host);
        let out = daemon.ok(["pull", &full]);
        let digest = registry.inspect(&name, "{{.Digest}}");
        assert!(out.contains(&format!("Digest: {digest}")), "{out}");
        assert_eq!(daemon.ok(["run", "--rm", &full, "echo", "ok"]), "ok");
        let known = daemon.ok([
            "image",
            "inspect",
            "--format",
            "{{json .RepoDigests}}",
            &full,
        ]);
        assert!(known.contains(&digest), "{known}");
        let by_digest = format!("{}/lib/box@{digest}", registry.host);
        let out = daemon.ok(["pull", &by_digest]);
        assert!(out.contains("up to date"), "{out}");
    }
    let out = daemon.hull(["pull", &format!("{}/lib/none:1", registry.host)]);
    out.fails_saying(1, "lib/none:1 is not in the registry");
    let out = daemon.hull([
        "pull",
        "--platform",
        "linux/s390x",
        &format!("{}/lib/none:2", registry.host),
    ]);
    out.fails_saying(1, "not in the registry");
}

#[test]
fn run_of_a_missing_image_pulls_it() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&fixtures::busybox(), "box:1", "oci");
    let full = format!("{}/box:1", registry.host);
    let out = daemon.hull(["run", "--rm", &full, "echo", "ok"]);
    assert_eq!((out.code, out.stdout.as_str()), (0, "ok\n"));
    assert!(
        out.stderr.contains("Unable to find image"),
        "{}",
        out.stderr
    );
    daemon
        .hull([
            "run",
            "--rm",
            "--pull",
            "never",
            &format!("{}/box:2", registry.host),
            "true",
        ])
        .fails(125);
}

#[test]
fn push_is_what_skopeo_reads_and_what_is_there_is_not_sent() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    let name = format!("{}/a/box:1", registry.host);
    daemon.ok(["tag", "busybox", &name]);
    let first = daemon.ok(["push", &name]);
    assert!(first.contains("Pushed"), "{first}");
    let digest = registry.inspect("a/box:1", "{{.Digest}}");
    assert!(
        first.contains(&format!("1: digest: {digest} size: ")),
        "{first}"
    );

    let dir = daemon.scratch().join("copy");
    Run::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &format!("oci:{}:x", dir.display()),
        ])
        .ok();
    let archive = daemon.scratch().join("copy.tar");
    fixtures::tar_of(&dir, &archive);
    let id = daemon.ok(["image", "inspect", "--format", "{{.Id}}", "busybox"]);
    daemon.ok(["rmi", "-f", id.trim()]);
    daemon.load(&archive);
    let again = daemon.ok(["images", "-aq", "--no-trunc"]);
    assert_eq!(again.trim(), id.trim(), "the same image comes back");

    daemon.ok(["tag", id.trim(), &name]);
    let second = daemon.ok(["push", &name]);
    assert!(second.contains(&digest), "same digest: {second}");
}

#[test]
fn push_of_a_pulled_image_keeps_its_digest_and_mounts_its_layers() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&fixtures::busybox(), "from/box:1", "v2s2");
    let (from, to) = (
        format!("{}/from/box:1", registry.host),
        format!("{}/to/box:1", registry.host),
    );
    daemon.ok(["pull", "-q", &from]);
    daemon.ok(["tag", &from, &to]);
    let out = daemon.ok(["push", &to]);
    assert!(out.contains("Mounted from from/box"), "{out}");
    let digest = |name| registry.inspect(name, "{{.Digest}}");
    assert_eq!(digest("to/box:1"), digest("from/box:1"));
    let out = daemon.ok(["push", &to]);
    assert!(out.contains("Layer already exists"), "{out}");
}

#[test]
fn tls_needs_the_authority_and_certs_dir_gives_it() {
    let scratch = tempfile::tempdir().expect("dir");
    let registry = Registry::start(&scratch.path().join("registry"), Kind::Tls);
    // By another name of the same address, which is not insecure by itself.
    let certs = scratch.path().join("certs.d");
    let own = certs.join(registry.host.as_str());
    fs::create_dir_all(&own).expect("mkdir");
    let toml = |more: &str| {
        let text = format!("server = \"https://{}\"\n{more}", registry.host);
        fs::write(own.join("hosts.toml"), text).expect("write");
    };
    toml("");
    let certs_dir = certs.display().to_string();
    let (daemon, _home) = daemon(Daemon::builder().arg("--certs-dir").arg(certs_dir));
    if daemon.is_docker() {
        return;
    }
    let name = format!("{}/box:1", registry.host);
    daemon.ok(["tag", "busybox", &name]);
    daemon.hull(["push", &name]).fails_saying(1, "certificate");
    fs::copy(registry.dir().join("ca.crt"), own.join("ca.crt")).expect("copy");
    toml("ca = \"ca.crt\"\n");
    daemon.ok(["push", &name]);
    daemon.ok(["rmi", "-f", &name]);
    daemon.ok(["pull", "-q", &name]);
    assert_eq!(daemon.ok(["run", "--rm", &name, "echo", "ok"]), "ok");
}

#[test]
fn mirror_answers_for_its_registry_and_the_registry_where_it_does_not() {
    let scratch = tempfile::tempdir().expect("dir");
    let registry = Registry::start(&scratch.path().join("registry"), Kind::Plain);
    registry.put(&fixtures::busybox(), "library/box:1", "oci");
    let certs = scratch.path().join("certs.d/images.invalid");
    fs::create_dir_all(&certs).expect("mkdir");
    let text = format!(
        "server = \"http://{host}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{host}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        host = registry.host
    );
    fs::write(certs.join("hosts.toml"), text).expect("write");
    let certs_dir = scratch.path().join("certs.d").display().to_string();
    let (daemon, _home) = daemon(Daemon::builder().bare().arg("--certs-dir").arg(certs_dir));
    if daemon.is_docker() {
        return;
    }
    let name = "images.invalid/library/box:1";
    daemon.ok(["pull", "-q", name]);
    assert_eq!(daemon.ok(["run", "--rm", name, "echo", "ok"]), "ok");
}

#[test]
fn login_keeps_good_credentials_alone_and_logout_forgets_them() {
    let (daemon, home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Password);
    let name = format!("{}/box:1", registry.host);
    daemon.ok(["tag", "busybox", &name]);
    daemon
        .hull(["push", &name])
        .fails_saying(1, "denied access");
    let login = |password: &str| {
        daemon
            .cli(["login", "-u", "user", "--password-stdin", &registry.host])
            .input(format!("{password}\n"))
            .run()
    };
    login("wrong").fails_saying(1, "denied");
    assert!(!home.path().join("config.json").exists());
    let out = login("secret").ok();
    assert!(out.contains("Login Succeeded"), "{out}");
    daemon.ok(["push", &name]);
    daemon.ok(["rmi", "-f", &name]);
    daemon.ok(["pull", "-q", &name]);
    let out = daemon.ok(["logout", &registry.host]);
    assert!(out.contains("Removing login credentials"), "{out}");
    daemon
        .hull(["push", &name])
        .fails_saying(1, "denied access");
}

#[test]
fn download_cut_at_every_tenth_is_resumed_and_not_begun_anew() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    const SIZE: usize = 4 << 20;
    registry.put(&large(&daemon, 1, SIZE), "big:1", "oci");
    let manifest = registry.inspect("big:1", "{{index .Layers 1}}");
    let about: &'static str = Box::leak(format!("GET /v2/big/blobs/{manifest}").into_boxed_str());
    let proxy = Proxy::start(&registry, about, vec![Fault::Cut(SIZE / 10); 9]);
    let name = format!("{}/big:1", proxy.host);
    daemon
        .cli(["pull", "-q", &name])
        .limit(Duration::from_secs(60))
        .ok();
    let ranges: Vec<String> = proxy
        .requests()
        .into_iter()
        .filter(|line| line.contains(about))
        .collect();
    assert!(ranges.len() >= 10, "{ranges:?}");
    for (number, line) in ranges.iter().enumerate().skip(1) {
        let begin = format!("bytes={}-", number * (SIZE / 10));
        assert!(line.contains(&begin), "{number}: {line}");
    }
    daemon.ok(["run", "--rm", &name, "test", "-s", "/data/0"]);
}

#[test]
fn busy_registry_is_asked_again_and_a_lost_one_named() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&fixtures::busybox(), "box:1", "oci");
    let busy =
        Fault::Say("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
    let broken = Fault::Say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(&registry, "GET /v2/box/", vec![busy, broken]);
    daemon.ok(["pull", "-q", &format!("{}/box:1", proxy.host)]);

    let loops = Fault::Say(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/box/manifests/1\r\nContent-Length: 0\r\n\r\n",
    );
    let proxy = Proxy::start(&registry, "GET /v2/box/manifests", vec![loops; 50]);
    let out = daemon.hull(["pull", &format!("{}/box:1", proxy.host)]);
    out.fails_saying(1, "redirect");
}

#[test]
fn damaged_and_wrongly_sized_layers_are_refused_and_leave_nothing() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&large(&daemon, 1, 1 << 20), "big:1", "oci");
    let digest = registry.inspect("big:1", "{{index .Layers 1}}");
    let file = registry.blob(&digest);
    let whole = fs::read(&file).expect("read the blob");
    let name = format!("{}/big:1", registry.host);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [
        flipped,
        whole[..whole.len() - 10].to_vec(),
        [whole.as_slice(), b"more"].concat(),
    ] {
        fs::write(&file, damaged).expect("damage the blob");
        let out = daemon.hull(["pull", &name]);
        assert_eq!(out.code, 1, "{}{}", out.stdout, out.stderr);
        assert_eq!(daemon.ok(["images", "-aq"]), "");
        assert_eq!(leftovers(&daemon), Vec::<String>::new());
    }
    fs::write(&file, whole).expect("repair the blob");
    daemon.ok(["pull", "-q", &name]);
}

#[test]
fn two_pulls_at_once_fetch_each_layer_once() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    let archive = large(&daemon, 3, 2 << 20);
    registry.put(&archive, "one:1", "oci");
    registry.put(&archive, "two:1", "oci");
    let proxy = Proxy::start(&registry, "nothing", Vec::new());
    let pulls = ["one", "two"].map(|name| {
        daemon
            .cli(["pull", "-q", &format!("{}/{name}:1", proxy.host)])
            .spawn()
    });
    for pull in pulls {
        pull.finish().ok();
    }
    let blobs = proxy
        .requests()
        .iter()
        .filter(|line| line.starts_with("GET") && line.contains("/blobs/"))
        .count();
    // Four layers once, and the configuration by either.
    assert!(blobs <= 6, "{blobs}: {:#?}", proxy.requests());
}

#[test]
fn daemon_killed_in_the_middle_of_pulls_completes_the_next_one() {
    let (mut daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&large(&daemon, 6, 1 << 20), "big:1", "oci");
    let name = format!("{}/big:1", registry.host);
    for round in 0..30u64 {
        let pull = daemon.cli(["pull", "-q", &name]).spawn();
        std::thread::sleep(Duration::from_millis(round * 7 % 90));
        daemon.kill();
        let _ = pull.finish();
        daemon.start();
        daemon.ok(["pull", "-q", &name]);
        assert_eq!(
            daemon.ok(["run", "--rm", &name, "sh", "-c", "ls /data | wc -l"]),
            "6"
        );
        daemon.ok(["rmi", "-f", &name]);
    }
    assert_eq!(daemon.ok(["images", "-aq"]), "");
    let layers = fs::read_dir(daemon.data_dir().join("image/layers")).expect("read layers");
    assert_eq!(layers.count(), 0);
}
