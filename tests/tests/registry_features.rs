//! What a registry has beyond one image for one platform: indexes, artifacts, referrers, tags,
//! search; and the ways to it: a default registry, proxies, HTTP/2, client certificates.

use std::fs;
use std::path::Path;

use hull_testkit::{Daemon, DaemonBuilder, Run};
use hull_tests::documents::{Documents, media};
use hull_tests::forward::Forward;
use hull_tests::registry::{Fault, Kind, Proxy, Registry};
use serde_json::Value;

/// A daemon whose credentials are kept apart from the user's.
fn daemon(builder: DaemonBuilder) -> (Daemon, tempfile::TempDir) {
    let home = tempfile::tempdir().expect("home");
    let daemon = builder
        .env("DOCKER_CONFIG", &home.path().display().to_string())
        .start();
    (daemon, home)
}

fn registry(daemon: &Daemon) -> Registry {
    Registry::start(&daemon.scratch().join("registry"), Kind::Plain)
}

fn documents(daemon: &Daemon, registry: &Registry, repository: &str) -> Documents {
    Documents::new(registry, repository, &daemon.scratch().join("documents"))
}

fn image(daemon: &Daemon, name: &str) -> Value {
    let text = daemon.ok(["image", "inspect", name]);
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list[0].clone()
}

/// The digest that a registry gives a name, whatever is behind it.
fn digest_at(registry: &Registry, path: &str) -> String {
    let out = Run::new("curl")
        .args(["-sS", "--fail", "-I", "--noproxy", "*"])
        .args(["-H", &format!("Accept: {}", media::INDEX)])
        .args(["-H", &format!("Accept: {}", media::MANIFEST)])
        .args(["-H", &format!("Accept: {}", media::DOCKER_MANIFEST)])
        .arg(format!("http://{}/v2/{path}", registry.host))
        .ok();
    out.lines()
        .find_map(|line| line.strip_prefix("Docker-Content-Digest: "))
        .expect("a digest")
        .trim()
        .to_owned()
}

const PLATFORMS: [&str; 4] = [
    "linux/amd64",
    "linux/arm64/v8",
    "linux/arm/v6",
    "linux/arm/v7",
];

fn multi(daemon: &Daemon, registry: &Registry, repository: &str, tag: &str) -> Vec<Value> {
    let documents = documents(daemon, registry, repository);
    let entries: Vec<Value> = PLATFORMS
        .iter()
        .map(|platform| documents.image(None, platform, false))
        .collect();
    documents.index(tag, &entries);
    entries
}

