//! The little of rtnetlink(7) that moving an interface or setting one up takes: messages are built
//! with checked lengths and read with checked bounds.

use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::{Errno, Result};

/// Makes or changes an interface; also the kind of an answer that tells of one.
pub const NEW_LINK: u16 = 16;
/// Gives an address.
pub const NEW_ADDRESS: u16 = 20;
/// Asks for addresses.
pub const GET_ADDRESS: u16 = 22;
/// Makes a route.
pub const NEW_ROUTE: u16 = 24;
/// Name of an interface, with a zero byte.
pub const IFLA_IFNAME: u16 = 3;
/// Largest packet of an interface.
pub const IFLA_MTU: u16 = 4;
/// Network namespace to move to.
pub const IFLA_NET_NS_FD: u16 = 28;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// The whole table.
pub const DUMP: u16 = 0x300;
/// Make it, and fail if it is there.
pub const CREATE: u16 = 0x600;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const BUFFER: usize = 64 * 1024;

/// A request in the making.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// `body` is the fixed part after the header.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        Self(bytes)
    }

    /// Adds an attribute.
    ///
    /// # Errors
    /// `EMSGSIZE` if it is too long for one.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Result<Self> {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).map_err(|_| Errno::MSGSIZE)?;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
        Ok(self)
    }

    fn finish(mut self, sequence: u32) -> Result<Vec<u8>> {
        let length = u32::try_from(self.0.len()).map_err(|_| Errno::MSGSIZE)?;
        if let Some(field) = self.0.get_mut(..4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        if let Some(field) = self.0.get_mut(8..12) {
            field.copy_from_slice(&sequence.to_ne_bytes());
        }
        Ok(self.0)
    }
}

/// A socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// The errno of socket(2).
    pub fn open() -> Result<Self> {
        // No protocol is number 0, which is that of routes.
        let flags = SocketFlags::CLOEXEC;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Number of an interface.
    ///
    /// # Errors
    /// `ENODEV` if there is none of this name.
    pub fn index(&self, name: &str) -> Result<u32> {
        rustix::net::netdevice::name_to_index(&self.fd, name)
    }

    /// Sends and waits for the acknowledgement; the messages that came before it, without their
    /// headers.
    ///
    /// # Errors
    /// The reason for which the kernel refuses; `EBADMSG` for an answer that is cut off.
    pub fn ask(&mut self, request: Request) -> Result<Vec<(u16, Vec<u8>)>> {
        self.sequence += 1;
        let bytes = request.finish(self.sequence)?;
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0u8; BUFFER];
        loop {
            let count = match recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                result => result?.0,
            };
            let mut rest = buffer.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                let (kind, sequence, body, next) = split(rest).ok_or(Errno::BADMSG)?;
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    DONE => return Ok(answers),
                    ERROR => match number(body) {
                        Some(0) => return Ok(answers),
                        Some(error) => {
                            return Err(Errno::from_raw_os_error(error.saturating_neg()));
                        }
                        None => return Err(Errno::BADMSG),
                    },
                    kind => answers.push((kind, body.to_vec())),
                }
            }
        }
    }
}

/// Attributes that follow a fixed part.
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut list = Vec::new();
    while let [a, b, c, d, ..] = *bytes {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = bytes.get(ATTRIBUTE_HEADER..length) else {
            break;
        };
        list.push((u16::from_ne_bytes([c, d]), value));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    list
}

/// The first message: its kind, sequence number and body, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let &[a, b] = bytes.get(4..6)? else {
        return None;
    };
    let sequence = number(bytes.get(8..)?)?.cast_unsigned();
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(aligned(length)..).unwrap_or_default();
    Some((u16::from_ne_bytes([a, b]), sequence, body, next))
}

fn number(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lengths_are_those_of_the_whole_and_padded() {
        let bytes = Request::new(NEW_LINK, 0, &[7; 16])
            .attribute(IFLA_IFNAME, b"eth0\0")
            .and_then(|request| request.finish(9))
            .expect("built");
        assert_eq!(bytes.len(), 16 + 16 + 4 + 8);
        let (kind, sequence, body, rest) = split(&bytes).expect("split");
        assert_eq!((kind, sequence, rest.len()), (NEW_LINK, 9, 0));
        assert_eq!(
            attributes(&body[16..]),
            [(IFLA_IFNAME, b"eth0\0".as_slice())]
        );
        assert!(
            Request::new(0, 0, &[])
                .attribute(1, &vec![0; 70_000])
                .is_err()
        );
    }

    #[test]
    fn split_and_attributes_survive_any_cut() {
        let bytes = Request::new(NEW_LINK, 0, &[7; 16])
            .attribute(IFLA_IFNAME, b"eth0\0")
            .and_then(|request| request.finish(1))
            .expect("built");
        for length in 0..bytes.len() {
            assert!(split(&bytes[..length]).is_none());
            attributes(&bytes[..length]);
        }
        assert!(attributes(&[0, 0, 1, 0]).is_empty());
    }

    #[test]
    fn ask_unknown_interface_is_an_error_of_the_kernel() {
        let socket = Socket::open().expect("socket");
        assert_eq!(socket.index("hull-none"), Err(Errno::NODEV));
        assert!(socket.index("lo").is_ok());
    }
}
