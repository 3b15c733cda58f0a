//! Waiting for a condition instead of sleeping for luck.

use std::time::{Duration, Instant};

/// Polls until the condition holds; false when the time is up.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Polls until the condition holds.
///
/// # Panics
/// If it does not within ten seconds.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        wait_until(Duration::from_secs(10), condition),
        "not within ten seconds: {what}"
    );
}