#[test]
fn pull_of_all_platforms_keeps_the_index_and_push_gives_it_back() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    multi(&daemon, &registry, "lib/multi", "1");
    let name = format!("{}/lib/multi:1", registry.host);
    daemon.ok(["pull", "-q", &name]);
    let entries = image(&daemon, &name)["Manifests"].clone();
    let available = |entries: &Value| -> Vec<bool> {
        let entries = entries.as_array().expect("manifests");
        entries
            .iter()
            .map(|entry| entry["Available"].as_bool().expect("a truth"))
            .collect()
    };
    assert_eq!(available(&entries), [false; 4], "{entries}");

    let out = daemon.ok(["pull", "--all-platforms", &name]);
    let digest = digest_at(&registry, "lib/multi/manifests/1");
    assert!(out.contains(&format!("Digest: {digest}")), "{out}");
    let shown = image(&daemon, &name);
    assert_eq!(available(&shown["Manifests"]), [true; 4], "{shown}");
    assert_eq!(shown["Descriptor"]["digest"], digest.as_str());
    assert_eq!(
        daemon.ok(["run", "--rm", &name, "cat", "/platform"]),
        "linux/amd64"
    );

    // To another registry, where nothing is.
    let second = Registry::start(&daemon.scratch().join("second"), Kind::Plain);
    let copy = format!("{}/copy/multi:2", second.host);
    daemon.ok(["tag", &name, &copy]);
    let out = daemon.ok(["push", &copy]);
    assert!(out.contains(&digest), "{out}");
    assert_eq!(digest_at(&second, "copy/multi/manifests/2"), digest);
    // skopeo takes all of it.
    let dir = daemon.scratch().join("all");
    let skopeo = [
        "--insecure-policy",
        "copy",
        "--all",
        "--preserve-digests",
        "--src-tls-verify=false",
    ];
    Run::new("skopeo")
        .args(skopeo)
        .args([
            &format!("docker://{copy}"),
            &format!("oci:{}:x", dir.display()),
        ])
        .ok();
    let index = fs::read_to_string(dir.join("index.json")).expect("read");
    assert!(index.contains(&digest), "{index}");

    // One platform of it.
    let one = format!("{}/copy/multi:arm", second.host);
    daemon.ok(["tag", &name, &one]);
    daemon.ok(["push", "--platform", "linux/arm/v7", &one]);
    let entries: Value = shown["Manifests"].clone();
    assert_eq!(
        digest_at(&second, "copy/multi/manifests/arm"),
        entries[3]["Descriptor"]["digest"].as_str().expect("digest")
    );
    daemon
        .hull(["push", "--platform", "linux/s390x", &one])
        .fails_saying(1, "does not provide the specified platform");

    // Saved with all that it has.
    let archive = daemon.scratch().join("multi.tar");
    daemon.ok(["save", "-o", &archive.display().to_string(), &name]);
    let out = daemon.scratch().join("saved");
    Run::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--preserve-digests"])
        .args([
            &format!("oci-archive:{}", archive.display()),
            &format!("oci:{}:x", out.display()),
        ])
        .ok();
    let index = fs::read_to_string(out.join("index.json")).expect("read");
    assert!(index.contains(&digest), "{index}");

    // Nothing stays of it.
    for name in [&name, &copy, &one] {
        daemon.ok(["rmi", name]);
    }
    assert_eq!(daemon.ok(["images", "-aq"]), "");
    assert_eq!(blobs(&daemon), 0);

    // And the archive brings all of it back.
    let out = daemon.load(&archive);
    assert_eq!(out, format!("Loaded image: {name}"));
    assert_eq!(
        image(&daemon, &name)["Descriptor"]["digest"],
        digest.as_str()
    );
    assert_eq!(available(&image(&daemon, &name)["Manifests"]), [true; 4]);
    assert_eq!(
        daemon.ok(["run", "--rm", &name, "cat", "/platform"]),
        "linux/amd64"
    );
}

/// Blobs kept as they came.
fn blobs(daemon: &Daemon) -> usize {
    fs::read_dir(daemon.data_dir().join("image/content/blobs/sha256"))
        .expect("read the blobs")
        .count()
}

#[test]
fn platform_takes_the_best_variant() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    let entries = multi(&daemon, &registry, "lib/multi", "1");
    let name = format!("{}/lib/multi:1", registry.host);
    let config = |entry: &Value| -> String {
        let digest = entry["digest"].as_str().expect("digest");
        let manifest = fs::read(registry.blob(digest)).expect("read a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        manifest["config"]["digest"]
            .as_str()
            .expect("digest")
            .to_owned()
    };
    for (wanted, entry) in [
        ("linux/arm", 3),
        ("linux/arm/v6", 2),
        ("linux/arm/v8", 3),
        ("linux/arm64", 1),
        ("linux/aarch64", 1),
        ("arm64/v8", 1),
        ("linux/amd64/v3", 0),
    ] {
        daemon.ok(["pull", "-q", "--platform", wanted, &name]);
        let id = daemon.ok(["image", "inspect", "--format", "{{.Id}}", &name]);
        assert_eq!(id, config(&entries[entry]), "{wanted}");
    }
    let out = daemon.hull(["pull", "--platform", "linux/arm/v5", &name]);
    out.fails_saying(1, "no matching manifest for linux/arm/v5");
    assert!(out.stderr.contains("linux/arm/v6"), "{}", out.stderr);
}

