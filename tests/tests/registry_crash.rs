//! Pulls that end in the middle of things: the daemon killed at any moment, the disk full at any
//! stage. The next one completes, and nothing is left of the first.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_testkit::archive::Layer;
use hull_testkit::{Daemon, fixtures, wait_until};
use hull_tests::liar::{Liar, Packed, Request, Shelf};

/// Layers of the image besides busybox.
const LAYERS: usize = 6;

/// A small generator (xorshift), so that a failure is seen again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.below(u64::MAX).to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Busybox and layers of one file of so many bytes each.
fn layers(bytes: usize) -> Vec<Packed> {
    let mut random = Random(0x5eed);
    let mut layers = vec![Packed::gzip(&fixtures::busybox_layer())];
    for number in 0..LAYERS {
        let name = format!("data/{number}");
        let content = random.bytes(bytes);
        let tar = Layer::new().file(&name, 0o644, &content).finish();
        layers.push(Packed::gzip(&tar));
    }
    layers
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Asserts what a complete pull leaves, or what none does.
fn assert_whole(daemon: &Daemon, layers: usize) {
    let image = daemon.data_seen().join("image");
    let clean = wait_until(Duration::from_secs(10), || count(&image.join("tmp")) == 0);
    assert!(clean, "{} left in tmp", count(&image.join("tmp")));
    assert_eq!(count(&image.join("layers")), layers, "layers");
    assert_eq!(count(&image.join("l")), layers, "links");
    let images = usize::from(layers > 0);
    assert_eq!(count(&image.join("images")), images, "records");
}

#[test]
fn pull_whose_client_goes_away_ends_and_leaves_nothing() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &layers(400_000));
    // A minute for a layer: far more than the test waits.
    let liar = Liar::start(|_| {
        move |request: &Request| match shelf.answer(request) {
            reply if request.is("GET", "/blobs/") => {
                reply.slowly(4 << 10, Duration::from_millis(600))
            }
            reply => reply,
        }
    });
    let name = format!("{}/big:1", liar.host);
    let pull = daemon.cli(["pull", &name]).spawn();
    let tmp = daemon.data_seen().join("image/tmp");
    let begun = wait_until(Duration::from_secs(10), || count(&tmp) > 0);
    assert!(begun, "the pull does not begin");
    pull.signal("INT");
    assert_ne!(pull.finish().code, 0);
    assert_whole(&daemon, 0);
}

#[test]
fn daemon_killed_at_thirty_moments_of_a_pull_completes_the_next_one() {
    let mut daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let shelf = Shelf::default();
    shelf.image("1", &layers(400_000));
    // Slow enough for a kill to hit every stage.
    let liar = Liar::start(|_| {
        move |request: &Request| match shelf.answer(request) {
            reply if request.is("GET", "/blobs/") => {
                reply.slowly(32 << 10, Duration::from_millis(3))
            }
            reply => reply,
        }
    });
    let name = format!("{}/big:1", liar.host);
    let begun = Instant::now();
    daemon.ok(["pull", "-q", &name]);
    let whole = begun.elapsed();
    let blobs = liar.count("GET", "/blobs/");
    daemon.ok(["rmi", "-f", &name]);
    let mut random = Random(0xdead_beef);
    let mut cut = 0;
    for round in 0..30 {
        let pull = daemon.cli(["pull", "-q", &name]).spawn();
        let micros = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(random.below(micros + micros / 8)));
        daemon.kill();
        cut += usize::from(pull.finish().code != 0);
        daemon.start();
        let before = liar.count("GET", "/blobs/");
        daemon.ok(["pull", "-q", &name]);
        let fetched = liar.count("GET", "/blobs/") - before;
        assert!(fetched <= blobs, "round {round}: {fetched} blobs fetched");
        assert_whole(&daemon, LAYERS + 1);
        let script = "cat /data/* | wc -c";
        let out = daemon.ok(["run", "--rm", &name, "sh", "-c", script]);
        assert_eq!(out, (LAYERS * 400_000).to_string(), "round {round}");
        daemon.ok(["rmi", "-f", &name]);
        assert_whole(&daemon, 0);
    }
    assert!(cut >= 10, "only {cut} pulls were cut");
}

/// Bytes that are used on a file system.
fn used(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).expect("statvfs");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).expect("statvfs");
    stat.f_bfree * stat.f_frsize
}

/// Takes room until so many bytes are left.
fn fill(dir: &Path, left: u64) -> std::path::PathBuf {
    let path = dir.join("filler");
    let mut file = fs::File::create(&path).expect("make a file that takes room");
    let block = vec![1; 4 << 10];
    while free(dir) > left {
        if file.write_all(&block).is_err() {
            break;
        }
    }
    assert!(file.metadata().expect("stat").size() > 0);
    path
}

#[test]
fn disk_full_at_every_stage_is_told_and_a_later_pull_succeeds() {
    let daemon = Daemon::builder().bare().small(48).start();
    if daemon.is_docker() {
        return;
    }
    let data = daemon.data_seen();
    let shelf = Shelf::default();
    shelf.image("1", &layers(700_000));
    let liar = Liar::honest(&shelf);
    let name = format!("{}/big:1", liar.host);
    daemon.ok(["pull", "-q", &name]);
    daemon.ok(["rmi", "-f", &name]);
    assert_whole(&daemon, 0);
    let empty = used(&data);
    daemon.ok(["pull", "-q", &name]);
    let whole = used(&data) - empty;
    daemon.ok(["rmi", "-f", &name]);
    // Nothing at all, then somewhere in each layer, then ever nearer to the end: the metadata of
    // layers, the documents, the records and the names.
    let mut rooms: Vec<u64> = (0..6).map(|n| n * whole / 6).collect();
    rooms.extend((0..24).rev().map(|n| whole.saturating_sub(n * (4 << 10))));
    rooms.push(whole + (64 << 10));
    let (mut failed, mut passed) = (0, 0);
    for room in rooms {
        let filler = fill(&data, room);
        let out = daemon.cli(["pull", "-q", &name]).run();
        if out.code == 0 {
            passed += 1;
            assert_whole(&daemon, LAYERS + 1);
            fs::remove_file(&filler).expect("make room");
            assert_eq!(daemon.ok(["run", "--rm", &name, "echo", "ok"]), "ok");
            daemon.ok(["rmi", "-f", &name]);
        } else {
            failed += 1;
            let text = out.stderr.to_lowercase();
            assert!(text.contains("no space left"), "{room}: {text}");
            assert_whole(&daemon, 0);
            assert_eq!(daemon.ok(["images", "-aq"]), "");
            fs::remove_file(&filler).expect("make room");
        }
        assert_whole(&daemon, 0);
        let freed = wait_until(Duration::from_secs(10), || {
            used(&data) <= empty + (256 << 10)
        });
        let now = used(&data);
        assert!(freed, "{room}: {empty} were used, now {now}");
    }
    assert!(
        failed >= 8 && passed >= 1,
        "{failed} failed, {passed} passed"
    );
    daemon.ok(["pull", "-q", &name]);
    assert_eq!(daemon.ok(["run", "--rm", &name, "echo", "ok"]), "ok");
    daemon.ok(["rmi", "-f", &name]);
}
