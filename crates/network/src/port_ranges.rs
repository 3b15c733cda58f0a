//! Published ranges in the table: one element each, however many ports there are.
//!
//! nf_tables can shift ports only through an option of its translation that was made for random
//! ones: with "offset", the new port is `least + old % (most - least + 1)`. One map holds `least` beside
//! the container's address, another `most`, chosen so that this adds the distance between both sides.
//! There are two because nft complains of rules in which one map has all three.

use std::net::Ipv4Addr;

use hull_model::spec::Protocol;

use crate::elements::{Entry, Kind, Part, Set, bytes};
use crate::rule::Target;
use crate::table::Forward;

const V4_PORT: &[Kind] = &[Kind::V4, Kind::Port];

const PORT: &[Kind] = &[Kind::Port];

/// The maps of published ranges of one protocol, looked up in one way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranges {
    pub(crate) protocol: Protocol,
    pub(crate) target: Target,
    /// To the container's address and the least port.
    pub(crate) starts: Set,
    /// To the greatest port.
    pub(crate) ends: Set,
}

/// A map from ranges of `key`.
pub(crate) const fn ranges(name: &'static str, key: &'static [Kind], data: &'static [Kind]) -> Set {
    Set {
        data,
        ..Set::ranges(name, key)
    }
}

