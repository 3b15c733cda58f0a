//! Image store: load, save, import, export, unpack.

pub mod archive;
pub mod builtin;
pub mod change;
pub mod commit;
pub mod compress;
pub mod content;
pub mod copy;
pub mod export;
pub mod hash;
pub mod import;
pub mod limits;
pub mod platform;
pub mod split;
pub mod store;
pub mod tar;
pub mod unpack;

pub use store::{Image, ImageRecord, ImageStore, LayerMeta, RootKind, StoreError};
