//! The console of a guest: the end of it is kept to explain a failure.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::serve::poller::{Poller, Watch};

/// How much is kept, bytes.
const KEPT: usize = 8 << 10;

/// A console. A guest that writes without end is read a buffer at a time, between everything else;
/// what is not read waits in the socket, and then the guest does.
#[derive(Debug)]
pub(super) struct Console {
    socket: Option<OwnedFd>,
    watch: Watch,
    kept: VecDeque<u8>,
}

impl Console {
    /// Takes our end.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub(super) fn new(socket: OwnedFd, poller: &mut Poller) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let mut watch = poller.watch();
        watch.set(poller, &socket, EventFlags::IN)?;
        Ok(Self {
            socket: Some(socket),
            watch,
            kept: VecDeque::new(),
        })
    }

    /// Number of its events.
    pub(super) fn token(&self) -> u64 {
        self.watch.token()
    }

    /// Reads once.
    pub(super) fn read(&mut self, buffer: &mut [u8], poller: &Poller) {
        let Some(socket) = &self.socket else { return };
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok((_, 0)) | Err(_) => {
                let _ = self.watch.set(poller, socket, EventFlags::empty());
                self.socket = None;
            }
            Ok((_, count)) => {
                let fresh = buffer.get(..count).unwrap_or_default();
                let fresh = fresh.get(count.saturating_sub(KEPT)..).unwrap_or_default();
                self.kept.extend(fresh);
                let excess = self.kept.len().saturating_sub(KEPT);
                self.kept.drain(..excess);
            }
        }
    }

    /// The last lines, for a message.
    pub(super) fn last_words(&self) -> String {
        const LINES: usize = 6;
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let from = lines.len().saturating_sub(LINES);
        super::link::shorten(lines.get(from..).unwrap_or_default().join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn flood_keeps_the_last_lines_in_bounded_memory() {
        let (mut guest, ours) = UnixStream::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        let mut console = Console::new(ours.into(), &mut poller).unwrap();
        let mut buffer = vec![0; 64 << 10];
        for round in 0..200 {
            let line = format!("line {round} {}\n", "x".repeat(1000));
            guest.write_all(line.repeat(20).as_bytes()).unwrap();
            console.read(&mut buffer, &poller);
        }
        guest.write_all(b"\x1b[2JKernel panic: no init\n").unwrap();
        console.read(&mut buffer, &poller);
        assert!(console.kept.len() <= KEPT && console.kept.capacity() <= 4 * KEPT);
        let words = console.last_words();
        assert!(words.len() <= 1100, "{}", words.len());
        drop(guest);
        console.read(&mut buffer, &poller);
        assert!(console.socket.is_none());
    }
}
