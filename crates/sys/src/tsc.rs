//! The processor's time stamp counter: how fast it runs.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long it is watched: what is read twice is wrong by some tens of nanoseconds.
const WATCH: Duration = Duration::from_millis(4);
/// Tries to read both clocks at the same moment.
const READINGS: usize = 5;
/// What a counter that keeps time runs with, kHz.
const PLAUSIBLE: std::ops::RangeInclusive<u64> = 100_000..=20_000_000;

/// Ticks in a millisecond, measured once and to some millionths; none where there is no such
/// counter. Takes four milliseconds.
#[must_use]
pub fn khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> Option<u64> {
    let (first_ticks, first_ns) = read_both()?;
    std::thread::sleep(WATCH);
    let (ticks, ns) = read_both()?;
    let ticks = u128::from(ticks.checked_sub(first_ticks)?);
    let ns = u128::from(ns.checked_sub(first_ns)?).max(1);
    let khz = u64::try_from((ticks * 1_000_000 + ns / 2) / ns).ok()?;
    PLAUSIBLE.contains(&khz).then_some(khz)
}

/// The counter and the time, ns, as near to each other as some tries get them.
fn read_both() -> Option<(u64, u64)> {
    let mut best: Option<(u64, u64, u64)> = None;
    for _ in 0..READINGS {
        let before = ticks()?;
        let now = clock_gettime(ClockId::MonotonicRaw);
        let width = ticks()?.saturating_sub(before);
        let seconds = u64::try_from(now.tv_sec).ok()?;
        let ns = seconds.checked_mul(1_000_000_000)? + u64::try_from(now.tv_nsec).ok()?;
        if best.is_none_or(|(narrowest, ..)| width < narrowest) {
            best = Some((width, before + width / 2, ns));
        }
    }
    best.map(|(_, ticks, ns)| (ticks, ns))
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: every x86_64 processor has the instruction, and it changes nothing; a process that
    // was forbidden it (PR_SET_TSC) is none of ours.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn khz_is_nearly_the_same_when_measured_again() {
        let known = khz().expect("a counter");
        // On a busy machine a reading may be torn apart; never all of them.
        let near =
            (0..20).any(|_| measure().is_some_and(|again| again.abs_diff(known) < known / 1000));
        assert!(near, "{known}");
    }
}
