//! Netlink spoken directly: a length-checked encoder and decoder, and a synchronous socket.
//!
//! One [`Batch`] holds several requests and leaves in one system call; the kernel answers each of
//! them in order (netlink(7), rtnetlink(7)). Everything read is foreign data: the decoder yields
//! errors, never panics, and never reads past what it was given.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hull_sys::netns::{self, NetlinkOption};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;
/// The two high bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// The kernel never sends more than 32 KiB in one datagram of a dump.
const RECEIVE_BYTES: usize = 64 << 10;
/// Dumps beyond this many objects are cut: no host of ours has so many links or routes.
const MAX_DUMP_OBJECTS: usize = 1 << 20;
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Several requests, sent in one system call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Where each request begins.
    starts: Vec<usize>,
    too_large: bool,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Number of requests.
    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Begins a request with its fixed part `body`; the attributes that follow belong to it.
    pub(crate) fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> &mut Self {
        self.starts.push(self.bytes.len());
        // The length is filled in by `finish`, the sequence number by the socket.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(body);
        self.align();
        self
    }

    /// Has the last request so far acknowledged, and answers its number.
    pub(crate) fn acknowledge_last(&mut self) -> usize {
        if let Some(start) = self.starts.last() {
            // The flags are the two bytes at offset 6 of the header.
            if let Some(flags) = self.bytes.get_mut(start + 6..start + 8) {
                let value = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
                flags.copy_from_slice(&value.to_ne_bytes());
            }
        }
        self.starts.len().saturating_sub(1)
    }

    /// Adds one attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        match u16::try_from(value.len() + ATTRIBUTE_HEADER_LEN) {
            Ok(length) => {
                self.bytes.extend_from_slice(&length.to_ne_bytes());
                self.bytes.extend_from_slice(&kind.to_ne_bytes());
                self.bytes.extend_from_slice(value);
                self.align();
            }
            Err(_) => self.too_large = true,
        }
        self
    }

    /// Adds an attribute of 32 bits in host order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute of 32 bits in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds a string that ends in a zero byte.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds an attribute made of those that `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.open(kind | NLA_F_NESTED, &[], fill)
    }

    /// As [`Batch::nest`], for the one attribute that begins with a fixed header.
    pub(crate) fn nest_with_header(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        self.open(kind, header, fill)
    }

    fn open(&mut self, kind: u16, header: &[u8], fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        self.align();
        fill(self);
        let length = self.bytes.len() - start;
        match (
            u16::try_from(length),
            self.bytes.get_mut(start..start.saturating_add(2)),
        ) {
            (Ok(length), Some(slot)) => slot.copy_from_slice(&length.to_ne_bytes()),
            _ => self.too_large = true,
        }
        self
    }

    fn align(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    /// Writes lengths and sequence numbers, the first of which is `sequence`.
    fn finish(&mut self, sequence: u32) -> Result<&[u8], NetlinkError> {
        if self.too_large {
            return Err(NetlinkError::TooLarge);
        }
        let ends = self
            .starts
            .iter()
            .skip(1)
            .copied()
            .chain([self.bytes.len()])
            .collect::<Vec<_>>();
        for (index, (&start, &end)) in self.starts.iter().zip(&ends).enumerate() {
            let length = u32::try_from(end - start).map_err(|_| NetlinkError::TooLarge)?;
            let number =
                sequence.wrapping_add(u32::try_from(index).map_err(|_| NetlinkError::TooLarge)?);
            let header = self
                .bytes
                .get_mut(start..start + HEADER_LEN)
                .ok_or(NetlinkError::TooLarge)?;
            header[..4].copy_from_slice(&length.to_ne_bytes());
            header[8..12].copy_from_slice(&number.to_ne_bytes());
        }
        Ok(&self.bytes)
    }
}

