//! What our table of nf_tables says of addresses of IPv6: published ports, name servers, masquerade.
//!
//! It is the same table, of the family inet; what does not look at addresses, who may reach the
//! bridges above all, [`crate::table`] says for both versions of IP.
//!
//! ```text
//! prerouting  dstnat  from a bridge for its own address, port 53: to the network's name server
//!                     for an address of this host: look up (address, port), then port, then ranges
//! output      dstnat  the same
//! postrouting srcnat  to a bridge: masquerade ::1 and other networks' containers
//!                     from a network: masquerade
//! ```
//!
//! Nothing guards ::1: the kernel drops what bears it on a wire before it looks at any table.

use std::net::Ipv6Addr;

use hull_model::spec::{Protocol, PublishedPort6};

use crate::admission::{MARK, number};
use crate::config::Policy;
use crate::elements::{Entry, Kind, Part, Set};
use crate::nft::{NFPROTO_IPV6, Transaction};
use crate::port_ranges::{Ranges, ranges, shifts};
use crate::rule::{Step, Step6, Target};
use crate::table::NAME_SERVICE;
use crate::types6::Subnet6;

const V6_PORT: &[Kind] = &[Kind::V6, Kind::Port];
const PORT: &[Kind] = &[Kind::Port];

/// The subnets whose containers the host lends its address.
const MASQUERADED: Set = Set::ranges("masqueraded6", &[Kind::V6]);
/// Where the name server of the network on a bridge listens.
const NAME_SERVERS: Set = Set::map("name_servers6", &[Kind::Interface, Kind::V6], V6_PORT);

const fn by_port(name: &'static str) -> Set {
    Set::map(name, &[Kind::Port], V6_PORT)
}

const fn by_address(name: &'static str) -> Set {
    Set::map(name, V6_PORT, V6_PORT)
}

/// A map of published ports: of which protocol, and what it is looked up by.
type Map = (Protocol, Target, Set);

const PORTS: [Map; 6] = [
    (
        Protocol::Tcp,
        Target::AddressPort,
        by_address("tcp6_address_ports"),
    ),
    (Protocol::Tcp, Target::Port, by_port("tcp6_ports")),
    (
        Protocol::Udp,
        Target::AddressPort,
        by_address("udp6_address_ports"),
    ),
    (Protocol::Udp, Target::Port, by_port("udp6_ports")),
    (
        Protocol::Sctp,
        Target::AddressPort,
        by_address("sctp6_address_ports"),
    ),
    (Protocol::Sctp, Target::Port, by_port("sctp6_ports")),
];

