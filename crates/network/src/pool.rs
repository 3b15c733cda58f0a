//! A warm pool: what a start needs, made in the background by one thread, which also does whatever
//! can wait (deleting links, forgetting flows).
//!
//! ```text
//! take ──▶ ready ──▶ container        (never back: an item serves one container)
//!            ▲
//! thread ────┘  one at a time, once QUIET has passed since the last take, or at the latest
//!               PATIENCE after the pool ceased to be full
//! ```

use std::collections::VecDeque;
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
pub trait Work: Send + 'static {
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

/// The pool and its thread; dropping it ends both.
#[derive(Debug)]
pub struct Pool<T, J> {
    shared: Arc<Shared<T, J>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static, J: Send + 'static> Pool<T, J> {
    /// Starts the thread, in the caller's network namespace.
    ///
    /// # Errors
    /// The host refuses a thread.
    pub fn start(
        name: &str,
        target: usize,
        work: impl Work<Item = T, Job = J>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ready: VecDeque::with_capacity(target),
                jobs: Vec::new(),
                target,
                last_take: None,
                wanting_since: Instant::now(),
                not_before: None,
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&for_thread, &work))?;
        Ok(Self {
            shared,
            thread: Some(thread),
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
        self.shared.lock().jobs.push((Instant::now() + delay, job));
        self.shared.wake.notify_one();
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
        if let Some(thread) = self.thread.take() {
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
