//! Commands about the kernels of virtual machines.

pub(crate) mod choose;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod remove;
