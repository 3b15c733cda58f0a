//! Clocks of a new time namespace. Its offsets can be set until a process is in it, and who makes
//! it is not: only children are.

use std::fmt::Write as _;

use hull_proto::oci::{Clock, TimeOffset};
use hull_sys::clone3::Namespaces;
use hull_sys::{Result, ns};
use rustix::fs::{Mode, OFlags};

use crate::LaunchError;

const NANOSECONDS: u32 = 1_000_000_000;

/// What is written to `timens_offsets`.
#[derive(Debug)]
pub(crate) struct TimeOffsets(String);

impl TimeOffsets {
    pub(crate) fn prepare(offsets: &[TimeOffset]) -> std::result::Result<Self, LaunchError> {
        let mut text = String::new();
        for offset in offsets {
            if offset.nanoseconds >= NANOSECONDS {
                return Err(LaunchError::Plan(format!(
                    "time offset of {} ns: below {NANOSECONDS}",
                    offset.nanoseconds
                )));
            }
            let clock = match offset.clock {
                Clock::Monotonic => "monotonic",
                Clock::Boottime => "boottime",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{clock} {} {}", offset.seconds, offset.nanoseconds);
        }
        Ok(Self(text))
    }

    /// Makes the namespace for the caller's children. Does not allocate.
    pub(crate) fn unshare(&self) -> Result<()> {
        ns::unshare(Namespaces::TIME)?;
        if self.0.is_empty() {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(c"/proc/self/timens_offsets", flags, Mode::empty())?;
        rustix::io::write(&file, self.0.as_bytes()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepare_offsets_are_lines_of_the_kernel() {
        let offset = |clock, seconds, nanoseconds| TimeOffset {
            clock,
            seconds,
            nanoseconds,
        };
        let offsets = TimeOffsets::prepare(&[
            offset(Clock::Monotonic, -3, 5),
            offset(Clock::Boottime, 86400, 0),
        ])
        .expect("offsets");
        assert_eq!(offsets.0, "monotonic -3 5\nboottime 86400 0\n");
        assert!(TimeOffsets::prepare(&[offset(Clock::Boottime, 0, NANOSECONDS)]).is_err());
    }
}
