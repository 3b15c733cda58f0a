//! epoll, with a number for each thing watched.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// Most events taken at once.
const EVENTS: usize = 32;

/// Waits for descriptors.
pub struct Poller {
    epoll: OwnedFd,
    next: u64,
    events: Vec<Event>,
}

impl Poller {
    /// Makes one that watches nothing.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            next: 0,
            events: Vec::with_capacity(EVENTS),
        })
    }

    /// A number that nothing else has, for something to watch.
    pub fn watch(&mut self) -> Watch {
        self.next += 1;
        Watch {
            token: self.next,
            current: EventFlags::empty(),
        }
    }

    /// Waits at most so long and returns what is ready.
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<Vec<(u64, EventFlags)>, Errno> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(1 << 30) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            spare_capacity(&mut self.events),
            limit.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        Ok(self
            .events
            .drain(..)
            .map(|event| {
                let (data, flags) = (event.data, event.flags);
                (data.u64(), flags)
            })
            .collect())
    }
}

impl AsFd for Poller {
    /// Readable when something is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// What is watched of one descriptor. With no flags it is taken out altogether, because the
/// kernel reports a hang-up even to those who asked for nothing.
#[derive(Debug)]
pub struct Watch {
    token: u64,
    current: EventFlags,
}

impl Watch {
    /// The number that events carry.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Watches for these flags from now on.
    ///
    /// # Errors
    /// `EPERM` for what cannot be watched, `ENOSPC`.
    pub fn set(&mut self, poller: &Poller, fd: impl AsFd, wanted: EventFlags) -> Result<(), Errno> {
        if wanted == self.current {
            return Ok(());
        }
        let data = EventData::new_u64(self.token);
        if self.current.is_empty() {
            epoll::add(&poller.epoll, fd, data, wanted)?;
        } else if wanted.is_empty() {
            epoll::delete(&poller.epoll, fd)?;
        } else {
            epoll::modify(&poller.epoll, fd, data, wanted)?;
        }
        self.current = wanted;
        Ok(())
    }
}