#[test]
fn artifact_is_pulled_listed_tagged_pushed_saved_and_removed() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    let text = b"a chart, not an image";
    let descriptor = documents(&daemon, &registry, "lib/chart").artifact(
        Some("1"),
        "application/vnd.example.chart",
        text,
        None,
    );
    let digest = descriptor["digest"].as_str().expect("digest");
    let name = format!("{}/lib/chart:1", registry.host);
    let out = daemon.ok(["pull", &name]);
    assert!(out.contains(&format!("Digest: {digest}")), "{out}");
    let out = daemon.ok(["pull", &name]);
    assert!(out.contains("up to date"), "{out}");
    let list = daemon.ok([
        "images",
        "--no-trunc",
        "--format",
        "{{.Repository}}:{{.Tag}} {{.ID}}",
    ]);
    assert_eq!(list, format!("{name} {digest}"));
    assert_eq!(
        image(&daemon, &name)["Comment"],
        "application/vnd.example.chart"
    );
    daemon
        .hull(["run", "--rm", "--pull", "never", &name, "true"])
        .fails_saying(125, "is an artifact");

    let copy = format!("{}/other/chart:2", registry.host);
    daemon.ok(["tag", &name, &copy]);
    let out = daemon.ok(["push", &copy]);
    assert!(out.contains("Mounted from lib/chart"), "{out}");
    assert_eq!(digest_at(&registry, "other/chart/manifests/2"), digest);

    let archive = daemon.scratch().join("chart.tar");
    daemon.ok(["save", "-o", &archive.display().to_string(), &name]);
    let hex = descriptor["digest"]
        .as_str()
        .expect("digest")
        .trim_start_matches("sha256:");
    let saved = Run::new("tar")
        .args([
            "-xOf",
            &archive.display().to_string(),
            &format!("blobs/sha256/{hex}"),
        ])
        .run();
    assert_eq!(saved.bytes, fs::read(registry.blob(digest)).expect("read"));

    // It survives a restart, and a kill.
    let mut daemon = daemon;
    daemon.kill();
    daemon.start();
    assert!(
        daemon
            .ok(["images", "--format", "{{.Repository}}"])
            .contains("lib/chart")
    );
    let out = daemon.ok(["rmi", &name]);
    assert!(out.contains(&format!("Untagged: {name}")), "{out}");
    let out = daemon.ok(["rmi", &copy]);
    assert!(out.contains(&format!("Deleted: {digest}")), "{out}");
    assert_eq!(daemon.ok(["images", "-aq"]), "");
    assert_eq!(blobs(&daemon), 0);

    let out = daemon.load(&archive);
    assert_eq!(out, format!("Loaded image: {name}"));
    let id = daemon.ok(["image", "inspect", "--format", "{{.Id}}", &name]);
    assert_eq!(id, digest);
}

