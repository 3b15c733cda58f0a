//! Published ranges in the table: one element each, however many ports there are.
//!
//! nf_tables can shift ports only through an option of its translation that was made for random
//! ones: with "offset", the new port is `least + old % (most - least + 1)`. A map holds `least` and
//! `most` beside the container's address, chosen so that this adds the distance between both sides.

use std::net::Ipv4Addr;

use hull_model::spec::Protocol;

use crate::elements::{Entry, Kind, Part, Set, bytes};
use crate::rule::Target;
use crate::table::Forward;

const V4_PORT: &[Kind] = &[Kind::V4, Kind::Port];
const V4_PORT_PORT: &[Kind] = &[Kind::V4, Kind::Port, Kind::Port];

const fn ranges(name: &'static str, key: &'static [Kind]) -> Set {
    Set {
        data: V4_PORT_PORT,
        ..Set::ranges(name, key)
    }
}

/// The maps of published ranges.
pub(crate) const RANGES: [(Protocol, Target, Set); 6] = [
    (
        Protocol::Tcp,
        Target::AddressPort,
        ranges("tcp_address_port_ranges", V4_PORT),
    ),
    (
        Protocol::Tcp,
        Target::Port,
        ranges("tcp_port_ranges", &[Kind::Port]),
    ),
    (
        Protocol::Udp,
        Target::AddressPort,
        ranges("udp_address_port_ranges", V4_PORT),
    ),
    (
        Protocol::Udp,
        Target::Port,
        ranges("udp_port_ranges", &[Kind::Port]),
    ),
    (
        Protocol::Sctp,
        Target::AddressPort,
        ranges("sctp_address_port_ranges", V4_PORT),
    ),
    (
        Protocol::Sctp,
        Target::Port,
        ranges("sctp_port_ranges", &[Kind::Port]),
    ),
];

/// The elements of a range.
pub(crate) fn elements(forward: &Forward) -> Vec<(&'static str, Entry)> {
    let Forward { port, address } = *forward;
    let target = match port.host_ip.is_unspecified() {
        true => Target::Port,
        false => Target::AddressPort,
    };
    let of = |(protocol, key, _): &&(Protocol, Target, Set)| {
        *protocol == port.container.protocol && *key == target
    };
    let Some((.., set)) = RANGES.iter().find(of) else {
        return Vec::new();
    };
    let shifts = shifts(port.host_port, port.host_port_end(), port.container.number);
    let pairs = shifts.into_iter().flat_map(|shift| {
        let data = [
            Part::V4(address),
            Part::Port(shift.least),
            Part::Port(shift.most),
        ];
        let key = key(target, port.host_ip, shift.first);
        let mut begins = Entry::to(&key, &data);
        let ends = match target {
            Target::Port => shift.last.checked_add(1).map(|next| Entry {
                ends_interval: true,
                ..Entry::of(&[Part::Port(next)])
            }),
            Target::AddressPort => {
                begins.last = bytes(&[Part::V4(port.host_ip), Part::Port(shift.last)]);
                None
            }
        };
        std::iter::once(begins).chain(ends)
    });
    pairs.map(|entry| (set.name, entry)).collect()
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
    fn range_is_two_elements_and_one_at_the_end_of_all_ports() {
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
        assert_eq!(any.len(), 2);
        assert_eq!(any[0].1.key, 20_000_u16.to_be_bytes());
        assert_eq!(any[0].1.data, [10, 0, 0, 2, 0, 0, 0, 0, 255, 255, 0, 0]);
        assert_eq!(any[1].1.key, 25_000_u16.to_be_bytes());
        assert_eq!(
            elements(&forward(Ipv4Addr::UNSPECIFIED, 65_000, 535)).len(),
            1
        );
        let one = elements(&forward(Ipv4Addr::LOCALHOST, 65_000, 535));
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].1.key, [127, 0, 0, 1, 253, 232, 0, 0]);
        assert_eq!(one[0].1.last, [127, 0, 0, 1, 255, 255, 0, 0]);
    }
}
