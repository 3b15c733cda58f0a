//! One client of a process's streams: a socket that reads output and perhaps writes input.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use hull_proto::Attach;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::poller::{Poller, Watch};
use super::queue::{Patience, Queue, send};

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// So many bytes, now in the buffer.
    Bytes(usize),
    /// It will send no more.
    End,
    /// Nothing right now.
    Nothing,
}

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    socket: OwnedFd,
    watch: Watch,
    roles: Attach,
    queue: Queue,
    patience: Patience,
    /// Bytes it took so far.
    pub(crate) taken: u64,
    /// It may still send.
    pub(crate) sends: bool,
    /// It may still receive.
    pub(crate) receives: bool,
}

impl Client {
    /// Takes a socket.
    pub(crate) fn new(socket: OwnedFd, roles: Attach, poller: &mut Poller) -> Self {
        Self {
            socket,
            watch: poller.watch(),
            roles,
            queue: Queue::default(),
            patience: Patience::default(),
            taken: 0,
            sends: true,
            receives: true,
        }
    }

    /// Number of its events.
    pub(crate) fn token(&self) -> u64 {
        self.watch.token()
    }

    /// Whether it writes standard input.
    pub(crate) fn writes_stdin(&self) -> bool {
        self.roles.stdin
    }

    /// Whether it reads the stream (0 is stdout, 1 is stderr).
    pub(crate) fn reads(&self, stream: usize) -> bool {
        self.receives
            && if stream == 0 {
                self.roles.stdout
            } else {
                self.roles.stderr
            }
    }

    /// Whether it has no further use.
    pub(crate) fn is_gone(&self) -> bool {
        !self.receives && (!self.sends || !self.roles.stdin)
    }

    /// Whether nothing waits to be written to it.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.receives || self.queue.is_empty()
    }

    /// Whether it holds the payload back.
    pub(crate) fn is_holding(&self) -> bool {
        self.receives && self.patience.is_holding()
    }

    /// When [`Self::drop_if_stuck`] is to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.receives {
            self.patience.deadline()
        } else {
            None
        }
    }

    /// Disconnects it if it held the payload back for too long.
    pub(crate) fn drop_if_stuck(&mut self, now: Instant) {
        if self.receives && self.patience.ran_out(now) {
            self.hang_up();
            self.sends = false;
        }
    }

    /// Gives it bytes. `shared` keeps them for those clients that cannot take them at once.
    pub(crate) fn give(&mut self, bytes: &[u8], shared: &mut Option<Rc<[u8]>>, now: Instant) {
        let mut sent = 0;
        if self.queue.is_empty() {
            match send(&self.socket, bytes) {
                Ok(count) => sent = count.unwrap_or(0),
                Err(_) => return self.hang_up(),
            }
            self.taken += sent as u64;
        }
        if sent < bytes.len() {
            let chunk = shared.get_or_insert_with(|| bytes.into());
            self.queue.push(Rc::clone(chunk), sent);
            self.patience.observe(self.queue.len(), 0, now);
        }
    }

    /// Goes on writing.
    pub(crate) fn write(&mut self, now: Instant) {
        match self.queue.write_to(&self.socket) {
            Ok(count) => {
                self.taken += count as u64;
                self.patience.observe(self.queue.len(), count, now);
            }
            Err(_) => self.hang_up(),
        }
    }

    /// Reads what it sent.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Sent {
        if !self.sends {
            return Sent::Nothing;
        }
        match rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((_, count)) if count > 0 => Sent::Bytes(count),
            Err(Errno::AGAIN | Errno::INTR) => Sent::Nothing,
            _ => {
                self.sends = false;
                Sent::End
            }
        }
    }

    /// It cannot receive any more.
    pub(crate) fn hang_up(&mut self) {
        self.receives = false;
        self.queue.clear();
        self.patience = Patience::default();
    }

    /// Watches for what is of interest now; `room` says whether its input has room.
    pub(crate) fn update_watch(&mut self, poller: &Poller, room: bool) {
        let mut wanted = EventFlags::empty();
        if self.sends && (room || !self.roles.stdin) {
            wanted |= EventFlags::IN;
        }
        if self.receives && !self.queue.is_empty() {
            wanted |= EventFlags::OUT;
        }
        if wanted.is_empty() && self.receives {
            // Only the hang-up is of interest, which is always reported.
            wanted = EventFlags::HUP;
        }
        if self.watch.set(poller, &self.socket, wanted).is_err() {
            self.hang_up();
            self.sends = false;
        }
    }

    /// Ends it: what it reads next is the end of the stream.
    pub(crate) fn close(mut self, poller: &Poller) {
        // The daemon may hold a copy of our end for a moment, so that dropping is not enough.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let _ = self.watch.set(poller, &self.socket, EventFlags::empty());
    }
}
