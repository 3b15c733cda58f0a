//! The channel between a shim and the agent in its guest: one stream of bytes, whatever carries it
//! (a virtio-serial port, vsock, a socket in tests).
//!
//! ```text
//! shim                                            agent (process 1 of the guest)
//!                                        ◀──────  Hello
//!   Call {seq, Prepare} ─────────────────────▶                clock, disks, shares, network
//!   Call {seq, Launch | Exec | Signal | …} ──▶                may follow at once: in order
//!                                        ◀──────  Reply {seq, …}   once for each call, in order
//!   Data(stdin) · End ───────────────────────▶
//!                                        ◀──────  Data(stdout) · Data(stderr) · End
//!          ◀─── Credit / Stop of the stream's receiver ───▶
//!                                        ◀──────  Ended {session, code} · Oom · Warning
//! ```
//!
//! Control messages are JSON with defaults, what processes read and write are bytes as they are.
//! Both are frames of [`wire`]. A sender of a stream may have sent no more than the receiver gave
//! [`credit`] for, so that a slow reader holds back its own stream alone and both sides know how
//! much they may have to keep. **Neither side trusts the other:** every length, number and order
//! is checked, and what breaks a rule ends the channel, for which see [`WireError`].
//!
//! A session is a process with its streams; the shim numbers them, the first process is
//! [`FIRST_SESSION`]. A number is free again once `Ended` and the `End` of each of the streams it
//! was connected with have come. `Ended` comes after all that the process wrote, unless the
//! receiver gave no credit for it for [`DRAIN_LIMIT_MS`].

pub mod credit;
pub mod message;
pub mod wire;

pub use credit::{Receiving, Sending};
pub use message::{
    BootTimes, Disk, DiskName, Failed, GuestCall, GuestEvent, GuestExec, GuestFile, GuestLaunch,
    GuestMessage, GuestProcess, GuestReply, GuestRequest, GuestStdio, Hello, Interface, Prepare,
    Processes, Route, Share, ShareKind,
};
pub use wire::{Channel, Decoder, Frame, StreamId, WireError};

/// Version of this protocol. Shim and agent are of one build: another number is refused.
pub const VERSION: u32 = 1;
/// Name of the virtio-serial port of the channel.
pub const PORT_NAME: &str = "hull.agent";
/// Word of the kernel's command line that has the channel on vsock: `hull.vsock=PORT`. The agent
/// connects to the host there.
pub const VSOCK_WORD: &str = "hull.vsock=";
/// Where the agent's program is in the guest, for `LaunchPlan::init` and the like.
pub const AGENT_PATH: &str = "/hull/agent";
/// Where the initramfs is in the guest, should it have more than the agent.
pub const INITRAMFS_PATH: &str = "/hull/initramfs";
/// Folder for disks, shares and files of `Prepare`; all of their targets are below it.
pub const MOUNTS_PATH: &str = "/hull/mnt";
/// Parent of the control groups that plans may name.
pub const CGROUP_PARENT: &str = "/hull";

/// Largest control message to the agent, bytes: a launch plan with a very large environment fits.
pub const MAX_CALL: usize = 16 << 20;
/// Largest control message from the agent, bytes.
pub const MAX_REPLY: usize = 512 << 10;
/// Most data in a frame, bytes.
pub const MAX_DATA: usize = 64 << 10;
/// Sessions are numbered below this.
pub const MAX_SESSIONS: u32 = 1024;
/// The session of the first process.
pub const FIRST_SESSION: u32 = 0;
/// What may be sent on a stream before its receiver has said anything, bytes.
pub const INITIAL_CREDIT: u32 = 64 << 10;
/// Most that a receiver may have given credit for and not got, bytes.
pub const MAX_CREDIT: u32 = 1 << 20;
/// Most disks, shares, interfaces, routes and files of a call, each.
pub const MAX_ITEMS: usize = 1024;
/// Most processes that are listed.
pub const MAX_PROCESSES: usize = 4096;
/// A command line is cut off after so many bytes in lists.
pub const MAX_COMMAND: usize = 512;
/// How long the end of a process is held back for want of credit for its last output.
pub const DRAIN_LIMIT_MS: u64 = 500;
