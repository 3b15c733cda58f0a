//! What our table of nf_tables says: published ports, masquerade, and who may reach the bridges.
//!
//! ```text
//! prerouting  raw     from a bridge to or from 127.0.0.0/8: drop
//! prerouting  dstnat  from a bridge for its own address, port 53: to the network's name server
//!                     for 127.0.0.0/8: leave alone (only the host itself may use loopback)
//!                     for an address of this host: look up (address, port), then port, then ranges
//! output      dstnat  for an address of this host: look up (address, port), then port
//! forward     filter  from an internal network: to itself; else drop
//!                     to an internal network: drop
//!                     to a bridge: replies, its own containers and published ports; else drop
//! postrouting srcnat  to a bridge: masquerade loopback, hairpin, and other networks' containers
//!                     from a network: masquerade
//! ```
//!
//! One table serves all networks of a daemon. The rules never change: a network, a container or a
//! port only adds elements to sets and maps, so the cost of a packet and of a change does not grow
//! with their number. The table is of the family inet: a rule that does not look at addresses holds
//! for both versions of IP, and the others begin with [`Step::Family`].

use std::net::Ipv4Addr;

use hull_model::spec::{Protocol, PublishedPort};

use crate::admission::{self, number};
use crate::config::Policy;
use crate::elements::{Entry, Kind, Part, Set};
use crate::nft::{Hook, NFPROTO_IPV4, Transaction};
use crate::port_ranges::{self, RANGES};
use crate::rule::{Step, Target};
use crate::table6;
use crate::types::Subnet;

const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// Where resolvers ask.
pub(crate) const NAME_SERVICE: u16 = 53;

const V4_PORT: &[Kind] = &[Kind::V4, Kind::Port];

/// The bridges of all networks.
const BRIDGES: Set = Set::of("bridges", &[Kind::Interface]);
/// Those of internal ones.
const INTERNAL: Set = Set::of("internal", &[Kind::Interface]);
/// Each bridge beside itself: what passes from container to container.
const WITHIN: Set = Set::of("within", &[Kind::Interface, Kind::Interface]);
/// The subnets whose containers the host lends its address.
const MASQUERADED: Set = Set::ranges("masqueraded", &[Kind::V4]);
/// Where the name server of the network on a bridge listens.
const NAME_SERVERS: Set = Set::map("name_servers", &[Kind::Interface, Kind::V4], V4_PORT);

/// The maps of published ports.
const PORTS: [(Protocol, Target, Set); 6] = [
    (
        Protocol::Tcp,
        Target::AddressPort,
        Set::map("tcp_address_ports", V4_PORT, V4_PORT),
    ),
    (
        Protocol::Tcp,
        Target::Port,
        Set::map("tcp_ports", &[Kind::Port], V4_PORT),
    ),
    (
        Protocol::Udp,
        Target::AddressPort,
        Set::map("udp_address_ports", V4_PORT, V4_PORT),
    ),
    (
        Protocol::Udp,
        Target::Port,
        Set::map("udp_ports", &[Kind::Port], V4_PORT),
    ),
    (
        Protocol::Sctp,
        Target::AddressPort,
        Set::map("sctp_address_ports", V4_PORT, V4_PORT),
    ),
    (
        Protocol::Sctp,
        Target::Port,
        Set::map("sctp_ports", &[Kind::Port], V4_PORT),
    ),
];

/// Every set and map of the table.
pub(crate) fn sets() -> Vec<Set> {
    let mut all = vec![BRIDGES, INTERNAL, WITHIN, MASQUERADED, NAME_SERVERS];
    all.extend(PORTS.map(|(.., set)| set));
    all.extend(RANGES.iter().flat_map(|maps| [maps.starts, maps.ends]));
    all.extend(table6::sets());
    all
}

/// A published port with the container it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) port: PublishedPort,
    pub(crate) address: Ipv4Addr,
}

/// The elements of a network.
pub(crate) fn of_network(
    bridge: &str,
    subnet: Subnet,
    policy: Policy,
) -> Vec<(&'static str, Entry)> {
    let name = Part::Interface(bridge);
    let mut elements = vec![(BRIDGES.name, Entry::of(&[name]))];
    // The bridge keeps ports apart that are isolated, but what is sent to its own address on
    // Ethernet would be routed back to it.
    if policy.icc {
        elements.push((WITHIN.name, Entry::of(&[name, name])));
    }
    if policy.internal {
        elements.push((INTERNAL.name, Entry::of(&[name])));
    } else if policy.masquerade {
        let range = Entry::subnet(subnet).into_iter();
        elements.extend(range.map(|entry| (MASQUERADED.name, entry)));
    }
    elements
}

/// The element that leads questions to a network's name server.
pub(crate) fn of_name_server(
    bridge: &str,
    gateway: Ipv4Addr,
    port: u16,
) -> Vec<(&'static str, Entry)> {
    let key = [Part::Interface(bridge), Part::V4(gateway)];
    let entry = Entry::to(&key, &[Part::V4(gateway), Part::Port(port)]);
    vec![(NAME_SERVERS.name, entry)]
}

/// The elements of published ports.
pub(crate) fn of_ports(forwards: &[Forward]) -> Vec<(&'static str, Entry)> {
    let element = |forward: &&Forward| {
        let Forward { port, address } = **forward;
        let target = if port.host_ip.is_unspecified() {
            Target::Port
        } else {
            Target::AddressPort
        };
        let map = PORTS
            .iter()
            .find(|(protocol, key, _)| *protocol == port.container.protocol && *key == target);
        let key = match target {
            Target::Port => vec![Part::Port(port.host_port)],
            Target::AddressPort => vec![Part::V4(port.host_ip), Part::Port(port.host_port)],
        };
        let data = [Part::V4(address), Part::Port(port.container.number)];
        map.map(|(.., set)| (set.name, Entry::to(&key, &data)))
    };
    let (ranges, single): (Vec<_>, Vec<_>) = forwards.iter().partition(|f| f.port.more > 0);
    let single = single.iter().filter_map(element);
    let ranges = ranges.into_iter().flat_map(port_ranges::elements);
    single.chain(ranges).collect()
}