/// All of them.
pub(crate) const RANGES: [Ranges; 6] = [
    Ranges {
        protocol: Protocol::Tcp,
        target: Target::AddressPort,
        starts: ranges("tcp_address_port_ranges", V4_PORT, V4_PORT),
        ends: ranges("tcp_address_port_range_ends", V4_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Tcp,
        target: Target::Port,
        starts: ranges("tcp_port_ranges", PORT, V4_PORT),
        ends: ranges("tcp_port_range_ends", PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Udp,
        target: Target::AddressPort,
        starts: ranges("udp_address_port_ranges", V4_PORT, V4_PORT),
        ends: ranges("udp_address_port_range_ends", V4_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Udp,
        target: Target::Port,
        starts: ranges("udp_port_ranges", PORT, V4_PORT),
        ends: ranges("udp_port_range_ends", PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Sctp,
        target: Target::AddressPort,
        starts: ranges("sctp_address_port_ranges", V4_PORT, V4_PORT),
        ends: ranges("sctp_address_port_range_ends", V4_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Sctp,
        target: Target::Port,
        starts: ranges("sctp_port_ranges", PORT, V4_PORT),
        ends: ranges("sctp_port_range_ends", PORT, PORT),
    },
];

/// The elements of a range.
pub(crate) fn elements(forward: &Forward) -> Vec<(&'static str, Entry)> {
    let Forward { port, address } = *forward;
    let target = match port.host_ip.is_unspecified() {
        true => Target::Port,
        false => Target::AddressPort,
    };
    let of = |maps: &&Ranges| maps.protocol == port.container.protocol && maps.target == target;
    let Some(maps) = RANGES.iter().find(of) else {
        return Vec::new();
    };
    let key = |number: u16| key(target, port.host_ip, number);
    shifts(port.host_port, port.host_port_end(), port.container.number)
        .into_iter()
        .flat_map(|shift| shift.elements(maps, Part::V4(address), key))
        .collect()
}

fn key(target: Target, host_ip: Ipv4Addr, port: u16) -> Vec<Part<'static>> {
    match target {
        Target::Port => vec![Part::Port(port)],
        Target::AddressPort => vec![Part::V4(host_ip), Part::Port(port)],
    }
}

/// A range that one pair of numbers shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shift {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) least: u16,
    pub(crate) most: u16,
}

impl Shift {
    /// The elements that say so; `key` is that of a port.
    pub(crate) fn elements<'a>(
        &self,
        maps: &Ranges,
        address: Part<'a>,
        key: impl Fn(u16) -> Vec<Part<'a>>,
    ) -> Vec<(&'static str, Entry)> {
        let starts = [address, Part::Port(self.least)];
        let ends = [Part::Port(self.most)];
        let mut elements = Vec::with_capacity(4);
        for (map, data) in [(maps.starts, starts.as_slice()), (maps.ends, &ends)] {
            let mut begins = Entry::to(&key(self.first), data);
            let ends = match maps.target {
                Target::Port => self.last.checked_add(1).map(|next| Entry {
                    ends_interval: true,
                    ..Entry::of(&key(next))
                }),
                Target::AddressPort => {
                    begins.last = bytes(&key(self.last));
                    None
                }
            };
            elements.extend(
                [Some(begins), ends]
                    .into_iter()
                    .flatten()
                    .map(|e| (map.name, e)),
            );
        }
        elements
    }
}

/// The ports from `first` to `last`, shifted so that the first becomes `to`; few even at worst.
pub(crate) fn shifts(first: u16, last: u16, to: u16) -> Vec<Shift> {
    if let Some(up) = to.checked_sub(first) {
        // The remainder leaves every port as it is that stays a port when it is shifted.
        return vec![Shift {
            first,
            last,
            least: up,
            most: u16::MAX,
        }];
    }
    let down = u32::from(first) - u32::from(to);
    let mut shifts = Vec::new();
    let (mut begin, last) = (u32::from(first), u32::from(last));
    // Downwards the remainder takes away a divisor: it must divide each port of the range once.
    while begin <= last {
        let end = last
            .min(begin.saturating_mul(2).saturating_sub(1))
            .max(begin);
        let divisor = (end + 1).div_ceil(2).max(down);
        let number = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        shifts.push(Shift {
            first: number(begin),
            last: number(end),
            least: number(divisor.saturating_sub(down)),
            most: number((2 * divisor).saturating_sub(down).saturating_sub(1)),
        });
        begin = end + 1;
    }
    shifts
}

#[cfg(test)]
mod tests {
    use hull_model::spec::{Port, PublishedPort};

    use super::*;

    /// As the kernel computes it.
    fn shifted(shift: &Shift, port: u16) -> u32 {
        let size = u32::from(shift.most) - u32::from(shift.least) + 1;
        u32::from(shift.least) + u32::from(port) % size
    }

    #[test]
    fn shift_takes_each_port_to_its_own() {
        for (first, last, to) in [
            (20_000, 24_999, 20_000),
            (1, 65_535, 1),
            (8_000, 9_000, 80),
            (8_000, 9_000, 64_535),
            (50_000, 65_535, 49_999),
            (50_000, 65_535, 1),
            (2, 65_535, 1),
            (10, 5_000, 3),
            (65_534, 65_535, 1),
            (1, 1_000, 64_536),
        ] {
            let shifts = shifts(first, last, to);
            assert!(shifts.len() <= 16, "{shifts:?}");
            let mut next = first;
            for shift in &shifts {
                assert_eq!(shift.first, next);
                for port in shift.first..=shift.last {
                    let wanted = u32::from(to) + u32::from(port - first);
                    assert_eq!(shifted(shift, port), wanted, "{port} by {shift:?}");
                }
                next = shift.last.wrapping_add(1);
            }
            assert_eq!(next, last.wrapping_add(1));
        }
    }

    #[test]
    fn range_is_a_few_elements_and_fewer_at_the_end_of_all_ports() {
        let forward = |host_ip, first, more| Forward {
            port: PublishedPort {
                container: Port {
                    number: first,
                    protocol: Protocol::Udp,
                },
                host_ip,
                host_port: first,
                more,
            },
            address: Ipv4Addr::new(10, 0, 0, 2),
        };
        let any = elements(&forward(Ipv4Addr::UNSPECIFIED, 20_000, 4_999));
        assert_eq!(any.len(), 4, "two of each map");
        assert_eq!(any[2].1.data, [255, 255]);
        assert_eq!(any[0].1.key, 20_000_u16.to_be_bytes());
        assert_eq!(any[0].1.data, [10, 0, 0, 2, 0, 0, 0, 0]);
        assert_eq!(any[1].1.key, 25_000_u16.to_be_bytes());
        assert_eq!(
            elements(&forward(Ipv4Addr::UNSPECIFIED, 65_000, 535)).len(),
            2
        );
        let one = elements(&forward(Ipv4Addr::LOCALHOST, 65_000, 535));
        assert_eq!(one.len(), 2);
        assert_eq!(one[0].1.key, [127, 0, 0, 1, 253, 232, 0, 0]);
        assert_eq!(one[0].1.last, [127, 0, 0, 1, 255, 255, 0, 0]);
    }
}
