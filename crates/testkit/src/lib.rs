//! What the black-box tests and benches stand on: daemons of their own, fixtures, terminals and
//! the gate that nothing is left behind.
//!
//! Everything here panics where a test would: a fixture that cannot be made is a failed test.

pub mod archive;
pub mod command;
pub mod daemon;
pub mod fixtures;
pub mod http;
pub mod kernel;
pub mod machine;
pub mod paths;
pub mod residue;
pub mod terminal;
pub mod wait;

pub use command::{Output, Run};
pub use daemon::{Daemon, DaemonBuilder};
pub use wait::{eventually, wait_until};
