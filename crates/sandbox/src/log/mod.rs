//! The json-file log of a sandbox.

mod file;
mod format;
mod lines;

pub(crate) use file::{Log, Trouble};
pub(crate) use lines::Lines;
