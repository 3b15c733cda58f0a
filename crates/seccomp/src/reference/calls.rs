//! System calls worth asking a filter about: around every value its profile compares with.

use super::Call;
use crate::Arch;
use crate::arch::X32_SYSCALL_BIT;
use crate::profile::{Profile, Test};

/// Conventions a call may come by.
const CONVENTIONS: [Arch; 5] = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
/// Numbers no table has.
const STRANGE: [u32; 4] = [400, 100_000, 0x8000_0000, u32::MAX];
/// Names looked at, and values of each: a bound for what a fuzzer makes.
const MAX_NAMES: usize = 64;
const MAX_VALUES: usize = 24;

/// Calls around what the profile says, by each convention.
#[must_use]
pub fn interesting(profile: &Profile) -> Vec<Call> {
    let mut calls = Vec::new();
    for arch in CONVENTIONS {
        let base = if arch == Arch::X32 {
            X32_SYSCALL_BIT
        } else {
            0
        };
        for number in STRANGE {
            calls.push(call(arch, number | base, [0; 6]));
        }
    }
    let named = profile
        .rules
        .iter()
        .flat_map(|rule| rule.names.iter().map(move |name| (rule, name)));
    for (rule, name) in named.take(MAX_NAMES) {
        for arch in CONVENTIONS {
            let Some(number) = arch.syscall_number(name) else {
                continue;
            };
            calls.push(call(arch, number, [0; 6]));
            // One argument at a time, the others as their own tests want them.
            let mut held = [0; 6];
            for arg in &rule.args {
                if let Some(slot) = held.get_mut(usize::from(arg.index)) {
                    *slot = fitting(arg.test);
                }
            }
            calls.push(call(arch, number, held));
            for arg in &rule.args {
                for value in around(arg.test) {
                    let mut args = held;
                    if let Some(slot) = args.get_mut(usize::from(arg.index)) {
                        *slot = value;
                    }
                    calls.push(call(arch, number, args));
                }
            }
        }
    }
    calls
}

fn call(arch: Arch, number: u32, args: [u64; 6]) -> Call {
    Call {
        arch: arch.audit(),
        number,
        args,
    }
}

/// A value for which the test holds, where there is one.
fn fitting(test: Test) -> u64 {
    match test {
        Test::NotEqual(value) => value.wrapping_add(1),
        Test::Less(value) => value.saturating_sub(1),
        Test::LessOrEqual(value) | Test::Equal(value) | Test::GreaterOrEqual(value) => value,
        Test::Greater(value) => value.saturating_add(1),
        Test::MaskedEqual { value, .. } => value,
    }
}

fn around(test: Test) -> Vec<u64> {
    let (value, mask) = match test {
        Test::NotEqual(value)
        | Test::Less(value)
        | Test::LessOrEqual(value)
        | Test::Equal(value)
        | Test::GreaterOrEqual(value)
        | Test::Greater(value) => (value, u64::MAX),
        Test::MaskedEqual { mask, value } => (value, mask),
    };
    let low = value & 0xffff_ffff;
    let mut values = vec![
        value,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value ^ mask,
        value | !mask,
        value & mask,
        !value,
        mask,
        low,
        low | 0xffff_ffff_0000_0000,
        low | 0x1_0000_0000,
        value.wrapping_add(1 << 32),
        value.wrapping_sub(1 << 32),
        value ^ 0x8000_0000,
        value ^ (1 << 63),
        value.rotate_left(32),
        0,
        u64::MAX,
        0xffff_ffff,
        0x8000_0000,
    ];
    values.truncate(MAX_VALUES);
    values.sort_unstable();
    values.dedup();
    values
}
