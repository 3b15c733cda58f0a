//! What waits to be written to one reader, and how long a full queue is put up with.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;

/// A reader holds the payload back once so much waits for it, bytes.
pub(crate) const HIGH: usize = 1 << 20;
/// How long it may do so without reading [`MIN_PROGRESS`].
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// What it must read within [`PATIENCE`] to be called slow and not stuck, bytes.
pub(crate) const MIN_PROGRESS: usize = 64 << 10;

/// Bytes that wait. Chunks are shared between the queues of all readers.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    chunks: VecDeque<(Rc<[u8]>, usize)>,
    bytes: usize,
}

impl Queue {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Adds `chunk` from `offset` on.
    pub(crate) fn push(&mut self, chunk: Rc<[u8]>, offset: usize) {
        if let Some(length) = chunk.len().checked_sub(offset).filter(|length| *length > 0) {
            self.bytes += length;
            self.chunks.push_back((chunk, offset));
        }
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.bytes = 0;
    }

    /// Writes as much as the socket takes; returns how much that was.
    ///
    /// # Errors
    /// If the peer is gone.
    pub(crate) fn write_to(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        let mut total = 0;
        while let Some((chunk, offset)) = self.chunks.front_mut() {
            let rest = chunk.get(*offset..).unwrap_or_default();
            let Some(sent) = send(&socket, rest)? else {
                break;
            };
            let length = rest.len();
            total += sent;
            self.bytes -= sent;
            if sent == length {
                self.chunks.pop_front();
            } else {
                *offset += sent;
            }
        }
        Ok(total)
    }
}

/// Sends without waiting; `None` if the socket is full.
///
/// # Errors
/// If the peer is gone.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> Result<Option<usize>, Errno> {
    loop {
        match rustix::net::send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => return Ok(Some(sent)),
            Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Decides when a full queue has been full for too long.
///
/// ```text
/// free ──queue above HIGH──▶ holding ──queue below HIGH──▶ free
///                              │ PATIENCE passed: read ≥ MIN_PROGRESS → a new term, else stuck
/// ```
#[derive(Debug, Default)]
pub(crate) struct Patience {
    term: Option<(Instant, usize)>,
}

impl Patience {
    /// Takes the length of the queue and what was read from it just now.
    pub(crate) fn observe(&mut self, length: usize, read: usize, now: Instant) {
        if length <= HIGH {
            self.term = None;
        } else {
            let (_, progress) = self.term.get_or_insert((now, 0));
            *progress += read;
        }
    }

    /// Whether the payload is held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.term.is_some()
    }

    /// When [`Self::ran_out`] is to be asked next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.term.map(|(since, _)| since + PATIENCE)
    }

    /// Whether the reader is stuck.
    pub(crate) fn ran_out(&mut self, now: Instant) -> bool {
        match self.term {
            Some((since, progress)) if now >= since + PATIENCE => {
                self.term = Some((now, 0));
                progress < MIN_PROGRESS
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn write_to_full_socket_keeps_the_rest_in_order() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let mut queue = Queue::default();
        let data: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
        for chunk in data.chunks(7000) {
            queue.push(chunk.into(), 0);
        }
        assert_eq!(queue.len(), data.len());
        let mut got = Vec::new();
        loop {
            queue.write_to(&left).unwrap();
            let mut buffer = vec![0; 50_000];
            let count = right.read(&mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
            if got.len() == data.len() {
                break;
            }
        }
        assert!(queue.is_empty());
        assert!(got == data);
    }

    #[test]
    fn write_to_closed_peer_fails() {
        let (left, right) = UnixStream::pair().unwrap();
        drop(right);
        let mut queue = Queue::default();
        queue.push(b"x".as_slice().into(), 0);
        assert!(queue.write_to(&left).is_err());
    }

    #[test]
    fn push_with_offset_counts_the_rest() {
        let mut queue = Queue::default();
        queue.push(b"abc".as_slice().into(), 3);
        assert!(queue.is_empty());
        queue.push(b"abc".as_slice().into(), 1);
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn patience_reader_without_progress_is_stuck_after_the_limit() {
        let start = Instant::now();
        let mut patience = Patience::default();
        patience.observe(HIGH, 0, start);
        assert!(!patience.is_holding());
        patience.observe(HIGH + 1, 0, start);
        assert!(patience.is_holding());
        assert!(!patience.ran_out(start + PATIENCE / 2));
        assert!(patience.ran_out(start + PATIENCE));
    }

    #[test]
    fn patience_slow_reader_gets_another_term() {
        let start = Instant::now();
        let mut patience = Patience::default();
        patience.observe(HIGH + 1, 0, start);
        patience.observe(HIGH + 1, MIN_PROGRESS, start);
        assert!(!patience.ran_out(start + PATIENCE));
        assert!(patience.ran_out(start + PATIENCE * 2));
        patience.observe(HIGH, 1, start + PATIENCE * 2);
        assert!(!patience.is_holding() && patience.deadline().is_none());
    }
}
