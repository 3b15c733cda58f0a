//! Garbage collection: what goes and what stays, while everything else goes on, after kills.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use hull_testkit::archive::{Image, Layer};
use hull_testkit::{Daemon, DaemonBuilder, fixtures, wait_until};
use hull_tests::registry::{Kind, Registry};
use serde_json::Value;

/// Bytes of each test image's own layer.
const OWN: usize = 2 << 20;

/// Nothing is spared for having just come, nothing goes in the background.
fn eager(builder: DaemonBuilder) -> DaemonBuilder {
    builder
        .env("HULL_GC_GRACE", "0")
        .env("HULL_GC_INTERVAL", "0")
}

/// Bytes that do not compress, different for each seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(bytes);
    content
}

/// An archive with an image on busybox and a layer of its own.
fn archive(daemon: &Daemon, tag: &str, seed: u64) -> PathBuf {
    let path = daemon.scratch().join(format!("{seed}.tar"));
    Image::new(tag)
        .busybox()
        .layer(Layer::new().file("own", 0o644, &noise(seed, OWN)).file(
            "mark",
            0o644,
            tag.as_bytes(),
        ))
        .write(&path);
    path
}

fn bring(daemon: &Daemon, tag: &str, seed: u64) -> String {
    daemon.load(&archive(daemon, tag, seed));
    daemon.ok(["image", "inspect", "--format", "{{.Id}}", tag])
}

fn gc(daemon: &Daemon, args: &[&str]) -> Value {
    let all = ["system", "gc", "--format", "json"];
    let text = daemon.ok(all.iter().chain(args));
    serde_json::from_str(&text).expect("gc prints JSON")
}

