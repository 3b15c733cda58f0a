//! Messages and attributes, read with every length checked.

use super::{ATTRIBUTE_HEADER_LEN, HEADER_LEN, NetlinkError};

/// The two high bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

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
