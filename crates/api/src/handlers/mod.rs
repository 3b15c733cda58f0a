//! What each route does, one file per resource.
pub(crate) mod archive;
mod artifacts;
mod bar;
pub(crate) mod commit;
pub(crate) mod containers;
pub(crate) mod copy;
pub(crate) mod disk;
pub(crate) mod distribution;
pub(crate) mod exec;
pub(crate) mod gc;
pub(crate) mod image_list;
pub(crate) mod images;
pub(crate) mod kernels;
pub(crate) mod lists;
pub(crate) mod network_check;
pub(crate) mod networks;
mod pull;
mod push;
pub(crate) mod search;
pub(crate) mod streams;
pub(crate) mod system;
pub(crate) mod volumes;

use std::sync::Arc;

use axum::extract::State;
use hull_engine::Engine;

/// The engine, as handlers take it.
pub(crate) type Eng = State<Arc<Engine>>;
