//! Commands about the engine.

pub(crate) mod df;
pub(crate) mod dial_stdio;
pub(crate) mod events;
pub(crate) mod gc;
pub(crate) mod info;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod prune;
pub(crate) mod version;