#[test]
fn referrers_come_with_the_image_and_go_with_it() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    let lib = documents(&daemon, &registry, "lib/signed");
    let about = lib.image(Some("1"), "linux/amd64", false);
    let signature = lib.artifact(
        Some("signature"),
        "application/vnd.example.signature",
        b"signed",
        Some(&about),
    );
    let subject = about["digest"].as_str().expect("digest");
    // Debian's registry does not know the referrers API: the list is under the fallback tag.
    let fallback = subject.replace(':', "-");
    lib.index(&fallback, std::slice::from_ref(&signature));
    let name = format!("{}/lib/signed:1", registry.host);
    daemon.ok(["pull", "-q", &name]);
    assert_eq!(image(&daemon, &name)["Referrers"], Value::Null);
    daemon.ok(["pull", "-q", "--referrers", &name]);
    let found = image(&daemon, &name)["Referrers"].clone();
    assert_eq!(found[0]["digest"], signature["digest"], "{found}");
    assert_eq!(
        found[0]["artifactType"],
        "application/vnd.example.signature"
    );
    // A plain pull of the same image does not lose them.
    daemon.ok(["pull", "-q", &name]);
    assert_eq!(image(&daemon, &name)["Referrers"], found);

    let second = Registry::start(&daemon.scratch().join("second"), Kind::Plain);
    let copy = format!("{}/copy/signed:1", second.host);
    daemon.ok(["tag", &name, &copy]);
    daemon.ok(["push", "--referrers", &copy]);
    assert_eq!(digest_at(&second, "copy/signed/manifests/1"), subject);
    let signature_digest = signature["digest"].as_str().expect("digest");
    let list = digest_at(&second, &format!("copy/signed/manifests/{fallback}"));
    let list = fs::read_to_string(second.blob(&list)).expect("read the list");
    assert!(list.contains(signature_digest), "{list}");
    assert_eq!(
        digest_at(
            &second,
            &format!("copy/signed/manifests/{signature_digest}")
        ),
        signature_digest
    );
    // One that goes by itself is listed, too.
    let (from, to) = (
        format!("{}/lib/signed:signature", registry.host),
        format!("{}/alone:1", second.host),
    );
    daemon.ok(["pull", "-q", &from]);
    daemon.ok(["tag", &from, &to]);
    daemon.ok(["push", &to]);
    let alone = digest_at(&second, &format!("alone/manifests/{fallback}"));
    let alone = fs::read_to_string(second.blob(&alone)).expect("read the list");
    assert!(
        alone.contains("application/vnd.example.signature"),
        "{alone}"
    );
    daemon.ok(["rmi", &from, &to]);
    // Once more changes nothing.
    daemon.ok(["push", "--referrers", &copy]);
    let again = digest_at(&second, &format!("copy/signed/manifests/{fallback}"));
    assert_eq!(fs::read_to_string(second.blob(&again)).expect("read"), list);
    daemon.ok(["rmi", &name, &copy]);
    assert_eq!(blobs(&daemon), 0);
}

#[test]
fn referrers_of_a_registry_that_lists_them_itself_are_found() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    let lib = documents(&daemon, &registry, "lib/signed");
    let entry = lib.image(None, "linux/amd64", false);
    let signature = lib.artifact(None, "application/vnd.example.sbom", b"{}", Some(&entry));
    // One that is about something else is not taken for one of this.
    let stray = lib.artifact(
        None,
        "application/vnd.example.sbom",
        b"[]",
        Some(&signature),
    );
    lib.index("1", std::slice::from_ref(&entry));
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [signature, stray],
    })
    .to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{list}",
        media::INDEX,
        list.len()
    );
    let answer: &'static str = Box::leak(answer.into_boxed_str());
    let subject = entry["digest"].as_str().expect("digest");
    let about = format!("GET /v2/lib/signed/referrers/{subject}");
    let about: &'static str = Box::leak(about.into_boxed_str());
    let proxy = Proxy::start(&registry, about, vec![Fault::Say(answer); 9]);
    let name = format!("{}/lib/signed:1", proxy.host);
    daemon.ok(["pull", "-q", "--referrers", &name]);
    let found = image(&daemon, &name)["Referrers"].clone();
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found[0]["digest"], signature["digest"]);
    assert_eq!(
        daemon.ok(["run", "--rm", &name, "cat", "/platform"]),
        "linux/amd64"
    );
}

#[test]
fn all_tags_are_pulled_and_pushed() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    let repository = format!("{}/lib/box", registry.host);
    for tag in ["1", "2", "latest"] {
        daemon.ok(["tag", "busybox", &format!("{repository}:{tag}")]);
    }
    daemon
        .hull(["push", "-a", &format!("{repository}:1")])
        .fails_saying(1, "tag can't be used with --all-tags/-a");
    daemon.ok(["push", "-a", &repository]);
    let tags = Run::new("skopeo")
        .args([
            "list-tags",
            "--tls-verify=false",
            &format!("docker://{repository}"),
        ])
        .ok();
    for tag in ["1", "2", "latest"] {
        assert!(tags.contains(&format!("\"{tag}\"")), "{tags}");
        daemon.ok(["rmi", &format!("{repository}:{tag}")]);
    }
    daemon
        .hull(["pull", "--all-tags", &format!("{repository}:1")])
        .fails_saying(1, "tag can't be used with --all-tags/-a");
    let out = daemon.ok(["pull", "--all-tags", &repository]);
    assert!(out.ends_with(&repository), "{out}");
    let list = daemon.ok(["images", "--format", "{{.Tag}}", &repository]);
    let mut list: Vec<_> = list.lines().collect();
    list.sort_unstable();
    assert_eq!(list, ["1", "2", "latest"]);
    daemon
        .hull(["pull", "-a", &format!("{}/lib/none", registry.host)])
        .fails_saying(1, "lib/none");
    daemon
        .hull(["push", "-a", &format!("{}/lib/none", registry.host)])
        .fails_saying(1, "does not exist locally");
}

