//! Holds and last use: what keeps an image while somebody is about to use it, and when somebody
//! last did.
//!
//! The time of the last use is the modification time of `images/<id>.json`: set without a sync,
//! at most once a minute for an image, kept by the kernel when the daemon is killed. In memory it
//! is exact.
//!
//! Order of locks: `writing`, then the holds, then the index.

use std::collections::HashMap;
use std::fs::{File, FileTimes};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hull_model::Digest;

use super::record::Image;
use super::{ImageStore, StoreError};

/// The file's time may lag behind so much.
const LAG: Duration = Duration::from_secs(60);

/// How often each image is held.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<Digest, usize>>);

impl Holds {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps an image in the store until it is dropped.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    id: Digest,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.holds.lock();
        if let Some(count) = held.get_mut(&self.id) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.id);
            }
        }
    }
}

/// When an image was used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Last.
    last: SystemTime,
    /// What its file says.
    written: SystemTime,
    /// When it came, if that was since the store was opened.
    arrived: Option<Instant>,
}

/// Uses of all images.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    images: Mutex<HashMap<Digest, Use>>,
    arrivals: AtomicU64,
}

impl Uses {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Use>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the file of an image says.
    pub(crate) fn found(&self, id: Digest, written: SystemTime) {
        let found = Use {
            last: written,
            written,
            arrived: None,
        };
        self.lock().insert(id, found);
    }

    /// Notes that an image came now.
    pub(crate) fn arrived(&self, id: Digest) {
        let now = SystemTime::now();
        let new = Use {
            last: now,
            written: now,
            arrived: Some(Instant::now()),
        };
        self.lock().insert(id, new);
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn forget(&self, id: &Digest) {
        self.lock().remove(id);
    }

    /// The last use, and how long ago it came if it did so while the store was open.
    pub(crate) fn of(&self, id: &Digest) -> (SystemTime, Option<Duration>) {
        match self.lock().get(id) {
            Some(one) => (one.last, one.arrived.map(|at| at.elapsed())),
            None => (SystemTime::UNIX_EPOCH, None),
        }
    }
}

impl ImageStore {
    /// Finds an image and keeps it in the store for as long as the hold lives.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn hold(&self, name: &str) -> Result<(Image, Hold), StoreError> {
        let mut held = self.holds.lock();
        let image = self.resolve(name)?;
        Ok((image.clone(), self.held(&mut held, image.id())))
    }

    /// The same by its full id; none if it is not there.
    pub fn hold_id(&self, id: &Digest) -> Option<(Image, Hold)> {
        let mut held = self.holds.lock();
        let image = self.get(id)?;
        Some((image, self.held(&mut held, *id)))
    }

    fn held(&self, held: &mut HashMap<Digest, usize>, id: Digest) -> Hold {
        *held.entry(id).or_default() += 1;
        Hold {
            holds: Arc::clone(&self.holds),
            id,
        }
    }

    /// Notes that an image is used now. Cheap enough for the start of a container: the file's
    /// time is set at most once a minute, and never synced.
    pub fn used(&self, id: &Digest) {
        let now = SystemTime::now();
        {
            let mut uses = self.uses.lock();
            let Some(one) = uses.get_mut(id) else { return };
            one.last = now;
            // A clock set back counts as a lag, too.
            if now.duration_since(one.written).is_ok_and(|lag| lag < LAG) {
                return;
            }
            one.written = now;
        }
        self.write_use(id, now);
    }

    /// Notes that an image was asked for from outside and is here.
    pub fn arrived_again(&self, id: &Digest) {
        if self.get(id).is_some() {
            self.uses.arrived(*id);
            self.write_use(id, SystemTime::now());
        }
    }

    /// Writes the times that lag, as before the daemon ends.
    pub fn write_uses(&self) {
        let lagging: Vec<(Digest, SystemTime)> = {
            let mut uses = self.uses.lock();
            let lagging = uses.iter_mut().filter(|(_, one)| one.last != one.written);
            lagging
                .map(|(id, one)| {
                    one.written = one.last;
                    (*id, one.last)
                })
                .collect()
        };
        for (id, last) in lagging {
            self.write_use(&id, last);
        }
    }

    /// How many images have come since the store was opened, those that were here already included.
    pub fn arrivals(&self) -> u64 {
        self.uses.arrivals.load(Ordering::Relaxed)
    }

    /// When an image was last used; when it came, if never.
    pub fn last_use(&self, id: &Digest) -> SystemTime {
        self.uses.of(id).0
    }

    fn write_use(&self, id: &Digest, time: SystemTime) {
        // Without it the image counts as unused since it came: no reason to fail a start.
        let _ = File::open(self.image_file(id))
            .and_then(|file| file.set_times(FileTimes::new().set_modified(time)));
    }
}