/// One message as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Splits a datagram into messages.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// The messages in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        let read = || -> Option<(Message<'a>, &'a [u8])> {
            let length = usize::try_from(u32_at(whole, 0)?).ok()?;
            let body = whole.get(HEADER_LEN..length)?;
            let message = Message {
                kind: u16_at(whole, 4)?,
                flags: u16_at(whole, 6)?,
                sequence: u32_at(whole, 8)?,
                body,
            };
            let rest = whole
                .get(length.checked_next_multiple_of(4)?..)
                .unwrap_or_default();
            Some((message, rest))
        };
        match read() {
            Some((message, rest)) => {
                self.rest = rest;
                Some(Ok(message))
            }
            None => Some(Err(NetlinkError::Malformed("message header"))),
        }
    }
}

/// The attributes in a message; a malformed one ends the sequence with an error.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The attributes of `body` behind its fixed part of `header` bytes.
    pub fn after(body: &'a [u8], header: usize) -> Self {
        Self::new(body.get(header..).unwrap_or_default())
    }

    /// The first attribute of `kind`, if the bytes up to it are well-formed.
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .map_while(Result::ok)
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), NetlinkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        let read = || -> Option<(u16, &'a [u8], &'a [u8])> {
            let length = usize::from(u16_at(whole, 0)?);
            let kind = u16_at(whole, 2)? & NLA_TYPE_MASK;
            let value = whole.get(ATTRIBUTE_HEADER_LEN..length)?;
            let rest = whole
                .get(length.checked_next_multiple_of(4)?..)
                .unwrap_or_default();
            Some((kind, value, rest))
        };
        match read() {
            Some((kind, value, rest)) => {
                self.rest = rest;
                Some(Ok((kind, value)))
            }
            None => Some(Err(NetlinkError::Malformed("attribute"))),
        }
    }
}

/// Two bytes in host order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let slot = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_ne_bytes(slot.try_into().ok()?))
}

/// Four bytes in host order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let slot = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(slot.try_into().ok()?))
}

/// An IPv4 address.
pub fn ipv4(bytes: &[u8]) -> Option<std::net::Ipv4Addr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(octets.into())
}

/// A string up to its zero byte.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0);
    std::str::from_utf8(bytes.get(..end.unwrap_or(bytes.len()))?).ok()
}

/// Which part of the kernel a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

