//! Who may send how much: the two sides of a stream.

use super::wire::{StreamId, WireError};
use super::{INITIAL_CREDIT, MAX_CREDIT};

/// The sending side.
#[derive(Debug)]
pub struct Sending {
    available: u32,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            available: INITIAL_CREDIT,
        }
    }
}

impl Sending {
    /// How many bytes may be sent now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.available as usize
    }

    /// Bytes were sent; no more than are available.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.available = self.available.saturating_sub(bytes);
    }

    /// The receiver gave credit.
    ///
    /// # Errors
    /// If it comes to more than it may.
    pub fn granted(&mut self, stream: StreamId, bytes: u32) -> Result<(), WireError> {
        let sum = self.available.checked_add(bytes);
        self.available = sum
            .filter(|sum| *sum <= MAX_CREDIT)
            .ok_or(WireError::Credit(stream))?;
        Ok(())
    }
}

/// The receiving side.
#[derive(Debug)]
pub struct Receiving {
    /// What the sender may still send.
    outstanding: u32,
    /// What was taken and not yet given credit for again.
    taken: u32,
    window: u32,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            outstanding: INITIAL_CREDIT,
            taken: 0,
            window: INITIAL_CREDIT,
        }
    }
}

impl Receiving {
    /// Makes the window larger (at most [`MAX_CREDIT`]): the credit to send right away for it.
    pub fn widen(&mut self, window: u32) -> u32 {
        let window = window.clamp(self.window, MAX_CREDIT);
        let more = window - self.window;
        self.window = window;
        self.outstanding += more;
        more
    }

    /// Data came.
    ///
    /// # Errors
    /// If there was no credit for it.
    pub fn received(&mut self, stream: StreamId, bytes: usize) -> Result<(), WireError> {
        let rest = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| self.outstanding.checked_sub(bytes));
        self.outstanding = rest.ok_or(WireError::Credit(stream))?;
        Ok(())
    }

    /// Data that came was taken by whoever reads the stream; the credit to send for it, if it is
    /// time to: a half of the window at once saves frames.
    pub fn taken(&mut self, bytes: usize) -> Option<u32> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let owed = self.window.saturating_sub(self.outstanding);
        self.taken = self.taken.saturating_add(bytes).min(owed);
        if self.taken < self.window / 2 {
            return None;
        }
        let grant = std::mem::take(&mut self.taken);
        self.outstanding += grant;
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Channel;

    const STREAM: StreamId = StreamId {
        session: 3,
        channel: Channel::Stdout,
    };

    #[test]
    fn credit_sender_and_receiver_agree_for_ever() {
        let (mut sending, mut receiving) = (Sending::default(), Receiving::default());
        let more = receiving.widen(200 << 10);
        sending.granted(STREAM, more).unwrap();
        let mut total = 0usize;
        while total < 10 << 20 {
            let part = sending.available().min(7001);
            assert!(part > 0, "stuck after {total}");
            sending.sent(part);
            receiving.received(STREAM, part).unwrap();
            if let Some(grant) = receiving.taken(part) {
                sending.granted(STREAM, grant).unwrap();
            }
            total += part;
        }
    }

    #[test]
    fn received_more_than_the_credit_is_refused() {
        let mut receiving = Receiving::default();
        receiving
            .received(STREAM, INITIAL_CREDIT as usize - 1)
            .unwrap();
        receiving.received(STREAM, 1).unwrap();
        assert!(receiving.received(STREAM, 1).is_err());
        assert!(receiving.received(STREAM, usize::MAX).is_err());
    }

    #[test]
    fn granted_more_than_the_limit_is_refused() {
        let mut sending = Sending::default();
        sending
            .granted(STREAM, MAX_CREDIT - INITIAL_CREDIT)
            .unwrap();
        assert!(sending.granted(STREAM, 1).is_err());
        assert!(sending.granted(STREAM, u32::MAX).is_err());
        assert_eq!(sending.available(), MAX_CREDIT as usize);
    }

    #[test]
    fn taken_never_grants_more_than_was_received() {
        let mut receiving = Receiving::default();
        assert_eq!(receiving.taken(usize::MAX), None);
        receiving.received(STREAM, 40 << 10).unwrap();
        assert_eq!(receiving.taken(usize::MAX), Some(40 << 10));
        assert_eq!(receiving.taken(usize::MAX), None);
    }
}
