//! Image store: load, save, import, export, unpack.

pub mod compress;
pub mod hash;
pub mod limits;
pub mod split;
pub mod store;
pub mod tar;
pub mod unpack;

pub use store::{Image, ImageRecord, ImageStore, LayerMeta, RootKind, StoreError};
