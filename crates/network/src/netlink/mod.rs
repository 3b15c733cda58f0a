//! Netlink spoken directly: a length-checked encoder and decoder, and a synchronous socket.
//!
//! One [`Batch`] holds several requests and leaves in one system call; the kernel answers each of
//! them in order (netlink(7), rtnetlink(7)). Everything read is foreign data: the decoder yields
//! errors, never panics, and never reads past what it was given.

mod decode;
mod encode;
mod socket;

use std::io;

pub use decode::{Attributes, Message, Messages, ipv4, text, u16_at, u32_at};
pub(crate) use encode::Batch;
pub(crate) use socket::{Family, Socket};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// Most requests with an acknowledgement each in one batch: all of them wait in the socket's buffer
/// until the last is done.
pub(crate) const MAX_ACKNOWLEDGED: usize = 64;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Why talking to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A socket call failed.
    #[error("netlink socket: {step}")]
    Socket {
        /// The call.
        step: &'static str,
        /// Its error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("kernel refused request {index}: {}{}", io::Error::from_raw_os_error(*errno), detail(message))]
    Refused {
        /// Which request of the batch, from zero.
        index: usize,
        /// Error number, positive.
        errno: i32,
        /// The kernel's own sentence, or empty.
        message: String,
    },
    /// A message of the kernel could not be read.
    #[error("malformed netlink message: {0}")]
    Malformed(&'static str),
    /// A request outgrew the format.
    #[error("netlink request too large")]
    TooLarge,
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

impl NetlinkError {
    /// The kernel's error number, if it is what went wrong.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
