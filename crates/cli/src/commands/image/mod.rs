//! Commands about images.

pub(crate) mod archive;
pub(crate) mod copy;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod remove;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod tag;
pub(crate) mod tree;
