//! Between wire types and the model: pure functions, tested without an engine.
pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod create;
pub(crate) mod egress;
pub(crate) mod image;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod ports;
pub(crate) mod six;
pub(crate) mod stats;
pub(crate) mod time;
pub(crate) mod volume;
