//! What must hold for any input: run by the fuzzers of `fuzz/`, and over their seeds in every test run.
//!
//! A check takes bytes nobody meant well and panics if something is wrong. It touches nothing on
//! the machine: whatever names a path in the input is put aside before it would be opened, and
//! layers are unpacked in a folder of the check's own, which shows whether they stay in it.

mod bundle;
mod documents;
mod guest;
mod harmless;
mod layers;
mod mounts;
pub mod mutate;
mod names;
mod seccomp;
mod texts;

/// A check: panics if what must hold does not.
pub type Check = fn(&[u8]);

/// Each target's name and check.
pub const TARGETS: [(&str, Check); 17] = [
    ("config", bundle::config),
    ("process", bundle::process),
    ("seccomp", seccomp::check),
    ("mounts", mounts::check),
    ("references", texts::reference),
    ("challenges", texts::challenge),
    ("hosts", texts::hosts),
    ("egress", texts::egress),
    ("credentials", texts::credentials),
    ("manifests", documents::manifest),
    ("images", documents::image),
    ("tars", layers::tar),
    ("unpack", layers::unpack),
    ("dns-questions", names::question),
    ("dns-replies", names::reply),
    ("guest-frames", guest::frames),
    ("guest-messages", guest::messages),
];

/// The check of a target.
#[must_use]
pub fn target(name: &str) -> Option<Check> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, check)| *check)
}