#[test]
fn search_looks_through_the_list_of_a_registry_without_search() {
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    for name in ["lib/box", "lib/boxes", "other"] {
        let name = format!("{}/{name}:1", registry.host);
        daemon.ok(["tag", "busybox", &name]);
        daemon.ok(["push", "-q", &name]);
    }
    let term = format!("{}/box", registry.host);
    let names = |extra: &[&str]| -> Vec<String> {
        let out = daemon
            .cli(["search", "--format", "{{.Name}}"])
            .args(extra)
            .arg(&term)
            .ok();
        out.lines().map(str::to_owned).collect()
    };
    let full = |name: &str| format!("{}/{name}", registry.host);
    assert_eq!(names(&[]), [full("lib/box"), full("lib/boxes")]);
    assert_eq!(names(&["--limit", "1"]), [full("lib/box")]);
    assert_eq!(names(&["--filter", "stars=1"]), Vec::<String>::new());
    let table = daemon.ok(["search", &term]);
    assert!(table.starts_with("NAME "), "{table}");
    assert!(
        table.contains("DESCRIPTION") && table.contains("OFFICIAL"),
        "{table}"
    );
    daemon
        .hull(["search", "--limit", "101", &term])
        .fails_saying(1, "limit 101 is outside the range of [1, 100]");
    daemon
        .hull(["search", "--filter", "colour=red", &term])
        .fails_saying(1, "colour");
    // Docker Hub is nowhere here.
    daemon
        .hull(["search", "box"])
        .fails_saying(1, "cannot reach");
}

#[test]
fn search_asks_the_registrys_own() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let body = r#"{"num_results":2,"results":[
        {"name":"a/box","description":"A box\nwith a very long description that goes on and on","star_count":7,"is_official":true},
        {"name":"b/box","description":null,"star_count":1}]}"#;
    let forward = Forward::answering("GET /v1/search", "application/json", body);
    let out = daemon.ok([
        "search",
        "--format",
        "{{.Name}} {{.StarCount}}{{.IsOfficial}}",
        &format!("{}/box", forward.host),
    ]);
    let host = &forward.host;
    assert_eq!(out, format!("{host}/a/box 7[OK]\n{host}/b/box 1"));
    let out = daemon.ok([
        "search",
        "--filter",
        "is-official=true",
        "--filter",
        "stars=3",
        &format!("{host}/box"),
    ]);
    assert!(out.contains("A box with a very long"), "{out}");
    assert!(!out.contains("b/box") && out.contains('…'), "{out}");
    let api = daemon.api(
        "GET",
        &format!("/images/search?term={host}%2Fbox&limit=1"),
        None,
    );
    assert_eq!(api.json()[0]["star_count"], 7);
    let asked = forward.requests();
    assert!(asked.iter().any(|line| line.contains("q=box")), "{asked:?}");
}

