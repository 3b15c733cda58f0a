//! Messages between the daemon and the shim of a sandbox, and, in [`guest`], between a shim and the
//! agent in its guest.
//!
//! A connection is a stream socket. Each frame is a little-endian `u32` length and that many
//! bytes of JSON; descriptors travel with the frame's first byte by `SCM_RIGHTS`. JSON with
//! defaults is chosen over a denser form because a daemon that was upgraded talks to shims
//! that were started by its predecessor.

pub mod frame;
pub mod guest;
pub mod message;
pub mod oci;
pub mod plan;
pub mod vm;

pub use frame::{Decoder, FrameError, MAX_FRAME, encode};
pub use message::{
    Attach, Call, Event, ExecLaunch, ExitStatus, Failure, Launch, Message, Reply, Request, Status,
};
pub use plan::LaunchPlan;
