//! What attacks share: a canary outside, races, and a naive opener that loses them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hull_oci_tests::{Kind, Runtime, Said};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// How many rounds a race goes on, and how long at most.
pub(crate) const ROUNDS: u32 = 250;
const RACE: Duration = Duration::from_secs(10);
/// How often the naive opener tries after each round.
const NAIVE: u32 = 200;

/// A folder of the host with one file: nothing may be added, changed or mounted.
pub(crate) struct Canary {
    pub(crate) dir: PathBuf,
    before: (u32, u32, u32),
}

impl Canary {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let dir = runtime.dir().join("canary");
        fs::create_dir(&dir).expect("folder");
        fs::write(dir.join("file"), "alive").expect("file");
        let before = attributes(&dir);
        Self { dir, before }
    }

    #[track_caller]
    pub(crate) fn is_alive(&self) {
        let names: Vec<_> = fs::read_dir(&self.dir)
            .expect("canary")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["file"], "something was made in the canary");
        let text = fs::read_to_string(self.dir.join("file")).expect("file");
        assert_eq!(text, "alive");
        assert_eq!(attributes(&self.dir), self.before);
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!table.contains(&*self.dir.to_string_lossy()), "{table}");
    }
}

fn attributes(path: &Path) -> (u32, u32, u32) {
    let meta = fs::metadata(path).expect("canary");
    (meta.mode(), meta.uid(), meta.gid())
}

/// It ended by itself and said why: no signal, no panic.
#[track_caller]
pub(crate) fn no_crash(said: &Said) {
    assert!(said.code >= 0, "ended by a signal: {}", said.err);
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

pub(crate) fn ours() -> Runtime {
    Runtime::new(Kind::Hull)
}

/// What came of a race.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) rounds: u32,
    /// Rounds in which the runtime did all it was asked to.
    pub(crate) good: u32,
    /// Times that a naive opener was led astray.
    pub(crate) hits: u32,
}

/// Two paths to swap, and what must stay as it is meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Course<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) one: &'a Path,
    pub(crate) other: &'a Path,
    pub(crate) canary: &'a Canary,
    /// A container runs all the time.
    pub(crate) running: bool,
    pub(crate) rounds: u32,
}

impl Course<'_> {
    /// Does a round again and again while a thread swaps the paths. Between the rounds a naive
    /// opener, which looks first and then opens by the same name, runs against the same thread:
    /// that it is led astray shows that the swaps hit.
    ///
    /// # Panics
    /// If anything gets out, the runtime crashes or leaves something, or nobody lost the race.
    #[track_caller]
    pub(crate) fn run(self, mut round: impl FnMut() -> Said) -> Tally {
        // One race at a time: each needs a processor for the thread that swaps.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = AtomicBool::new(false);
        let mut tally = Tally::default();
        let failure = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, self.one, CWD, self.other, RenameFlags::EXCHANGE);
                }
            });
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.rounds(&mut tally, &mut round);
            }));
            stop.store(true, Ordering::Relaxed);
            outcome
        });
        if let Err(panic) = failure {
            std::panic::resume_unwind(panic);
        }
        if !self.running {
            self.runtime.nothing_left();
        }
        note(tally);
        assert!(
            tally.rounds > 0 && tally.hits > 0,
            "nobody lost the race: {tally:?}"
        );
        tally
    }

    #[track_caller]
    fn rounds(&self, tally: &mut Tally, round: &mut impl FnMut() -> Said) {
        let end = Instant::now() + RACE;
        while tally.rounds < self.rounds && Instant::now() < end {
            let said = round();
            no_crash(&said);
            let text = &said.out;
            assert!(!text.contains("alive"), "reached the host: {text}");
            tally.good += u32::from(said.code == 0);
            tally.rounds += 1;
            if said.code != 0 && tally.rounds.is_multiple_of(8) && !self.running {
                self.runtime.nothing_left();
            }
            self.canary.is_alive();
            for _ in 0..NAIVE {
                tally.hits += u32::from(is_led_astray(self.one));
            }
        }
    }
}

/// Keeps what came of a race where whoever wants to know may look.
fn note(tally: Tally) {
    let thread = std::thread::current();
    let line = format!("{} {tally:?}\n", thread.name().unwrap_or_default());
    let file = hull_testkit::paths::target().join("oci-races.txt");
    let file = fs::OpenOptions::new().append(true).create(true).open(file);
    // The race itself has told already whether it was lost.
    let _ = file.map(|mut file| file.write_all(line.as_bytes()));
}

/// What a runtime must not do: look whether it is a link, then use it by its name.
fn is_led_astray(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let read = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text == "alive");
    !is_link && (read(&path.join("file")) || read(path) || fs::read_link(path).is_ok())
}
