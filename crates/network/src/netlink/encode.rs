//! Requests, written with every length checked.

use super::{ATTRIBUTE_HEADER_LEN, HEADER_LEN, NLM_F_ACK, NLM_F_REQUEST, NetlinkError};

const NLA_F_NESTED: u16 = 0x8000;

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
    pub(super) fn finish(&mut self, sequence: u32) -> Result<&[u8], NetlinkError> {
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

#[cfg(test)]
mod tests {
    use super::super::{Attributes, Messages, u32_at};
    use super::*;

    #[test]
    fn batch_written_is_read_back() {
        let mut batch = Batch::new();
        batch.request(16, 0, &[7; 16]).text(3, "lo").u32(4, 1500);
        batch.request(17, 0, &[]).nest(18, |b| {
            b.nest_with_header(1, &[9; 4], |b| {
                b.attr(2, &[1, 2, 3]);
            });
        });
        let bytes = batch.finish(40).expect("bytes").to_vec();
        let messages: Vec<_> = Messages::new(&bytes).map(|m| m.expect("one")).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, messages[0].sequence), (16, 40));
        assert_eq!((messages[1].kind, messages[1].sequence), (17, 41));
        let attributes = Attributes::after(messages[0].body, 16);
        assert_eq!(attributes.find(3), Some(&b"lo\0"[..]));
        assert_eq!(attributes.find(4).and_then(|v| u32_at(v, 0)), Some(1500));
        let outer = Attributes::new(messages[1].body).find(18).expect("outer");
        let inner = Attributes::new(outer).find(1).expect("inner");
        assert_eq!(Attributes::after(inner, 4).find(2), Some(&[1, 2, 3][..]));
    }

    #[test]
    fn attribute_over_64_kib_is_refused_not_cut() {
        let mut batch = Batch::new();
        batch.request(16, 0, &[]).attr(1, &vec![0; 65_532]);
        assert!(matches!(batch.finish(1), Err(NetlinkError::TooLarge)));
        let mut batch = Batch::new();
        batch.request(16, 0, &[]).nest(1, |b| {
            b.attr(2, &vec![0; 40_000]).attr(2, &vec![0; 40_000]);
        });
        assert!(matches!(batch.finish(1), Err(NetlinkError::TooLarge)));
        let mut batch = Batch::new();
        batch.request(16, 0, &[]).attr(1, &vec![0; 65_531]);
        assert!(batch.finish(1).is_ok());
    }
}
