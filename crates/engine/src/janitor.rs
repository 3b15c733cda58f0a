//! Deleting what nobody waits for: one thread, so that many removals at once neither take many
//! threads nor compete with the starts for the disk.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_model::{Error, Result};
use hull_snapshot::{Overlay, Snapshotter};

use crate::containers::entry::lock;

/// Stack of the thread, bytes.
const STACK: usize = 256 << 10;

/// The way to the thread. What is still queued when the daemon dies is swept by its next start.
#[derive(Debug)]
pub(crate) struct Janitor {
    sender: Mutex<Option<Sender<Vec<PathBuf>>>>,
    /// Closed when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

impl Janitor {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the host refuses a thread.
    pub(crate) fn start(snapshots: Arc<Overlay>) -> Result<Self> {
        let (sender, receiver) = channel::<Vec<PathBuf>>();
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("hull-janitor".into())
            .stack_size(STACK)
            .spawn(move || {
                let _end: Sender<()> = end;
                while let Ok(mut dirs) = receiver.recv() {
                    dirs.extend(receiver.try_iter().flatten());
                    for dir in dirs {
                        match fs::remove_dir_all(&dir) {
                            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                                tracing::warn!(%error, dir = %dir.display(), "cannot delete");
                            }
                            _ => {}
                        }
                    }
                    if let Err(error) = snapshots.empty_trash() {
                        tracing::warn!(%error, "cannot delete a writable layer: the next removal tries again");
                    }
                }
            })
            .map_err(|e| Error::internal("cannot start a thread", e))?;
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            ended: Mutex::new(ended),
        })
    }

    /// Has these folders deleted, and every writable layer that was removed.
    pub(crate) fn delete(&self, dirs: Vec<PathBuf>) {
        if let Some(sender) = &*lock(&self.sender) {
            // The thread ends with the sender alone.
            let _ = sender.send(dirs);
        }
    }

    /// Takes no more work and waits until what there is has been done, at most so long.
    pub(crate) fn finish(&self, limit: Duration) {
        drop(lock(&self.sender).take());
        // Nothing is ever sent: it returns when the thread's end is closed.
        let _ = lock(&self.ended).recv_timeout(limit);
    }
}
