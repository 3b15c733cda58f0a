//! A warm pool: what a start needs, made in the background by one thread, which also does whatever
//! can wait (deleting links, forgetting flows).
//!
//! ```text
//! take ──▶ ready ──▶ container        (never back: an item serves one container)
//!            ▲
//! thread ────┘  one at a time, once QUIET has passed since the last take, or at the latest
//!               PATIENCE after the pool ceased to be full
//! ```
//!
//! A pool that keeps nothing ready has a thread only while something is to be done: there may be
//! hundreds of such pools.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A start that has just taken an endpoint needs the CPU more than the pool does.
const QUIET: Duration = Duration::from_millis(6);
/// Takes that never pause must not starve the pool for ever.
const PATIENCE: Duration = Duration::from_millis(120);
/// After a failure the host lacks something; trying at full speed would not help.
const BACK_OFF: Duration = Duration::from_secs(2);

/// What the pool's thread calls.
pub trait Work: Send + Sync + 'static {
    /// What is kept ready.
    type Item: Send;
    /// What can wait.
    type Job: Send;
    /// Makes one; `None` if it failed.
    fn make(&self) -> Option<Self::Item>;
    /// Does what was put off, all that is due at once.
    fn run(&self, jobs: Vec<Self::Job>);
}

#[derive(Debug)]
struct State<T, J> {
    ready: VecDeque<T>,
    jobs: Vec<(Instant, J)>,
    target: usize,
    last_take: Option<Instant>,
    wanting_since: Instant,
    not_before: Option<Instant>,
    closing: bool,
    /// The thread looks at the state again before it ends.
    running: bool,
}

#[derive(Debug)]
struct Shared<T, J> {
    state: Mutex<State<T, J>>,
    wake: Condvar,
}

impl<T, J> Shared<T, J> {
    /// The state is plain data that is consistent between statements: a panic elsewhere with the
    /// lock held does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State<T, J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins the thread.
type Begin = Box<dyn Fn() -> io::Result<JoinHandle<()>> + Send + Sync>;

/// The pool and its thread; dropping it ends both.
pub struct Pool<T, J> {
    shared: Arc<Shared<T, J>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    begin: Begin,
}

impl<T: fmt::Debug, J: fmt::Debug> fmt::Debug for Pool<T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static, J: Send + 'static> Pool<T, J> {
    /// Starts the thread, in the caller's network namespace; if nothing is to be kept ready, not
    /// before there is a job, and then in that of its caller.
    ///
    /// # Errors
    /// The host refuses a thread.
    pub fn start(
        name: &'static str,
        target: usize,
        work: impl Work<Item = T, Job = J>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ready: VecDeque::with_capacity(target),
                jobs: Vec::new(),
                target,
                last_take: None,
                wanting_since: Instant::now(),
                not_before: None,
                closing: false,
                running: target > 0,
            }),
            wake: Condvar::new(),
        });
        let (for_threads, work) = (Arc::clone(&shared), Arc::new(work));
        let begin: Begin = Box::new(move || {
            let (shared, work) = (Arc::clone(&for_threads), Arc::clone(&work));
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || serve(&shared, &*work))
        });
        let thread = if target > 0 { Some(begin()?) } else { None };
        Ok(Self {
            shared,
            thread: Mutex::new(thread),
            begin,
        })
    }

    /// A ready item, or `None` if there is none right now.
    pub fn take(&self) -> Option<T> {
        let mut state = self.shared.lock();
        let now = Instant::now();
        if state.ready.len() >= state.target {
            state.wanting_since = now;
        }
        state.last_take = Some(now);
        let item = state.ready.pop_front();
        drop(state);
        self.shared.wake.notify_one();
        item
    }

    /// Has `job` done after `delay`.
    pub fn defer(&self, delay: Duration, job: J) {
        let mut state = self.shared.lock();
        state.jobs.push((Instant::now() + delay, job));
        let begin = !state.running;
        state.running = true;
        drop(state);
        self.shared.wake.notify_one();
        if begin {
            let begun = (self.begin)();
            if begun.is_err() {
                // The job waits for the next that asks.
                self.shared.lock().running = false;
            }
            let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
            // The one before has ended, or is about to.
            *thread = begun.ok();
        }
    }

    /// Makes no more items and gives up the ready ones.
    pub fn drain(&self) {
        let ready = {
            let mut state = self.shared.lock();
            state.target = 0;
            std::mem::take(&mut state.ready)
        };
        drop(ready);
    }

    /// Takes out the ready items of which `which` holds.
    pub fn extract(&self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let extracted = {
            let mut state = self.shared.lock();
            let (out, kept) = std::mem::take(&mut state.ready)
                .into_iter()
                .partition(|item| which(item));
            state.ready = kept;
            out
        };
        self.shared.wake.notify_one();
        extracted.into()
    }

    /// Number of ready items.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl<T, J> Drop for Pool<T, J> {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        let thread = self.thread.get_mut();
        if let Some(thread) = thread.unwrap_or_else(PoisonError::into_inner).take() {
            thread.join().ok();
        }
    }
}

