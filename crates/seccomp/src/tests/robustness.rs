//! Bytes nobody meant as a profile or a program.

use super::{Numbers, env};
use crate::profile::DOCKER_DEFAULT;
use crate::{Arch, Profile, Program};

fn try_everything(bytes: &[u8]) {
    if let Ok(profile) = Profile::parse(bytes)
        && let Ok(filter) = profile.resolve(&env(Arch::X86_64, &["CAP_SYS_ADMIN"]))
    {
        let _ = filter.compile();
    }
}

#[test]
fn parse_random_bytes_never_panics() {
    let mut numbers = Numbers::new(42);
    for _ in 0..20_000 {
        let length = numbers.below(64) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| numbers.next() as u8).collect();
        try_everything(&bytes);
        let _ = Program::from_bytes(&bytes, 0);
    }
}

#[test]
fn parse_damaged_default_never_panics() {
    let mut numbers = Numbers::new(99);
    for _ in 0..1_500 {
        let mut bytes = DOCKER_DEFAULT.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(bytes.len() as u64) as usize;
            match numbers.below(3) {
                0 => bytes[at] = numbers.next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes[at] = b"{}[]\",:0129-"[numbers.below(12) as usize],
            }
        }
        try_everything(&bytes);
    }
}

#[test]
fn parse_deep_nesting_is_refused() {
    let bytes = [b'['].repeat(100_000);
    assert!(Profile::parse(&bytes).is_err());
}
