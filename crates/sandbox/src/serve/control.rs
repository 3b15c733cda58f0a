//! A control connection: frames in, frames out, descriptors matched to the frame they came with.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use hull_proto::message::Call;
use hull_proto::{Decoder, Message, encode};
use hull_sys::fdpass;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::poller::{Poller, Watch};
use super::queue::Queue;

/// A daemon that does not read so many bytes of replies and events is disconnected.
const MAX_UNREAD: usize = 8 << 20;
/// Descriptors that may wait for their frame to be whole.
const MAX_WAITING_FDS: usize = 512;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    watch: Watch,
    decoder: Decoder,
    /// Descriptors of the frame that is not whole yet.
    fds: Vec<OwnedFd>,
    out: Queue,
    /// It is of no more use.
    pub(crate) broken: bool,
}

impl Connection {
    /// Takes an accepted, non-blocking socket.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub(crate) fn new(socket: OwnedFd, poller: &mut Poller) -> Result<Self, Errno> {
        let mut watch = poller.watch();
        watch.set(poller, &socket, EventFlags::IN)?;
        Ok(Self {
            socket,
            watch,
            decoder: Decoder::default(),
            fds: Vec::new(),
            out: Queue::default(),
            broken: false,
        })
    }

    /// Number of its events.
    pub(crate) fn token(&self) -> u64 {
        self.watch.token()
    }

    /// Reads once; returns the requests that became whole with their descriptors.
    ///
    /// The kernel ends a reading with the bytes to which descriptors belong, and descriptors
    /// belong to the first byte of a frame. So they are of the last frame that began in this
    /// reading: the one that is not whole yet, or else the last whole one.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> VecDeque<(Call, Vec<OwnedFd>)> {
        let mut calls = VecDeque::new();
        let mut fds = Vec::new();
        match fdpass::receive(&self.socket, buffer, &mut fds) {
            Ok(count) if count > 0 => self.decoder.push(buffer.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN) => return calls,
            _ => {
                self.broken = true;
                return calls;
            }
        }
        loop {
            match self.decoder.next_message::<Call>() {
                Ok(Some(call)) => calls.push_back((call, std::mem::take(&mut self.fds))),
                Ok(None) => break,
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        if self.decoder.has_partial() {
            self.fds.append(&mut fds);
        } else if let Some((_, of_last)) = calls.back_mut() {
            of_last.append(&mut fds);
        }
        if self.fds.len() > MAX_WAITING_FDS {
            self.broken = true;
        }
        calls
    }

    /// Sends a message; what the socket does not take at once waits.
    pub(crate) fn send(&mut self, message: &Message) {
        match encode(message) {
            Ok(bytes) => self.out.push(bytes.into(), 0),
            Err(_) => self.broken = true,
        }
        self.write();
        if self.out.len() > MAX_UNREAD {
            self.broken = true;
        }
    }

    /// Whether all that was said to it is on its way.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Goes on writing.
    pub(crate) fn write(&mut self) {
        if self.out.write_to(self.socket.as_fd()).is_err() {
            self.broken = true;
        }
    }

    /// Watches for what is of interest now.
    pub(crate) fn update_watch(&mut self, poller: &Poller) {
        let mut wanted = EventFlags::IN;
        if !self.out.is_empty() {
            wanted |= EventFlags::OUT;
        }
        if self.watch.set(poller, &self.socket, wanted).is_err() {
            self.broken = true;
        }
    }

    /// Stops watching it.
    pub(crate) fn close(mut self, poller: &Poller) {
        let _ = self.watch.set(poller, &self.socket, EventFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_proto::Request;
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;

    fn call(seq: u64) -> Vec<u8> {
        encode(&Call {
            seq,
            request: Request::Status,
        })
        .unwrap()
    }

    fn pair() -> (UnixStream, Connection) {
        let (left, right) = UnixStream::pair().unwrap();
        right.set_nonblocking(true).unwrap();
        (
            left,
            Connection::new(right.into(), &mut Poller::new().unwrap()).unwrap(),
        )
    }

    fn read_all(connection: &mut Connection, buffer: usize) -> Vec<(u64, usize)> {
        let mut got = Vec::new();
        for _ in 0..1000 {
            let calls = connection.read(&mut vec![0; buffer]);
            got.extend(calls.into_iter().map(|(call, fds)| (call.seq, fds.len())));
        }
        got
    }

    #[test]
    fn read_descriptors_go_to_the_frame_they_were_sent_with() {
        for buffer in [1, 7, 40, 1000] {
            let (left, mut connection) = pair();
            let null = std::fs::File::open("/dev/null").unwrap();
            let fds: [BorrowedFd<'_>; 2] = [null.as_fd(), null.as_fd()];
            for (seq, count) in [(1, 0), (2, 2), (3, 0), (4, 1), (5, 1), (6, 0)] {
                fdpass::send(&left, &call(seq), &fds[..count]).unwrap();
            }
            let expected = [(1, 0), (2, 2), (3, 0), (4, 1), (5, 1), (6, 0)];
            assert_eq!(
                read_all(&mut connection, buffer),
                expected,
                "buffer of {buffer}"
            );
        }
    }

    #[test]
    fn read_malformed_frame_breaks_the_connection() {
        let (left, mut connection) = pair();
        rustix::io::write(&left, b"\x03\0\0\0{}!").unwrap();
        connection.read(&mut [0; 100]);
        assert!(connection.broken);
    }

    #[test]
    fn read_closed_peer_breaks_the_connection() {
        let (left, mut connection) = pair();
        drop(left);
        connection.read(&mut [0; 100]);
        assert!(connection.broken);
    }
}
