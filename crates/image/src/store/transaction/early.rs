//! Writing back while layers still come in, so that little is left for the sync of the commit.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags, syncfs};

/// Bytes of streams, mostly compressed, that come in between two syncs.
const STEP_BYTES: u64 = 48 << 20;

/// Counts what comes in, and has it written back.
#[derive(Debug, Default)]
pub(super) struct Early {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    ended: bool,
}

/// Ends the syncs when it goes.
#[derive(Debug)]
pub(super) struct Ending<'a>(&'a Early);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

impl Early {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So much more has come in.
    pub(super) fn add(&self, bytes: u64) {
        let mut state = self.state();
        state.bytes += bytes;
        if state.bytes >= STEP_BYTES {
            self.changed.notify_all();
        }
    }

    /// Begins anew. To be called before [`Self::run`], which ends with the value.
    pub(super) fn begin(&self) -> Ending<'_> {
        *self.state() = State::default();
        Ending(self)
    }

    /// Syncs the file system of `dir` each time that enough has come in. A failure is told: the
    /// kernel tells it only once, so that the sync of the commit would know nothing of it.
    ///
    /// # Errors
    /// If something could not be written.
    pub(super) fn run(&self, dir: &Path) -> io::Result<()> {
        let dir = File::open(dir)?;
        loop {
            let mut state = self.state();
            while !state.ended && state.bytes < STEP_BYTES {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                return Ok(());
            }
            state.bytes = 0;
            drop(state);
            syncfs(&dir)?;
        }
    }
}

/// A name that no layer had before: ext4 looks for a place beginning with what the name says.
pub(super) fn layer_name(number: usize) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("layer-{number}-{:x}", now.map_or(0, |now| now.as_nanos()))
}

/// Asks the file system to spread the folders in `dir`: ext4 puts each into another part of the
/// disk then. Layers that are unpacked at once do not meet there, and inodes freed a moment ago,
/// which ext4 must not give out again and passes over one by one, are elsewhere. Other file
/// systems do not know the wish.
pub(super) fn spread(dir: &Path) {
    let _ = File::open(dir).map(|dir| {
        let flags = ioctl_getflags(&dir)?;
        ioctl_setflags(&dir, flags | IFlags::TOPDIR)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_syncs_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        spread(dir.path());
        let early = Early::default();
        std::thread::scope(|scope| {
            let ending = early.begin();
            let running = scope.spawn(|| early.run(dir.path()));
            early.add(STEP_BYTES);
            // It has taken the step when nothing is left of it.
            while early.state().bytes > 0 {
                std::thread::yield_now();
            }
            early.add(1);
            drop(ending);
            assert!(running.join().unwrap().is_ok());
        });
        assert!(early.run(&dir.path().join("none")).is_err());
    }
}
