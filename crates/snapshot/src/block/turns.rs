//! One at a time for each name: two guests of one image build its block image once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Locks by name.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Mutex<()>>>>);

impl Turns {
    /// Runs `work` when nobody else is at `name`.
    pub(crate) fn take<T>(&self, name: &str, work: impl FnOnce() -> T) -> T {
        let lock = self.lock_of(name);
        let _turn: MutexGuard<'_, ()> = lock.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    fn lock_of(&self, name: &str) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(name).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(name.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn take_same_name_runs_one_after_the_other() {
        let turns = Turns::default();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    turns.take("a", || {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        turns.take("b", || turns.take("c", || ()));
        assert!(turns.0.lock().unwrap().len() <= 2);
    }
}
