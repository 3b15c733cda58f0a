//! Sets and maps of our table, and what stands in them.
//!
//! Whatever differs from network to network or from container to container is an element of a set,
//! never a rule of its own: a packet costs the same look-up however many there are, and a change is
//! one small transaction.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::types::Subnet;

/// The kernel's names of interfaces take 16 bytes, zero-padded.
const INTERFACE_BYTES: usize = 16;

/// What a part of a key or of data is. The number is nft's, which only makes listings readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An address of IPv4.
    V4 = 7,
    /// An address of IPv6.
    V6 = 8,
    /// A port of any protocol.
    Port = 13,
    /// An interface's name.
    Interface = 41,
}

impl Kind {
    /// How many bytes it takes.
    pub(crate) fn bytes(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 | Self::Interface => 16,
            Self::Port => 2,
        }
    }

    /// As many bytes it takes.
    pub(crate) fn length(self) -> usize {
        usize::try_from(self.bytes()).unwrap_or(0)
    }
}

/// A set, or a map if it has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    /// Name.
    pub(crate) name: &'static str,
    /// What it is looked up by.
    pub(crate) key: &'static [Kind],
    /// What is found; empty for a set.
    pub(crate) data: &'static [Kind],
    /// Its elements are ranges.
    pub(crate) interval: bool,
}

impl Set {
    /// A set of `key`s.
    pub(crate) const fn of(name: &'static str, key: &'static [Kind]) -> Self {
        Self {
            name,
            key,
            data: &[],
            interval: false,
        }
    }

    /// A set of ranges of `key`.
    pub(crate) const fn ranges(name: &'static str, key: &'static [Kind]) -> Self {
        Self {
            interval: true,
            ..Self::of(name, key)
        }
    }

    /// A map from `key` to `data`.
    pub(crate) const fn map(
        name: &'static str,
        key: &'static [Kind],
        data: &'static [Kind],
    ) -> Self {
        Self {
            data,
            ..Self::of(name, key)
        }
    }

    /// nft's number of the key's type, and its length in bytes.
    pub(crate) fn key_layout(&self) -> (u32, u32) {
        layout(self.key)
    }

    /// What nft needs to know to list the set readably: in which order the bytes of names and
    /// numbers stand. The kernel keeps it and does not look.
    pub(crate) fn byte_orders(&self) -> Vec<u8> {
        const KEY: u8 = 0;
        const DATA: u8 = 1;
        const HOST: u32 = 1;
        const NETWORK: u32 = 2;
        let mut told = Vec::new();
        for (what, kinds) in [(KEY, self.key), (DATA, self.data)] {
            let order = match kinds {
                [] => continue,
                [Kind::Interface] => HOST,
                _ => NETWORK,
            };
            told.extend([what, 4]);
            told.extend(order.to_ne_bytes());
        }
        told
    }

    /// As [`Set::key_layout`], of the data.
    pub(crate) fn data_layout(&self) -> (u32, u32) {
        layout(self.data)
    }
}

/// Parts that stand together fill whole registers of four bytes.
fn layout(kinds: &[Kind]) -> (u32, u32) {
    const TYPE_BITS: u32 = 6;
    let number = kinds
        .iter()
        .fold(0, |n, kind| n << TYPE_BITS | *kind as u32);
    let length = match kinds {
        [alone] => alone.bytes(),
        several => several.iter().map(|k| k.bytes().next_multiple_of(4)).sum(),
    };
    (number, length)
}

/// One part of a key or of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Port(u16),
    Interface(&'a str),
}

/// Parts as the kernel's registers hold them.
pub(crate) fn bytes(parts: &[Part<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for part in parts {
        match part {
            Part::V4(address) => all.extend(address.octets()),
            Part::V6(address) => all.extend(address.octets()),
            Part::Port(port) => all.extend(port.to_be_bytes()),
            Part::Interface(name) => all.extend(interface(name)),
        }
        if parts.len() > 1 {
            all.resize(all.len().next_multiple_of(4), 0);
        }
    }
    all
}

/// An interface's name as the kernel compares it.
pub(crate) fn interface(name: &str) -> [u8; INTERFACE_BYTES] {
    let mut bytes = [0; INTERFACE_BYTES];
    for (slot, byte) in bytes.iter_mut().take(INTERFACE_BYTES - 1).zip(name.bytes()) {
        *slot = byte;
    }
    bytes
}

/// An element as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Key.
    pub(crate) key: Vec<u8>,
    /// The key is the first that lies no longer in the range.
    pub(crate) ends_interval: bool,
    /// Of a range of several parts: each part's last value; else empty.
    pub(crate) last: Vec<u8>,
    /// What a map answers.
    pub(crate) data: Vec<u8>,
}

impl Entry {
    /// An element of a set.
    pub(crate) fn of(key: &[Part<'_>]) -> Self {
        Self::to(key, &[])
    }

    /// An element of a map.
    pub(crate) fn to(key: &[Part<'_>], data: &[Part<'_>]) -> Self {
        Self {
            key: bytes(key),
            ends_interval: false,
            last: Vec::new(),
            data: bytes(data),
        }
    }

    /// The elements that make a subnet's range: where it begins, and where it is over.
    pub(crate) fn subnet(subnet: Subnet) -> Vec<Self> {
        let mut entries = vec![Self::of(&[Part::V4(subnet.first())])];
        if let Some(next) = subnet.last().to_bits().checked_add(1) {
            entries.push(Self {
                ends_interval: true,
                ..Self::of(&[Part::V4(Ipv4Addr::from_bits(next))])
            });
        }
        entries
    }
}

/// Elements that come and go together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// What goes, with the set's name.
    pub(crate) remove: Vec<(&'static str, Entry)>,
    /// What comes; an element with the same key is replaced.
    pub(crate) add: Vec<(&'static str, Entry)>,
}

impl Change {
    /// Elements that come.
    pub(crate) fn adding(add: Vec<(&'static str, Entry)>) -> Self {
        Self {
            remove: Vec::new(),
            add,
        }
    }

    /// Elements that go.
    pub(crate) fn removing(remove: Vec<(&'static str, Entry)>) -> Self {
        Self {
            remove,
            add: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_alone_are_packed_and_together_padded() {
        assert_eq!(bytes(&[Part::Port(80)]), [0, 80]);
        let pair = [Part::V4(Ipv4Addr::new(10, 0, 0, 1)), Part::Port(80)];
        assert_eq!(bytes(&pair), [10, 0, 0, 1, 0, 80, 0, 0]);
        assert_eq!(layout(&[Kind::Port]), (13, 2));
        assert_eq!(layout(&[Kind::V4, Kind::Port]), (7 << 6 | 13, 8));
        assert_eq!(
            layout(&[Kind::Interface, Kind::Interface]),
            (41 << 6 | 41, 32)
        );
        assert_eq!(bytes(&[Part::Interface("hull0")]).len(), 16);
    }

    #[test]
    fn subnet_ends_after_its_last_address_or_never() {
        let narrow = Entry::subnet("10.0.0.0/24".parse().expect("a subnet"));
        assert_eq!(narrow[0].key, [10, 0, 0, 0]);
        assert!(narrow[1].ends_interval && narrow[1].key == [10, 0, 1, 0]);
        assert_eq!(
            Entry::subnet("0.0.0.0/0".parse().expect("all of it")).len(),
            1
        );
    }
}
