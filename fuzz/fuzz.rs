//! One program for every target: `HULL_FUZZ_TARGET` says which.

#![no_main]

use std::sync::OnceLock;

use hull_fuzz_checks::{Check, mutate};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};

static CHECK: OnceLock<Check> = OnceLock::new();

fn check() -> Check {
    *CHECK.get_or_init(|| {
        let name = std::env::var("HULL_FUZZ_TARGET").unwrap_or_default();
        hull_fuzz_checks::target(&name)
            .unwrap_or_else(|| panic!("HULL_FUZZ_TARGET: no target {name:?}"))
    })
}

fuzz_target!(|data: &[u8]| check()(data));

// One change in four is of bytes, the others keep it JSON.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 4 != 0
        && let Some(changed) = mutate::json(&data[..size], None, seed)
        && changed.len() <= max_size
    {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    fuzzer_mutate(data, size, max_size)
});

fuzz_crossover!(|first: &[u8], second: &[u8], out: &mut [u8], seed: u32| {
    match mutate::json(first, Some(second), seed) {
        Some(mixed) if mixed.len() <= out.len() => {
            out[..mixed.len()].copy_from_slice(&mixed);
            mixed.len()
        }
        _ => 0,
    }
});
