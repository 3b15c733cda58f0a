//! Names of containers, volumes and networks, and the made-up ones for those who give none.

use crate::error::Error;

/// Longest name accepted, in bytes.
pub const MAX_NAME: usize = 255;

/// Checks a name of a container, volume or network: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as Docker does.
///
/// # Errors
/// Says which `what` was refused and which characters are allowed.
pub fn validate(what: &str, name: &str) -> Result<(), Error> {
    let bytes = name.as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    let rest = bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b));
    if first && rest && bytes.len() >= 2 && bytes.len() <= MAX_NAME {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid {what} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

const MOODS: [&str; 32] = [
    "able", "brave", "brisk", "calm", "candid", "clear", "deft", "eager", "even", "fair", "fleet",
    "fresh", "glad", "hardy", "keen", "kind", "light", "lucid", "merry", "neat", "noble", "quick",
    "quiet", "ready", "sharp", "sleek", "solid", "steady", "swift", "tidy", "trim", "warm",
];
const VESSELS: [&str; 32] = [
    "barge", "brig", "canoe", "caravel", "catboat", "clipper", "cog", "coracle", "cutter", "dhow",
    "dinghy", "dory", "ferry", "frigate", "galley", "gig", "junk", "kayak", "ketch", "launch",
    "lugger", "packet", "pinnace", "punt", "sampan", "schooner", "skiff", "sloop", "tender", "tug",
    "wherry", "yawl",
];

/// Makes a readable name from random bits. `attempt` above zero adds a number, so that a caller
/// that met a taken name soon finds a free one.
pub fn generate(random: u64, attempt: u32) -> String {
    let mood = MOODS[(random % 32) as usize];
    let vessel = VESSELS[((random >> 5) % 32) as usize];
    if attempt == 0 {
        format!("{mood}_{vessel}")
    } else {
        format!(
            "{mood}_{vessel}{}",
            (random >> 10) % (10 * u64::from(attempt).pow(3).min(1 << 40))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_with_slash_space_or_leading_dash_is_refused() {
        for bad in ["", "a", "-ab", "a/b", "a b", "é1"] {
            assert!(validate("container", bad).is_err(), "{bad:?}");
        }
        assert!(validate("container", "web-1.front_end").is_ok());
    }

    #[test]
    fn generated_name_is_valid() {
        for n in 0..5000u64 {
            validate(
                "container",
                &generate(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n as u32 % 7),
            )
            .unwrap();
        }
    }
}
