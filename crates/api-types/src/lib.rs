//! Wire types of the Docker Engine API (1.24 to 1.51), one file per resource.
//!
//! Names and field order follow the Engine API reference, so that what Hull prints looks like what
//! Docker prints. Reading is as forgiving as Go's decoder: a missing field and a `null` are the
//! zero value, unknown fields are skipped. Writing leaves out what Docker leaves out.
#![recursion_limit = "512"]
#![allow(
    missing_docs,
    reason = "the fields are the API reference's own, which documents each; types are documented here"
)]

#[macro_use]
mod wire;

pub mod container;
pub mod error;
pub mod exec;
pub mod gc;
pub mod host_config;
pub mod image;
pub mod inspect;
pub mod kernel;
pub mod network;
pub mod network_check;
pub mod progress;
pub mod stats;
pub mod system;
pub mod volume;

pub use wire::{Empty, StrSlice};

/// The newest API version spoken.
pub const API_VERSION: &str = "1.51";
/// The oldest API version accepted.
pub const MIN_API_VERSION: &str = "1.24";
