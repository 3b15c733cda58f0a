//! System call numbers, one file for each architecture; data only.

pub(crate) mod aarch64;
pub(crate) mod arm;
pub(crate) mod x32;
pub(crate) mod x86;
pub(crate) mod x86_64;
