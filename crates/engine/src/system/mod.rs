//! The host and the engine as a whole.

pub(crate) mod cgroup;
pub(crate) mod descriptors;
pub mod host;
pub mod info;
pub(crate) mod time;