/// Writes sets, chains and rules into a table that has none. With a way `back`, published ports obey
/// the host's rules for input ([`admission`]).
pub(crate) fn write(t: &mut Transaction<'_>, back: Option<&str>) {
    for (id, set) in (1..).zip(sets()) {
        t.set(&set, id);
    }
    t.chain("guard", "filter", Hook::Prerouting, RAW);
    t.chain("names", "nat", Hook::Prerouting, DSTNAT - 1);
    t.chain("prerouting", "nat", Hook::Prerouting, DSTNAT);
    t.chain("output", "nat", Hook::Output, DSTNAT);
    t.chain("forward", "filter", Hook::Forward, FILTER);
    t.chain("postrouting", "nat", Hook::Postrouting, SRCNAT);
    for chain in ["published", "from_internal", "to_bridge", "into_bridge"] {
        t.plain_chain(chain);
    }
    guard(t);
    destinations(t, back);
    if let Some(back) = back {
        let ports = PORTS.map(|(protocol, key, map)| (number(protocol), key, map.name));
        let ranges = RANGES.map(|maps| (number(maps.protocol), maps.target, maps.starts.name));
        admission::write_marks(t, back, ports.into_iter().chain(ranges));
    }
    forward(t);
    sources(t);
    if t.is_for_both() {
        table6::write(t, back);
    }
}

/// route_localnet on a bridge lets replies to 127.0.0.1 through; this keeps containers from using
/// it to reach what the host binds to loopback.
fn guard(t: &mut Transaction<'_>) {
    let v4 = Step::Family(NFPROTO_IPV4);
    let loopback = Subnet::LOOPBACK;
    for side in [Step::DestinationIn(loopback), Step::SourceIn(loopback)] {
        let steps = [v4, side, Step::InputIn(BRIDGES.name), Step::Drop];
        t.rule("guard", &steps);
    }
}

fn destinations(t: &mut Transaction<'_>, back: Option<&str>) {
    let v4 = Step::Family(NFPROTO_IPV4);
    // Before published ports: a container that serves port 53 of the host must not get the
    // questions of all others.
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        t.rule(
            "names",
            &[
                v4,
                Step::Protocol(number(protocol)),
                Step::DestinationPort(NAME_SERVICE),
                Step::RewriteByInterface(NAME_SERVERS.name),
            ],
        );
    }
    // Before routing, a packet for 127.0.0.1 from another host has not been refused yet:
    // rewriting it would publish a port bound to loopback to the whole link.
    let loopback = [v4, Step::DestinationIn(Subnet::LOOPBACK), Step::Return];
    t.rule("prerouting", &loopback);
    let published = Step::Jump("published");
    match back {
        Some(back) => t.rule("prerouting", &[v4, Step::InputIs(back), published]),
        None => t.rule("prerouting", &[v4, published]),
    }
    t.rule("output", &[v4, published]);
    for (protocol, key, map) in PORTS {
        t.rule(
            "published",
            &[
                Step::Protocol(number(protocol)),
                Step::DestinationIsLocal,
                Step::RewriteDestination(key, map.name),
            ],
        );
    }
    for maps in RANGES {
        t.rule(
            "published",
            &[
                Step::Protocol(number(maps.protocol)),
                Step::DestinationIsLocal,
                Step::ShiftDestination(maps.target, maps.starts.name, maps.ends.name),
            ],
        );
    }
}

fn forward(t: &mut Transaction<'_>) {
    let within = Step::InputOutputIn(WITHIN.name);
    let internal = [Step::InputIn(INTERNAL.name), Step::Goto("from_internal")];
    t.rule("forward", &internal);
    t.rule("forward", &[Step::OutputIn(INTERNAL.name), Step::Drop]);
    let to_bridge = [Step::OutputIn(BRIDGES.name), Step::Goto("to_bridge")];
    t.rule("forward", &to_bridge);

    t.rule("from_internal", &[within, Step::Accept]);
    t.rule("from_internal", &[Step::Drop]);

    t.rule("to_bridge", &[Step::Established, Step::Accept]);
    t.rule("to_bridge", &[within, Step::Accept]);
    t.rule("to_bridge", &[Step::DestinationWasRewritten, Step::Accept]);
    // Whoever routes to the containers' subnet directly reaches no port that is not published.
    t.rule("to_bridge", &[Step::Drop]);
}

fn sources(t: &mut Transaction<'_>) {
    let v4 = Step::Family(NFPROTO_IPV4);
    let masqueraded = [v4, Step::SourceInSet(MASQUERADED.name), Step::Masquerade];
    let to_bridge = [Step::OutputIn(BRIDGES.name), Step::Goto("into_bridge")];
    t.rule("postrouting", &to_bridge);
    t.rule("postrouting", &[Step::OutputIs("lo"), Step::Return]);
    t.rule("postrouting", &masqueraded);

    let loopback = [v4, Step::SourceIn(Subnet::LOOPBACK), Step::Masquerade];
    t.rule("into_bridge", &loopback);
    t.rule("into_bridge", &[Step::DestinationWasKept, Step::Return]);
    // Hairpin: without this the other container would answer its neighbour directly, which waits
    // for an answer from the host.
    let hairpin = [Step::InputOutputIn(WITHIN.name), Step::Masquerade];
    t.rule("into_bridge", &hairpin);
    // By a published port, from another network.
    t.rule("into_bridge", &masqueraded);
}
