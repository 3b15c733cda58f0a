//! Standard input and output tied to a container: copying, raw terminals, signals, detaching.

pub(crate) mod attached;
pub(crate) mod detach;
pub(crate) mod input;
pub(crate) mod signals;
pub(crate) mod terminal;
