//! Names, ids, references, digests, limits, mounts and ports: plain data that every part of
//! Hull shares. No I/O happens here.

pub mod amount;
pub mod digest;
pub mod egress;
pub mod error;
pub mod image;
pub mod json;
pub mod limits;
pub mod name;
pub mod reference;
pub mod resources;
pub mod spec;
pub mod stats;

pub use digest::Digest;
pub use error::{Error, ErrorKind, Result};
pub use image::ImageConfig;
pub use reference::Reference;
pub use resources::{Resources, Ulimit};
pub use spec::ContainerSpec;
pub use stats::Stats;
