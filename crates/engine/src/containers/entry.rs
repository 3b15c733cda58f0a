//! One container in memory: its record, the lock of its operations, the way to its shim.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hull_state::ContainerRecord;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::shim::Shim;

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its id, never changed.
    pub id: String,
    record: Mutex<ContainerRecord>,
    /// Held by start, stop, remove and the handling of an exit: one at a time.
    pub op: Arc<AsyncMutex<()>>,
    shim: Mutex<Option<Arc<Shim>>>,
    /// Clients that attached before the start.
    pub waiting: Mutex<Vec<PendingAttach>>,
    /// How often it ended, and how it ended last.
    pub runs: watch::Sender<Runs>,
    /// Stops the health check of the current run.
    pub health: Mutex<Option<tokio::task::AbortHandle>>,
    /// A delayed restart by policy.
    pub restart: Mutex<Option<tokio::task::AbortHandle>>,
}

/// Ends of runs, for those who wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// Runs that ended.
    pub ended: u64,
    /// A run is on (or about to be).
    pub running: bool,
    /// Exit code of the last one.
    pub code: i32,
    /// Why the last start failed.
    pub error: String,
    /// The container was removed.
    pub removed: bool,
}

/// A client that attached before the start.
#[derive(Debug)]
pub(crate) struct PendingAttach {
    /// The shim's end of its stream.
    pub socket: std::os::fd::OwnedFd,
    /// Which streams.
    pub streams: hull_model::spec::Attach,
}

impl Container {
    /// Wraps a record.
    pub(crate) fn new(record: ContainerRecord) -> Arc<Self> {
        let runs = Runs {
            running: record.state.is_running(),
            code: record.exit_code,
            ..Runs::default()
        };
        Arc::new(Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            op: Arc::default(),
            shim: Mutex::default(),
            waiting: Mutex::default(),
            runs: watch::Sender::new(runs),
            health: Mutex::default(),
            restart: Mutex::default(),
        })
    }

    /// A copy of the record.
    pub(crate) fn record(&self) -> ContainerRecord {
        self.lock().clone()
    }

    /// Reads the record without copying it.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&ContainerRecord) -> T) -> T {
        read(&self.lock())
    }

    /// Replaces the record. Called after it was written to the database.
    pub(crate) fn set(&self, record: ContainerRecord) {
        *self.lock() = record;
    }

    /// Changes the record in memory alone.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ContainerRecord)) {
        change(&mut self.lock());
    }

    /// The shim of the current run.
    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        lock(&self.shim).clone()
    }

    /// Sets or clears the shim.
    pub(crate) fn set_shim(&self, shim: Option<Arc<Shim>>) {
        *lock(&self.shim) = shim;
    }

    fn lock(&self) -> MutexGuard<'_, ContainerRecord> {
        lock(&self.record)
    }
}

/// Locks a mutex whose data a panic cannot have left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
