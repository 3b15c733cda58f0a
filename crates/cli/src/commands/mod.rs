//! The commands, one file each.

pub(crate) mod container;
pub(crate) mod daemon;
pub(crate) mod each;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod kernel;
pub(crate) mod manifest;
pub(crate) mod network;
pub(crate) mod prune;
pub(crate) mod system;
pub(crate) mod volume;
