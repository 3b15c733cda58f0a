//! Values of flags, parsed and checked as Docker's command line does.

pub(crate) mod device;
pub(crate) mod egress;
pub(crate) mod environment;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod reference;
pub(crate) mod restart;
pub(crate) mod scalar;
pub(crate) mod security;
pub(crate) mod subnet;
pub(crate) mod timestamp;
pub(crate) mod ulimit;
pub(crate) mod volume;