#[test]
fn distribution_inspect_tells_platforms_without_a_pull() {
    let (daemon, _home) = daemon(Daemon::builder().bare());
    if daemon.is_docker() {
        return;
    }
    let registry = registry(&daemon);
    multi(&daemon, &registry, "lib/multi", "1");
    let _ = documents(&daemon, &registry, "lib/one").image(Some("1"), "linux/arm64/v8", true);
    let get = |name: &str| {
        let path = format!("/distribution/{}/{name}/json", registry.host);
        daemon.api("GET", &path, None)
    };
    let found = get("lib/multi:1").json();
    assert_eq!(
        found["Descriptor"]["digest"],
        digest_at(&registry, "lib/multi/manifests/1").as_str()
    );
    assert_eq!(found["Descriptor"]["mediaType"], media::INDEX);
    let platforms = found["Platforms"].as_array().expect("platforms");
    assert_eq!(platforms.len(), 4);
    assert_eq!(platforms[3]["variant"], "v7");
    let found = get("lib/one:1").json();
    assert_eq!(found["Descriptor"]["mediaType"], media::DOCKER_MANIFEST);
    assert_eq!(found["Platforms"][0]["architecture"], "arm64");
    assert_eq!(get("lib/none:1").status, 404);
    assert_eq!(daemon.ok(["images", "-aq"]), "");
}

#[test]
fn default_registry_is_what_short_names_mean() {
    let scratch = tempfile::tempdir().expect("dir");
    let registry = Registry::start(&scratch.path().join("registry"), Kind::Password);
    let (daemon, _home) = daemon(
        Daemon::builder()
            .arg("--default-registry")
            .arg(registry.host.clone()),
    );
    if daemon.is_docker() {
        return;
    }
    // What the archive called busybox is Docker Hub's, and is shown so that it can be told apart.
    let list = daemon.ok(["images", "--format", "{{.Repository}}"]);
    assert_eq!(list, "docker.io/library/busybox");
    daemon
        .cli(["login", "-u", "user", "--password-stdin"])
        .input("secret\n")
        .ok();
    daemon.ok(["tag", "docker.io/library/busybox", "box:1"]);
    let full = format!("{}/box:1", registry.host);
    let out = daemon.ok(["push", "-q", "box:1"]);
    assert_eq!(out, full);
    daemon.ok(["rmi", &full]);
    let out = daemon.ok(["pull", "box:1"]);
    assert!(out.ends_with(&full), "{out}");
    assert_eq!(daemon.ok(["run", "--rm", "box:1", "echo", "ok"]), "ok");
    let info = daemon.api("GET", "/info", None).json();
    assert_eq!(info["IndexServerAddress"], registry.host.as_str());
    daemon.ok(["run", "--rm", "hull/hello"]);
}

#[test]
fn proxies_lead_to_registries_but_not_to_loopback() {
    let scratch = tempfile::tempdir().expect("dir");
    let registry = Registry::start(&scratch.path().join("registry"), Kind::Tls);
    let forward = Forward::to(&registry.host, "name:word");
    let certs = scratch.path().join("certs.d/images.test");
    fs::create_dir_all(&certs).expect("mkdir");
    fs::copy(registry.dir().join("ca.crt"), certs.join("ca.crt")).expect("copy");
    // The certificate is for an address; the name exists only behind the proxy.
    fs::write(
        certs.join("hosts.toml"),
        "server = \"https://images.test\"\nskip_verify = true\n",
    )
    .expect("write");
    let plain = scratch.path().join("certs.d/plain.test");
    fs::create_dir_all(&plain).expect("mkdir");
    fs::write(plain.join("hosts.toml"), "server = \"http://plain.test\"\n").expect("write");
    let proxy = format!("http://name:word@{}", forward.host);
    let (daemon, _home) = daemon(
        Daemon::builder()
            .arg("--certs-dir")
            .arg(scratch.path().join("certs.d").display().to_string())
            .env("HTTPS_PROXY", &proxy)
            .env("HTTP_PROXY", &proxy)
            .env("NO_PROXY", "direct.test"),
    );
    if daemon.is_docker() {
        return;
    }
    daemon.ok(["tag", "busybox", "images.test/lib/box:1"]);
    daemon.ok(["push", "images.test/lib/box:1"]);
    daemon.ok(["rmi", "images.test/lib/box:1"]);
    daemon.ok(["pull", "-q", "images.test/lib/box:1"]);
    let seen = forward.requests();
    assert!(
        seen.iter()
            .any(|line| line.starts_with("CONNECT images.test:443")),
        "{seen:?}"
    );
    let _ = daemon.hull(["pull", "plain.test/lib/box:1"]);
    let seen = forward.requests();
    assert!(
        seen.iter()
            .any(|line| line.starts_with("GET http://plain.test/v2/")),
        "{seen:?}"
    );
    let before = seen.len();
    // Neither loopback nor what NO_PROXY names goes that way.
    let _ = daemon.hull(["pull", &format!("{}/lib/box:1", registry.host)]);
    let _ = daemon.hull(["pull", "direct.test/lib/box:1"]);
    assert_eq!(forward.requests().len(), before);
}