fn tags(daemon: &Daemon) -> Vec<String> {
    let text = daemon.ok(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut tags: Vec<String> = text.lines().map(str::to_owned).collect();
    tags.sort();
    tags
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Bytes of all files, each inode once, as the disk has them.
fn disk_bytes(dir: &Path) -> u64 {
    let text = hull_testkit::Run::new("du")
        .args(["-s", "-B1"])
        .arg(dir)
        .ok();
    let first = text.split_whitespace().next().expect("du prints a number");
    first.parse().expect("a number")
}

#[test]
fn gc_takes_the_nameless_alone_unless_told_more() {
    let daemon = eager(Daemon::builder()).start();
    if daemon.is_docker() {
        return;
    }
    daemon.ok(["run", "--rm", "hull/hello"]);
    let old = bring(&daemon, "a:1", 1);
    bring(&daemon, "a:1", 2);
    bring(&daemon, "b:1", 3);
    let plan = gc(&daemon, &["--dry-run"]);
    assert_eq!(plan["Images"][0]["Id"], old.as_str(), "{plan}");
    assert_eq!(plan["Images"][0]["Reason"], "unnamed");
    assert_eq!(plan["DryRun"], true);
    assert!(plan["SpaceReclaimed"].as_u64().unwrap_or(0) >= OWN as u64);
    daemon.ok(["image", "inspect", &old]);
    let done = gc(&daemon, &[]);
    assert_eq!(done["SpaceReclaimed"], plan["SpaceReclaimed"]);
    assert_eq!(done["LayersDeleted"], 1);
    daemon.hull(["image", "inspect", &old]).fails(1);
    assert_eq!(
        tags(&daemon),
        ["a:1", "b:1", "busybox:latest", "hull/hello:latest"]
    );
    // Recently used and recently come: neither is idle.
    gc(&daemon, &["--unused-for", "1h"]);
    gc(&daemon, &["--older-than", "1h"]);
    assert_eq!(tags(&daemon).len(), 4);
    daemon.ok(["create", "--name", "keeper", "b:1"]);
    gc(&daemon, &["--unused-for", "0", "--older-than", "0"]);
    // The one in use and the built-in one stay.
    assert_eq!(tags(&daemon), ["b:1", "hull/hello:latest"]);
    let text = daemon.ok(["system", "gc"]);
    assert_eq!(text, "Total reclaimed space: 0B");
    daemon
        .hull(["system", "gc", "--unused-for", "often"])
        .fails_saying(1, "invalid duration");
    assert_eq!(daemon.ok(["start", "-a", "keeper"]), "");
    assert_eq!(daemon.ok(["run", "--rm", "b:1", "cat", "/mark"]), "b:1");
}

#[test]
fn gc_with_a_budget_takes_the_least_recently_used() {
    let daemon = eager(Daemon::builder()).start();
    if daemon.is_docker() {
        return;
    }
    for (tag, seed) in [("a:1", 1), ("b:1", 2), ("c:1", 3)] {
        bring(&daemon, tag, seed);
    }
    for tag in ["b:1", "busybox", "a:1"] {
        daemon.ok(["run", "--rm", tag, "true"]);
    }
    let total = gc(&daemon, &["--dry-run", "--keep-size", "1t"])["SpaceKept"]
        .as_u64()
        .expect("a number");
    let below = |bytes: usize| (total - bytes as u64).to_string();
    let report = gc(&daemon, &["--keep-size", &below(1)]);
    assert_eq!(report["Images"][0]["Names"][0], "c:1", "{report}");
    assert_eq!(report["Images"][0]["Reason"], "budget");
    assert_eq!(tags(&daemon), ["a:1", "b:1", "busybox:latest"]);
    gc(&daemon, &["--keep-size", &below(2 * OWN)]);
    // Without busybox nothing would be free, since a:1 has all of it.
    assert!(tags(&daemon).contains(&"a:1".to_owned()));
    assert!(!tags(&daemon).contains(&"b:1".to_owned()));
    assert_eq!(daemon.ok(["run", "--rm", "a:1", "cat", "/mark"]), "a:1");
    gc(&daemon, &["--keep-size", "0"]);
    assert_eq!(tags(&daemon), [] as [String; 0]);
    let image = daemon.data_dir().join("image");
    for part in ["layers", "images", "l", "tmp", "blobs/sha256"] {
        assert_eq!(entries(&image.join(part)), 0, "{part}");
    }
}

#[test]
fn what_just_came_is_spared() {
    let daemon = Daemon::builder().env("HULL_GC_GRACE", "1h").start();
    if daemon.is_docker() {
        return;
    }
    bring(&daemon, "a:1", 1);
    gc(&daemon, &["--unused-for", "0"]);
    gc(&daemon, &["--keep-size", "0"]);
    assert_eq!(tags(&daemon), ["a:1", "busybox:latest"]);
}

#[test]
fn policy_of_the_daemon_collects_in_the_background() {
    let mut daemon = Daemon::builder()
        .env("HULL_GC_GRACE", "0")
        .env("HULL_GC_UNUSED_FOR", "1ms")
        .arg("--gc-interval")
        .arg("1h")
        .start();
    if daemon.is_docker() {
        return;
    }
    bring(&daemon, "a:1", 1);
    bring(&daemon, "b:1", 2);
    daemon.ok(["create", "--name", "user", "b:1"]);
    daemon.stop();
    // The same daemon with less patience: from the config file this time.
    let file = daemon.scratch().join("config.toml");
    fs::write(&file, "gc-interval = \"100ms\"\ngc-keep-size = \"1T\"\n").expect("write");
    let mut patient = daemon.cli(["daemon", "--config"]).arg(&file).spawn();
    let gone = wait_until(Duration::from_secs(20), || {
        let out = daemon.hull(["images", "-q", "a:1"]);
        out.code == 0 && out.stdout.trim().is_empty()
    });
    assert!(patient.is_running());
    assert_eq!(tags(&daemon), ["b:1"]);
    patient.signal("TERM");
    let _ = patient.finish();
    assert!(gone);
    daemon.start();
    daemon.ok(["start", "user"]);
}

#[test]
fn budget_of_the_daemon_is_kept_when_images_come() {
    let daemon = Daemon::builder()
        .env("HULL_GC_GRACE", "0")
        .env("HULL_GC_KEEP_SIZE", "6m")
        .start();
    if daemon.is_docker() {
        return;
    }
    for (tag, seed) in [("a:1", 1), ("b:1", 2), ("c:1", 3)] {
        bring(&daemon, tag, seed);
    }
    let kept = wait_until(Duration::from_secs(20), || {
        tags(&daemon) == ["b:1", "busybox:latest", "c:1"]
    });
    assert!(kept, "{:?}", tags(&daemon));
}

#[test]
fn last_use_survives_a_kill_and_costs_no_sync() {
    let mut daemon = eager(Daemon::builder()).start();
    if daemon.is_docker() {
        return;
    }
    let id = bring(&daemon, "a:1", 1);
    let record = daemon
        .data_dir()
        .join("image/images")
        .join(format!("{}.json", id.trim_start_matches("sha256:")));
    daemon.stop();
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 3600);
    File::open(&record)
        .and_then(|file| file.set_times(FileTimes::new().set_modified(long_ago)))
        .expect("set the time");
    daemon.start();
    let idle = |daemon: &Daemon| -> bool {
        let plan = gc(daemon, &["--dry-run", "--unused-for", "1d"]);
        plan["Images"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|image| image["Id"] == id.as_str())
    };
    assert!(idle(&daemon));
    daemon.ok(["run", "--rm", "a:1", "true"]);
    assert!(!idle(&daemon));
    daemon.kill();
    daemon.start();
    assert!(!idle(&daemon), "the use was forgotten");
}

#[test]
fn gc_beside_loads_pulls_creates_and_starts_breaks_none_of_them() {
    let mut daemon = eager(Daemon::builder()).start();
    if daemon.is_docker() {
        return;
    }
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    let pulled = format!("{}/lib/box:1", registry.host);
    registry.put(&fixtures::busybox(), "lib/box:1", "oci");
    let loaded = archive(&daemon, "racer:1", 7);
    let rounds = 25;
    let (left, started, missed, collected) = (
        AtomicBool::new(true),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    // A container begins whole or not at all: its image may go before, never below it.
    let run = |image: &str| {
        let out = daemon.hull([
            "run",
            "--rm",
            "--pull",
            "never",
            image,
            "cat",
            "/etc/passwd",
        ]);
        match out.code {
            0 => started.fetch_add(1, Ordering::Relaxed),
            125 if out.stderr.contains("No such image") => missed.fetch_add(1, Ordering::Relaxed),
            code => panic!("{image}: {code}: {}{}", out.stdout, out.stderr),
        };
    };
    std::thread::scope(|scope| {
        let loads = scope.spawn(|| {
            for _ in 0..rounds {
                daemon.load(&loaded);
                run("racer:1");
            }
        });
        let pulls = scope.spawn(|| {
            for _ in 0..rounds {
                daemon.ok(["pull", "-q", &pulled]);
                run(&pulled);
            }
        });
        let collector = scope.spawn(|| {
            while left.load(Ordering::Relaxed) {
                let report = gc(&daemon, &["--unused-for", "0"]);
                let count = report["Images"].as_array().map_or(0, Vec::len);
                collected.fetch_add(count, Ordering::Relaxed);
            }
        });
        let outcome = [loads.join(), pulls.join()];
        left.store(false, Ordering::Relaxed);
        collector.join().expect("collections succeed");
        for one in outcome {
            one.expect("loads, pulls and starts succeed");
        }
    });
    let counts = [&started, &missed, &collected].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts[0] + counts[1], 2 * rounds, "{counts:?}");
    assert!(counts[0] > 0 && counts[2] > 0, "{counts:?}");
    // What is left is whole, also for the next daemon.
    daemon.kill();
    daemon.start();
    assert!(!daemon.log_tail().contains("removed from the image store"));
    daemon.load(&loaded);
    assert_eq!(
        daemon.ok(["run", "--rm", "racer:1", "cat", "/mark"]),
        "racer:1"
    );
    gc(&daemon, &["--unused-for", "0"]);
    assert_eq!(entries(&daemon.data_dir().join("image/layers")), 0);
}

#[test]
fn leftovers_of_a_crash_go_when_the_daemon_starts() {
    let mut daemon = eager(Daemon::builder()).start();
    if daemon.is_docker() {
        return;
    }
    bring(&daemon, "a:1", 1);
    let path = daemon.scratch().join("1.tar");
    let image = daemon.data_dir().join("image");
    let diff_ids = daemon.ok([
        "image",
        "inspect",
        "--format",
        "{{json .RootFS.Layers}}",
        "a:1",
    ]);
    let diff_ids: Vec<String> = serde_json::from_str(&diff_ids).expect("a list");
    let own = diff_ids.last().expect("a layer").replace("sha256:", "");
    daemon.kill();
    for junk in ["layers/half-made", "tmp/9000/layer-0/fs"] {
        fs::create_dir_all(image.join(junk)).expect("make");
        fs::write(image.join(junk).join("x"), noise(9, 4096)).expect("write");
    }
    fs::write(image.join("blobs/sha256").join("ab".repeat(32)), "stray").expect("write");
    // A layer whose description was torn by a failing disk: what needs it comes again.
    fs::write(image.join("layers").join(&own).join("meta.json"), "{\"dif").expect("write");
    daemon.start();
    assert_eq!(tags(&daemon), ["busybox:latest"]);
    let clean = || entries(&image.join("layers")) == 1 && entries(&image.join("tmp")) == 0;
    assert!(wait_until(Duration::from_secs(10), clean));
    assert_eq!(entries(&image.join("blobs/sha256")), 1);
    daemon.load(&path);
    assert_eq!(daemon.ok(["run", "--rm", "a:1", "cat", "/mark"]), "a:1");
}

#[test]
fn a_layer_is_stored_once_however_it_comes() {
    let daemon = eager(Daemon::builder().bare()).start();
    if daemon.is_docker() {
        return;
    }
    let content = noise(5, 16 << 20);
    let image = Image::new("docker:1")
        .busybox()
        .layer(Layer::new().file("large", 0o644, &content));
    let docker = daemon.scratch().join("docker.tar");
    image.write(&docker);
    daemon.load(&docker);
    let store = daemon.data_dir().join("image");
    let size = disk_bytes(&store);
    // The content and little more: not the archive, not its compressed form.
    let tree: u64 = daemon
        .ok(["image", "inspect", "--format", "{{.Size}}", "docker:1"])
        .parse()
        .expect("a number");
    assert!(size < tree + tree / 10 + (1 << 20), "{size} for {tree}");
    let oci = daemon.scratch().join("oci.tar");
    fs::write(&oci, image.oci_layout()).expect("write");
    daemon.load(&oci);
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&docker, "lib/large:1", "oci");
    let pulled = format!("{}/lib/large:1", registry.host);
    daemon.ok(["pull", "-q", &pulled]);
    let now = disk_bytes(&store);
    assert!(now < size + (1 << 20), "{size} became {now}");
    assert_eq!(entries(&store.join("layers")), 2);
}