/// A netlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(family: Family) -> Result<Self, NetlinkError> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map_err(socket_error("open"))?;
        rustix::net::sockopt::set_socket_timeout(
            &fd,
            rustix::net::sockopt::Timeout::Recv,
            Some(REPLY_TIMEOUT),
        )
        .map_err(socket_error("set the timeout"))?;
        // Older kernels lack some of these; they only make replies shorter and clearer.
        for option in [
            NetlinkOption::ExtendedAck,
            NetlinkOption::CappedAck,
            NetlinkOption::StrictCheck,
        ] {
            netns::enable_netlink_option(&fd, option).ok();
        }
        Ok(Self {
            fd,
            sequence: 1,
            buffer: Vec::new(),
        })
    }

    /// Sends `batch`, each request of which must ask for an acknowledgement, and answers one result
    /// for each.
    pub(crate) fn exchange(
        &mut self,
        batch: &mut Batch,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let last = batch.len().saturating_sub(1);
        self.exchange_until(batch, last)
    }

    /// Sends `batch` and waits until request `last` is answered; what was not answered until then
    /// counts as done.
    fn exchange_until(
        &mut self,
        batch: &mut Batch,
        last: usize,
    ) -> Result<Vec<Result<(), NetlinkError>>, NetlinkError> {
        let mut results: Vec<_> = (0..batch.len()).map(|_| Ok(())).collect();
        self.talk(batch, |index, message| {
            if message.kind != NLMSG_ERROR {
                return Ok(false);
            }
            let outcome = acknowledgement(index, message);
            let given_up = outcome.is_err() && is_batch_begin(message);
            if let Some(slot) = results.get_mut(index) {
                *slot = outcome;
            }
            Ok(index == last || given_up)
        })?;
        Ok(results)
    }

    /// As [`Socket::exchange`], and the first refusal is the error.
    pub(crate) fn execute(&mut self, batch: &mut Batch) -> Result<(), NetlinkError> {
        self.exchange(batch)?.into_iter().collect()
    }

    /// As [`Socket::execute`] where only request `last`, and those that fail, are answered.
    pub(crate) fn execute_until(
        &mut self,
        batch: &mut Batch,
        last: usize,
    ) -> Result<(), NetlinkError> {
        self.exchange_until(batch, last)?.into_iter().collect()
    }

    /// Sends one request and hands each object of the answer to `each`; `dump` says that the
    /// answer ends with a mark of its own.
    pub(crate) fn query(
        &mut self,
        batch: &mut Batch,
        dump: bool,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let mut objects = 0;
        self.talk(batch, |index, message| match message.kind {
            NLMSG_DONE => Ok(true),
            NLMSG_ERROR => acknowledgement(index, message).map(|()| true),
            _ => {
                objects += 1;
                if objects > MAX_DUMP_OBJECTS {
                    return Err(NetlinkError::TooLarge);
                }
                if message.flags & NLM_F_DUMP_INTR != 0 && message.body.is_empty() {
                    return Ok(false);
                }
                each(message);
                Ok(!dump)
            }
        })
    }

    /// Sends, then reads until `on_message(index, message)` says that it is over.
    fn talk(
        &mut self,
        batch: &mut Batch,
        mut on_message: impl FnMut(usize, Message<'_>) -> Result<bool, NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let Some(last) = batch.len().checked_sub(1) else {
            return Ok(());
        };
        let first = self.sequence;
        let bytes = batch.finish(first)?;
        self.sequence = first
            .wrapping_add(u32::try_from(last).map_err(|_| NetlinkError::TooLarge)?)
            .wrapping_add(1);
        if bytes.len() > 64 << 10 {
            let size = u32::try_from(bytes.len()).map_err(|_| NetlinkError::TooLarge)?;
            netns::force_send_buffer(&self.fd, size.saturating_mul(2)).ok();
        }
        rustix::net::send(&self.fd, bytes, SendFlags::empty()).map_err(socket_error("send"))?;
        self.buffer.resize(RECEIVE_BYTES, 0);
        loop {
            let received = loop {
                match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                    Ok((_, received)) => break received,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(socket_error("receive")(errno)),
                }
            };
            let datagram = self
                .buffer
                .get(..received)
                .ok_or(NetlinkError::Malformed("truncated datagram"))?;
            for message in Messages::new(datagram) {
                let message = message?;
                // Left over from an exchange that was given up, or a notice.
                let index = message.sequence.wrapping_sub(first);
                let Ok(index) = usize::try_from(index) else {
                    continue;
                };
                if index > last {
                    continue;
                }
                if on_message(index, message)? {
                    return Ok(());
                }
            }
        }
    }
}

fn socket_error(step: &'static str) -> impl Fn(rustix::io::Errno) -> NetlinkError {
    move |errno| NetlinkError::Socket {
        step,
        source: errno.into(),
    }
}

/// Whether an error message answers the beginning of a netfilter batch: then nothing was done, and
/// no other answer comes.
fn is_batch_begin(message: Message<'_>) -> bool {
    const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
    u16_at(message.body, 4 + 4) == Some(NFNL_MSG_BATCH_BEGIN)
}

/// Reads an `NLMSG_ERROR`: zero is success.
fn acknowledgement(index: usize, message: Message<'_>) -> Result<(), NetlinkError> {
    let code = u32_at(message.body, 0).ok_or(NetlinkError::Malformed("acknowledgement"))?;
    let errno = code.cast_signed().wrapping_neg();
    if errno == 0 {
        return Ok(());
    }
    let sentence = if message.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = if message.flags & NLM_F_CAPPED != 0 {
            HEADER_LEN
        } else {
            u32_at(message.body, 4)
                .and_then(|length| usize::try_from(length).ok())
                .map_or(HEADER_LEN, |length| length.next_multiple_of(4))
        };
        Attributes::after(message.body, echoed.saturating_add(4))
            .find(NLMSGERR_ATTR_MSG)
            .and_then(text)
            .unwrap_or_default()
    } else {
        ""
    };
    Err(NetlinkError::Refused {
        index,
        errno,
        message: sentence.to_owned(),
    })
}
