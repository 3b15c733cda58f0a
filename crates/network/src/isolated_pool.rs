//! Namespaces with loopback alone, kept ready: making one costs more than the rest of what a
//! container without a network needs from the host.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::endpoint::EndpointError;
use crate::isolated::isolated;

/// A start that has just taken one needs the CPU more than the pool does.
const QUIET: Duration = Duration::from_millis(8);
/// After a failure the host lacks something; trying at full speed would not help.
const BACK_OFF: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 256 << 10;

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<OwnedFd>,
    takes: u64,
    closing: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    /// The state is plain data, consistent between statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pool and its thread; dropping it ends both.
#[derive(Debug)]
pub struct IsolatedPool {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IsolatedPool {
    /// Starts the pool, to hold `size` namespaces.
    ///
    /// # Errors
    /// The host refuses a thread.
    pub fn start(size: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("hull-netns-pool".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || refill(&own, size))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// A ready namespace, or one made on the spot.
    ///
    /// # Errors
    /// As [`isolated`].
    pub fn take(&self) -> Result<OwnedFd, EndpointError> {
        let ready = {
            let mut state = self.shared.lock();
            state.takes += 1;
            state.ready.pop_front()
        };
        self.shared.wake.notify_one();
        match ready {
            Some(namespace) => Ok(namespace),
            None => isolated(),
        }
    }
}

impl Drop for IsolatedPool {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn refill(shared: &Shared, size: usize) {
    let mut state = shared.lock();
    while !state.closing {
        if state.ready.len() >= size {
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        // Wait until nothing was taken for a while.
        let takes = state.takes;
        let waited = shared.wake.wait_timeout(state, QUIET);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.takes != takes || state.closing {
            continue;
        }
        drop(state);
        let made = isolated();
        state = shared.lock();
        match made {
            Ok(namespace) => state.ready.push_back(namespace),
            Err(_) if !state.closing => {
                let waited = shared.wake.wait_timeout(state, BACK_OFF);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn taken_namespaces_differ_from_each_other_and_the_hosts() {
        let pool = IsolatedPool::start(2).expect("start");
        let host = std::fs::File::open("/proc/self/ns/net").expect("open");
        let inode = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).expect("stat").st_ino;
        let mut seen = vec![inode(host.as_fd())];
        let taken: Vec<_> = (0..5).map(|_| pool.take().expect("take")).collect();
        for namespace in &taken {
            let inode = inode(namespace.as_fd());
            assert!(!seen.contains(&inode));
            seen.push(inode);
        }
    }
}
