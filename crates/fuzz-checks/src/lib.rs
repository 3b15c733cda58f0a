//! What must hold for any input: run by the fuzzers of `fuzz/`, and over their seeds in every test run.
//!
//! A check takes bytes nobody meant well and panics if something is wrong. It touches nothing on
//! the machine: whatever names a path in the input is put aside before it would be opened.

mod bundle;
mod harmless;
mod mounts;
pub mod mutate;
mod seccomp;

/// A check: panics if what must hold does not.
pub type Check = fn(&[u8]);

/// Each target's name and check.
pub const TARGETS: [(&str, Check); 4] = [
    ("config", bundle::config),
    ("process", bundle::process),
    ("seccomp", seccomp::check),
    ("mounts", mounts::check),
];

/// The check of a target.
#[must_use]
pub fn target(name: &str) -> Option<Check> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, check)| *check)
}
