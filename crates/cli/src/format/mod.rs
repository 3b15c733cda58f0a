//! Lists as tables, JSON or by template, and how things look for people.

pub(crate) mod container;
pub(crate) mod human;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod ports;
pub(crate) mod tabwriter;
pub(crate) mod usage;