const RANGES: [Ranges; 6] = [
    Ranges {
        protocol: Protocol::Tcp,
        target: Target::AddressPort,
        starts: ranges("tcp6_address_port_ranges", V6_PORT, V6_PORT),
        ends: ranges("tcp6_address_port_range_ends", V6_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Tcp,
        target: Target::Port,
        starts: ranges("tcp6_port_ranges", PORT, V6_PORT),
        ends: ranges("tcp6_port_range_ends", PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Udp,
        target: Target::AddressPort,
        starts: ranges("udp6_address_port_ranges", V6_PORT, V6_PORT),
        ends: ranges("udp6_address_port_range_ends", V6_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Udp,
        target: Target::Port,
        starts: ranges("udp6_port_ranges", PORT, V6_PORT),
        ends: ranges("udp6_port_range_ends", PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Sctp,
        target: Target::AddressPort,
        starts: ranges("sctp6_address_port_ranges", V6_PORT, V6_PORT),
        ends: ranges("sctp6_address_port_range_ends", V6_PORT, PORT),
    },
    Ranges {
        protocol: Protocol::Sctp,
        target: Target::Port,
        starts: ranges("sctp6_port_ranges", PORT, V6_PORT),
        ends: ranges("sctp6_port_range_ends", PORT, PORT),
    },
];

/// Every set and map for IPv6.
pub(crate) fn sets() -> impl Iterator<Item = Set> {
    let ports = PORTS.into_iter().map(|(.., set)| set);
    let ranges = RANGES.into_iter().flat_map(|maps| [maps.starts, maps.ends]);
    [MASQUERADED, NAME_SERVERS]
        .into_iter()
        .chain(ports)
        .chain(ranges)
}

/// A port published on an address of IPv6, with the container it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward6 {
    pub(crate) port: PublishedPort6,
    pub(crate) address: Ipv6Addr,
}

/// The elements of a network's IPv6 half.
pub(crate) fn of_network(subnet: Subnet6, policy: Policy) -> Vec<(&'static str, Entry)> {
    if policy.internal || !policy.masquerade {
        return Vec::new();
    }
    let mut entries = vec![Entry::of(&[Part::V6(subnet.first())])];
    if let Some(next) = subnet.last().to_bits().checked_add(1) {
        entries.push(Entry {
            ends_interval: true,
            ..Entry::of(&[Part::V6(Ipv6Addr::from_bits(next))])
        });
    }
    let named = |entry| (MASQUERADED.name, entry);
    entries.into_iter().map(named).collect()
}

/// The element that leads questions to a network's name server.
pub(crate) fn of_name_server(
    bridge: &str,
    gateway: Ipv6Addr,
    port: u16,
) -> Vec<(&'static str, Entry)> {
    let key = [Part::Interface(bridge), Part::V6(gateway)];
    let entry = Entry::to(&key, &[Part::V6(gateway), Part::Port(port)]);
    vec![(NAME_SERVERS.name, entry)]
}

/// The elements of published ports.
pub(crate) fn of_ports(forwards: &[Forward6]) -> Vec<(&'static str, Entry)> {
    forwards.iter().flat_map(of_port).collect()
}

fn of_port(forward: &Forward6) -> Vec<(&'static str, Entry)> {
    let Forward6 { port, address } = *forward;
    let target = if port.host_ip.is_unspecified() {
        Target::Port
    } else {
        Target::AddressPort
    };
    let key = |number: u16| match target {
        Target::Port => vec![Part::Port(number)],
        Target::AddressPort => vec![Part::V6(port.host_ip), Part::Port(number)],
    };
    let protocol = port.container.protocol;
    if port.more == 0 {
        let fits = |map: &&Map| map.0 == protocol && map.1 == target;
        let data = [Part::V6(address), Part::Port(port.container.number)];
        let element = |map: &Map| (map.2.name, Entry::to(&key(port.host_port), &data));
        return PORTS.iter().find(fits).map(element).into_iter().collect();
    }
    let fits = |maps: &&Ranges| maps.protocol == protocol && maps.target == target;
    let Some(maps) = RANGES.iter().find(fits) else {
        return Vec::new();
    };
    shifts(port.host_port, port.host_port_end(), port.container.number)
        .into_iter()
        .flat_map(|shift| shift.elements(maps, Part::V6(address), key))
        .collect()
}

/// Writes the chain and the rules into a table that has those of [`crate::table`]. With a way `back`,
/// published ports obey the host's rules for input ([`crate::admission`]).
pub(crate) fn write(t: &mut Transaction<'_>, back: Option<&str>) {
    let v6 = Step::Family(NFPROTO_IPV6);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        t.rule(
            "names",
            &[
                v6,
                Step::Protocol(number(protocol)),
                Step::DestinationPort(NAME_SERVICE),
                Step::V6(Step6::RewriteByInterface(NAME_SERVERS.name)),
            ],
        );
    }
    t.plain_chain("published6");
    let published = Step::Jump("published6");
    t.rule("output", &[v6, published]);
    match back {
        Some(back) => t.rule("prerouting", &[v6, Step::InputIs(back), published]),
        None => t.rule("prerouting", &[v6, published]),
    }
    if let Some(back) = back {
        let ports = PORTS.map(|(protocol, target, map)| (protocol, target, map.name));
        let ranges = RANGES.map(|maps| (maps.protocol, maps.target, maps.starts.name));
        for (protocol, target, map) in ports.into_iter().chain(ranges) {
            let steps = [
                v6,
                Step::Protocol(number(protocol)),
                Step::InputIsNot(back),
                Step::New,
                Step::DestinationIsLocal,
                Step::V6(Step6::IsPublished(target, map)),
                Step::Mark(MARK),
            ];
            t.rule("admission", &steps);
        }
    }
    let steps = |protocol, last| {
        let protocol = Step::Protocol(number(protocol));
        [protocol, Step::DestinationIsLocal, Step::V6(last)]
    };
    for map in &PORTS {
        let last = Step6::RewriteDestination(map.1, map.2.name);
        t.rule("published6", &steps(map.0, last));
    }
    for maps in &RANGES {
        let (starts, ends) = (maps.starts.name, maps.ends.name);
        let last = Step6::ShiftDestination(maps.target, starts, ends);
        t.rule("published6", &steps(maps.protocol, last));
    }
    let masqueraded = Step::V6(Step6::SourceInSet(MASQUERADED.name));
    let loopback = Step::V6(Step6::SourceIs(Ipv6Addr::LOCALHOST));
    t.rule("postrouting", &[v6, masqueraded, Step::Masquerade]);
    t.rule("into_bridge", &[v6, loopback, Step::Masquerade]);
    t.rule("into_bridge", &[v6, masqueraded, Step::Masquerade]);
}

#[cfg(test)]
mod tests {
    use hull_model::spec::Port;

    use super::*;

    fn forward(host_ip: Ipv6Addr, more: u16) -> Forward6 {
        Forward6 {
            port: PublishedPort6 {
                container: Port {
                    number: 80,
                    protocol: Protocol::Udp,
                },
                host_ip,
                host_port: 8080,
                more,
            },
            address: "fd00::2".parse().expect("an address"),
        }
    }

    #[test]
    fn ports_stand_in_the_map_of_their_protocol_and_address() {
        let of = |host_ip, more| of_ports(&[forward(host_ip, more)]);
        let any = of(Ipv6Addr::UNSPECIFIED, 0);
        assert_eq!((any.len(), any[0].0), (1, "udp6_ports"));
        assert_eq!(any[0].1.key, 8080_u16.to_be_bytes());
        assert_eq!(any[0].1.data.len(), 20);
        let one = of(Ipv6Addr::LOCALHOST, 0);
        assert_eq!((one.len(), one[0].0), (1, "udp6_address_ports"));
        assert_eq!(one[0].1.key.len(), 20);
        // From 8080 down to 80, some ports at a time.
        let range = of(Ipv6Addr::UNSPECIFIED, 99);
        assert!(
            range
                .iter()
                .all(|(set, _)| set.starts_with("udp6_port_range"))
        );
        let range = of(Ipv6Addr::LOCALHOST, 99);
        assert!(range.iter().all(|(_, entry)| entry.last.len() == 20));
    }

    #[test]
    fn network_that_is_internal_or_routed_is_not_masqueraded() {
        let subnet: Subnet6 = "fd00::/64".parse().expect("a subnet");
        let of = |policy| of_network(subnet, policy).len();
        assert_eq!(of(Policy::default()), 2);
        let internal = Policy {
            internal: true,
            ..Policy::default()
        };
        assert_eq!(of(internal), 0);
        let routed = Policy {
            masquerade: false,
            ..Policy::default()
        };
        assert_eq!(of(routed), 0);
    }

    #[test]
    fn sets_bear_names_of_their_own() {
        let mut names: Vec<_> = crate::table::sets().iter().map(|set| set.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(names.iter().all(|name| name.len() < 32));
    }
}
