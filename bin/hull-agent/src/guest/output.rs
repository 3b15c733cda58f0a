//! What waits to be written to the channel.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Processes' output is not read any more while so much waits, bytes.
pub(super) const DATA_HIGH: usize = 256 << 10;
/// The shim's calls are not read any more while so much waits: it does not read its answers.
pub(super) const CALLS_HIGH: usize = 2 << 20;
/// Room that is kept when nothing waits.
const KEPT_ROOM: usize = 64 << 10;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Frames are appended here.
    pub(super) bytes: Vec<u8>,
    written: usize,
}

impl Output {
    /// How much waits.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the channel takes.
    pub(super) fn write_to(&mut self, channel: impl AsFd) -> Result<(), Errno> {
        while self.waiting() > 0 {
            let rest = self.bytes.get(self.written..).unwrap_or_default();
            match rustix::io::write(&channel, rest) {
                Ok(0) => break,
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        if self.waiting() == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_ROOM);
            self.written = 0;
        } else if self.written >= KEPT_ROOM {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }
}