#[test]
fn registry_with_tls_is_spoken_to_by_http2() {
    let scratch = tempfile::tempdir().expect("dir");
    let registry = Registry::start(&scratch.path().join("registry"), Kind::Tls);
    let (daemon, _home) = daemon(Daemon::builder());
    if daemon.is_docker() {
        return;
    }
    // Loopback needs no proof.
    let name = format!("{}/lib/box:1", registry.host);
    daemon.ok(["tag", "busybox", &name]);
    daemon.ok(["push", "-q", &name]);
    daemon.ok(["rmi", &name]);
    daemon.ok(["pull", "-q", &name]);
    let log = fs::read_to_string(registry.dir().join("log")).expect("read the registry's log");
    for verb in ["GET", "HEAD", "PUT", "PATCH"] {
        let spoken = |line: &&str| line.contains(&format!("\"{verb} /v2/lib/box/"));
        let lines: Vec<&str> = log.lines().filter(spoken).collect();
        assert!(!lines.is_empty(), "{verb}: {log}");
        assert!(
            lines.iter().all(|line| line.contains("HTTP/2.0")),
            "{lines:#?}"
        );
    }
}

#[test]
fn client_certificate_of_certs_d_is_shown() {
    let scratch = tempfile::tempdir().expect("dir");
    let own = scratch.path().join("client");
    fs::create_dir_all(&own).expect("mkdir");
    make_client(&own);
    let registry = Registry::start_with(
        &scratch.path().join("registry"),
        Kind::Tls,
        &format!("    clientcas:\n      - {}/ca.crt\n", own.display()),
    );
    let certs = scratch.path().join("certs.d").join(&registry.host);
    fs::create_dir_all(&certs).expect("mkdir");
    fs::copy(registry.dir().join("ca.crt"), certs.join("ca.crt")).expect("copy");
    let (daemon, _home) = daemon(
        Daemon::builder()
            .arg("--certs-dir")
            .arg(scratch.path().join("certs.d").display().to_string()),
    );
    if daemon.is_docker() {
        return;
    }
    let name = format!("{}/lib/box:1", registry.host);
    daemon.ok(["tag", "busybox", &name]);
    let refused = daemon.hull(["push", &name]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    // Docker's form: NAME.cert and NAME.key.
    fs::copy(own.join("client.crt"), certs.join("client.cert")).expect("copy");
    daemon.hull(["push", &name]).fails_saying(1, "no .key file");
    fs::copy(own.join("client.key"), certs.join("client.key")).expect("copy");
    daemon.ok(["push", &name]);
    // containerd's form.
    for file in ["client.cert", "client.key"] {
        fs::rename(certs.join(file), certs.join(format!("my-{file}"))).expect("rename");
    }
    fs::write(
        certs.join("hosts.toml"),
        format!(
            "server = \"https://{}\"\nca = \"ca.crt\"\nclient = [[\"my-client.cert\", \"my-client.key\"]]\n",
            registry.host
        ),
    )
    .expect("write");
    daemon.ok(["rmi", &name]);
    daemon.ok(["pull", "-q", &name]);
}

/// An authority, `ca.crt`, and a certificate of it, `client.crt` with `client.key`.
fn make_client(dir: &Path) {
    let openssl = |args: &[&str]| {
        Run::new("openssl").args(args).dir(dir).ok();
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
    ]);
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=client",
        "-keyout",
        "client.key",
        "-out",
        "client.csr",
    ]);
    fs::write(
        dir.join("client.ext"),
        "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:client\n",
    )
    .expect("write");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "client.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "client.ext",
        "-out",
        "client.crt",
    ]);
}