fn serve<W: Work>(shared: &Shared<W::Item, W::Job>, work: &W) {
    let mut state = shared.lock();
    while !state.closing {
        let now = Instant::now();
        let due: Vec<W::Job> = state
            .jobs
            .extract_if(.., |(due, _)| *due <= now)
            .map(|(_, job)| job)
            .collect();
        if !due.is_empty() {
            drop(state);
            work.run(due);
            state = shared.lock();
            continue;
        }
        let refill_at = refill_time(&state, now);
        if refill_at.is_some_and(|at| at <= now) {
            drop(state);
            let made = work.make();
            state = shared.lock();
            match made {
                Some(item) => state.ready.push_back(item),
                None => state.not_before = Some(Instant::now() + BACK_OFF),
            }
            continue;
        }
        let next_job = state.jobs.iter().map(|(due, _)| *due).min();
        let wait = match (refill_at, next_job) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        state = match wait {
            Some(until) => {
                let duration = until.saturating_duration_since(now);
                let woken = shared.wake.wait_timeout(state, duration);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None if state.target == 0 => {
                state.running = false;
                return;
            }
            None => {
                let woken = shared.wake.wait(state);
                woken.unwrap_or_else(PoisonError::into_inner)
            }
        };
    }
}

/// When the next item should be made; `None` if the pool is full.
fn refill_time<T, J>(state: &State<T, J>, now: Instant) -> Option<Instant> {
    if state.ready.len() >= state.target {
        return None;
    }
    let quiet = state.last_take.map_or(now, |taken| taken + QUIET);
    let at = quiet.min(state.wanting_since + PATIENCE);
    Some(state.not_before.map_or(at, |earliest| at.max(earliest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts the jobs done, and the threads that did them.
    struct Counter(Arc<(AtomicUsize, Mutex<Vec<std::thread::ThreadId>>)>);

    impl Work for Counter {
        type Item = ();
        type Job = ();

        fn make(&self) -> Option<()> {
            None
        }

        fn run(&self, jobs: Vec<()>) {
            let mut threads = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
            threads.push(std::thread::current().id());
            self.0.0.fetch_add(jobs.len(), Ordering::SeqCst);
        }
    }

    #[test]
    fn pool_that_keeps_nothing_has_a_thread_while_there_are_jobs() {
        let done = Arc::default();
        let pool = Pool::start("test", 0, Counter(Arc::clone(&done))).expect("a pool");
        let wait_for = |count: usize| {
            while done.0.load(Ordering::SeqCst) < count {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let idle = || {
            while pool.shared.lock().running {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        assert!(!pool.shared.lock().running);
        for round in 0..50 {
            pool.defer(Duration::ZERO, ());
            pool.defer(Duration::from_millis(round % 3), ());
            wait_for(2 * usize::try_from(round).unwrap_or(0) + 2);
            if round % 2 == 0 {
                idle();
            }
        }
        idle();
        let mut threads = done.1.lock().unwrap_or_else(PoisonError::into_inner);
        threads.sort_by_key(|id| format!("{id:?}"));
        threads.dedup();
        assert!(threads.len() > 1, "the thread ended in between");
    }
}
