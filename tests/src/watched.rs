//! A daemon that is given hostile images, its memory watched.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hull_testkit::archive::Image;
use hull_testkit::{Daemon, DaemonBuilder, Output, fixtures};

use crate::liar::{Liar, Packed, Shelf};

/// How much more than at rest a daemon may take, whatever it is given.
const MOST_KIB: u64 = 100 << 10;
/// Far more than any of these takes, and less than what hangs.
pub const LIMIT: Duration = Duration::from_secs(110);

/// A daemon whose memory is watched.
#[derive(Debug)]
pub struct Watched {
    /// It.
    pub daemon: Daemon,
    idle: u64,
}

fn status(daemon: &Daemon, field: &str) -> u64 {
    let path = format!("/proc/{}/status", daemon.pid());
    let text = fs::read_to_string(path).expect("read the daemon's status");
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("a number of kibibytes")
}

impl Watched {
    /// None where the tests run against Docker.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::of(Daemon::builder().bare())
    }

    /// The same, its data in memory: for so many files that a disk would be what is waited for.
    #[must_use]
    pub fn in_memory() -> Option<Self> {
        Self::of(Daemon::builder().bare().small(4_000))
    }

    fn of(builder: DaemonBuilder) -> Option<Self> {
        let daemon = builder.start();
        if daemon.is_docker() {
            return None;
        }
        // A first image, so that what is loaded once is not counted.
        daemon.load(&fixtures::busybox());
        daemon.ok(["rmi", "-f", "busybox"]);
        let reset = format!("/proc/{}/clear_refs", daemon.pid());
        fs::write(reset, "5").expect("reset the peak");
        let idle = status(&daemon, "VmRSS:");
        Some(Self { daemon, idle })
    }

    /// Pulls the image `1` of a shelf.
    #[must_use]
    pub fn pull(&self, shelf: &Shelf) -> Output {
        let liar = Liar::honest(shelf);
        let name = format!("{}/evil:1", liar.host);
        self.daemon.cli(["pull", "-q", &name]).limit(LIMIT).run()
    }

    /// Loads an archive.
    #[must_use]
    pub fn load(&self, archive: Vec<u8>) -> Output {
        let run = self.daemon.cli(["load", "-q"]).limit(LIMIT);
        run.input(archive).run()
    }

    /// Imports a tar.
    #[must_use]
    pub fn import(&self, tar: Vec<u8>) -> Output {
        let run = self.daemon.cli(["import", "-", "evil:1"]).limit(LIMIT);
        run.input(tar).run()
    }

    /// Gives an image of one layer to each way in; all must say these words.
    ///
    /// # Panics
    /// If one does not.
    pub fn refuses(&self, what: &str, tar: &[u8], words: &str) {
        let shelf = Shelf::default();
        shelf.image("1", &[Packed::gzip(tar)]);
        let archive = Image::new("evil:1").raw_layer(tar.to_vec());
        for (way, out) in [
            ("pull", self.pull(&shelf)),
            ("load", self.load(archive.docker_archive())),
            ("load of a layout", self.load(archive.oci_layout())),
            ("import", self.import(tar.to_vec())),
        ] {
            assert_ne!(out.code, 0, "{way} took {what}");
            let text = &out.stderr;
            assert!(text.contains(words), "{way}, {what}: {text}");
            assert!(text.len() < 8 << 10, "{way}, {what}: {} bytes", text.len());
        }
        self.assert_empty(what);
    }

    /// Asserts that the store has nothing, not even half.
    ///
    /// # Panics
    /// If it has.
    pub fn assert_empty(&self, what: &str) {
        for part in ["tmp", "layers", "l", "images"] {
            let dir = self.daemon.data_seen().join("image").join(part);
            let left = fs::read_dir(&dir).expect("list").count();
            assert_eq!(left, 0, "{what}: {part}");
        }
    }

    /// Asserts that all of it took little memory.
    ///
    /// # Panics
    /// If it did not.
    pub fn assert_modest(&self) {
        let peak = status(&self.daemon, "VmHWM:");
        let idle = self.idle;
        assert!(
            peak < idle + MOST_KIB,
            "{idle} KiB at rest, {peak} KiB at most"
        );
    }

    /// Where layers lie.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.daemon.data_seen().join("image/layers")
    }
}
