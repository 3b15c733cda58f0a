//! The sandbox contract, its back end for containers, and the loop with which a shim serves it.
//!
//! ```text
//! bin/hull-shim ─▶ serve::Server ─▶ Sandbox (trait) ◀─ Container (hull_container)
//!                    │                              ◀─ Vm (hull_hypervisor, hull_container)
//!                    │ control connections, streams, log, exit status
//! ```

pub mod container;
pub mod contract;
mod either;
mod log;
pub mod serve;
mod vm;

pub use container::Container;
pub use contract::{Process, Sandbox, Stdio, Streams};
pub use either::Either;
pub use serve::{ServeError, Server, Setup};
pub use vm::Vm;
