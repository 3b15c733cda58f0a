//! Standard input of a process: bytes of its clients, bounded, on their way to it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::poller::{Poller, Watch};

/// Clients are not read any more while so much waits for the process, bytes.
pub const LIMIT: usize = 64 << 10;

/// The way to a process's standard input.
#[derive(Debug)]
pub struct Input {
    pipe: Option<OwnedFd>,
    watch: Watch,
    waiting: VecDeque<u8>,
    closing: bool,
}

impl Input {
    /// Takes our end; none is an input that swallows all.
    pub fn new(pipe: Option<OwnedFd>, poller: &mut Poller) -> Self {
        Self {
            pipe,
            watch: poller.watch(),
            waiting: VecDeque::new(),
            closing: false,
        }
    }

    /// Number of its events.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.watch.token()
    }

    /// How much can be taken now; what an input that is closed takes is swallowed.
    #[must_use]
    pub fn room(&self) -> usize {
        LIMIT.saturating_sub(self.waiting.len())
    }

    /// Whether nobody will read what is taken from now on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pipe.is_none() || self.closing
    }

    /// Takes bytes for the process.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.pipe.is_some() && !self.closing {
            self.waiting.extend(bytes);
            self.write();
        }
    }

    /// Closes it once all that waits is written.
    pub fn finish(&mut self) {
        self.closing = true;
    }

    /// Writes what waits.
    pub fn write(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        while !self.waiting.is_empty() {
            match rustix::io::write(pipe, self.waiting.as_slices().0) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    // The process closed it: nobody will read what clients send from now on.
                    self.closing = true;
                    self.waiting.clear();
                }
            }
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(0);
        }
    }

    /// Watches for room in the pipe while something waits, and closes it when it is time.
    pub fn update_watch(&mut self, poller: &Poller) {
        let Some(pipe) = &self.pipe else { return };
        let wanted = if self.waiting.is_empty() {
            EventFlags::empty()
        } else {
            EventFlags::OUT
        };
        let failed = self.watch.set(poller, pipe, wanted).is_err();
        if failed || (self.closing && self.waiting.is_empty()) {
            self.close(poller);
        }
    }

    /// Closes it now.
    pub fn close(&mut self, poller: &Poller) {
        if let Some(pipe) = self.pipe.take() {
            let _ = self.watch.set(poller, &pipe, EventFlags::empty());
        }
        self.waiting = VecDeque::new();
    }
}
