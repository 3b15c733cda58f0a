//! What our table of nf_tables says: published ports, masquerade, and who may reach the bridge.
//!
//! ```text
//! prerouting  raw     from the bridge to or from 127.0.0.0/8: drop
//! prerouting  dstnat  from the bridge for the gateway's port 53: to the network's name server
//!                     for 127.0.0.0/8: leave alone (only the host itself may use loopback)
//!                     for an address of this host: look up (address, port), then port
//! output      dstnat  for an address of this host: look up (address, port), then port
//! forward     filter  to the bridge: replies, its own containers and published ports; else drop
//!                     of an internal network: its own containers; else drop, both ways
//! postrouting srcnat  masquerade: loopback → bridge, subnet → elsewhere, hairpin
//! ```
//!
//! The rules never change: publishing a port only adds an element to a map, so the cost of a
//! packet and of a change does not grow with the number of containers.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use hull_model::spec::{Protocol, PublishedPort};

use crate::config::{NetworkConfig, Policy};
use crate::netlink::{NetlinkError, Socket};
use crate::nft::{Element, Hook, MapKey, Transaction};
use crate::rule::Step;
use crate::types::Subnet;

const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// Where resolvers ask.
const NAME_SERVICE: u16 = 53;

const MAPS: [(Protocol, MapKey, &str); 4] = [
    (Protocol::Tcp, MapKey::AddressPort, "tcp_address_ports"),
    (Protocol::Tcp, MapKey::Port, "tcp_ports"),
    (Protocol::Udp, MapKey::AddressPort, "udp_address_ports"),
    (Protocol::Udp, MapKey::Port, "udp_ports"),
];

/// A published port with the container it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) port: PublishedPort,
    pub(crate) address: Ipv4Addr,
}

/// The table of one network.
#[derive(Debug)]
pub(crate) struct Table {
    name: String,
    bridge: String,
    subnet: Subnet,
    gateway: Ipv4Addr,
    policy: Policy,
    /// Where the network's name server listens at the bridge's address; zero without one.
    name_server: AtomicU16,
}

impl Table {
    pub(crate) fn new(config: &NetworkConfig, subnet: Subnet, gateway: Ipv4Addr) -> Self {
        Self {
            name: config.table.clone(),
            bridge: config.bridge.clone(),
            subnet,
            gateway,
            policy: config.policy,
            name_server: AtomicU16::new(0),
        }
    }

    /// Sets the name server's port for the next [`Table::rebuild`].
    pub(crate) fn set_name_server(&self, port: u16) {
        self.name_server.store(port, Ordering::Relaxed);
    }

    /// Replaces whatever the table held, in one transaction.
    pub(crate) fn rebuild(
        &self,
        socket: &mut Socket,
        forwards: &[Forward],
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(&self.name);
        // Made first, so that it is there to be deleted.
        transaction.ensure_table();
        transaction.delete_table();
        transaction.ensure_table();
        for (id, (_, key, name)) in (1..).zip(MAPS) {
            transaction.map(name, key, id);
        }
        self.chains(&mut transaction);
        for (protocol, key, name) in MAPS {
            transaction.add_elements(name, key, &elements(protocol, key, forwards));
        }
        transaction.commit(socket)
    }

    /// Adds published ports.
    pub(crate) fn add(
        &self,
        socket: &mut Socket,
        forwards: &[Forward],
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(&self.name);
        for (protocol, key, name) in MAPS {
            transaction.add_elements(name, key, &elements(protocol, key, forwards));
        }
        transaction.commit(socket)
    }

    /// Removes published ports.
    pub(crate) fn remove(
        &self,
        socket: &mut Socket,
        forwards: &[Forward],
    ) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(&self.name);
        for (protocol, key, name) in MAPS {
            transaction.delete_elements(name, key, &elements(protocol, key, forwards));
        }
        transaction.commit(socket)
    }

    /// Removes the table; that there is none is no error.
    pub(crate) fn delete(&self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let mut transaction = Transaction::new(&self.name);
        transaction.ensure_table();
        transaction.delete_table();
        transaction.commit(socket)
    }

    fn chains(&self, t: &mut Transaction<'_>) {
        let bridge = self.bridge.as_str();
        let loopback = Subnet::LOOPBACK;
        let Policy {
            internal,
            masquerade,
            ..
        } = self.policy;

        // route_localnet on the bridge lets replies to 127.0.0.1 through; this keeps containers
        // from using it to reach what the host binds to loopback.
        t.chain("guard", "filter", Hook::Prerouting, RAW);
        t.rule(
            "guard",
            &[
                Step::InputIs(bridge),
                Step::DestinationIn(loopback),
                Step::Drop,
            ],
        );
        t.rule(
            "guard",
            &[Step::InputIs(bridge), Step::SourceIn(loopback), Step::Drop],
        );

        let port = self.name_server.load(Ordering::Relaxed);
        if let (1.., Ok(gateway)) = (port, Subnet::new(self.gateway, 32)) {
            // Before published ports: a container that serves port 53 of the host must not get the
            // questions of all others.
            t.chain("names", "nat", Hook::Prerouting, DSTNAT - 1);
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                t.rule(
                    "names",
                    &[
                        Step::InputIs(bridge),
                        Step::DestinationIn(gateway),
                        Step::Protocol(number(protocol)),
                        Step::DestinationPort(NAME_SERVICE),
                        Step::RewriteTo(self.gateway, port),
                    ],
                );
            }
        }

        t.chain("prerouting", "nat", Hook::Prerouting, DSTNAT);
        // Before routing, a packet for 127.0.0.1 from another host has not been refused yet:
        // rewriting it would publish a port bound to loopback to the whole link.
        t.rule("prerouting", &[Step::DestinationIn(loopback), Step::Return]);
        t.chain("output", "nat", Hook::Output, DSTNAT);
        for chain in ["prerouting", "output"] {
            for (protocol, key, map) in MAPS {
                t.rule(
                    chain,
                    &[
                        Step::Protocol(number(protocol)),
                        Step::DestinationIsLocal,
                        Step::RewriteDestination(key, map),
                    ],
                );
            }
        }

        t.chain("forward", "filter", Hook::Forward, FILTER);
        let to_bridge = Step::OutputIs(bridge);
        if internal {
            let within = [to_bridge, Step::InputIs(bridge), Step::Accept];
            t.rule("forward", &within);
            t.rule("forward", &[to_bridge, Step::Drop]);
            t.rule("forward", &[Step::InputIs(bridge), Step::Drop]);
            return;
        }
        t.rule("forward", &[to_bridge, Step::Established, Step::Accept]);
        t.rule("forward", &[to_bridge, Step::InputIs(bridge), Step::Accept]);
        t.rule(
            "forward",
            &[to_bridge, Step::DestinationWasRewritten, Step::Accept],
        );
        // Whoever routes to the containers' subnet directly reaches no port that is not published.
        t.rule("forward", &[to_bridge, Step::Drop]);

        t.chain("postrouting", "nat", Hook::Postrouting, SRCNAT);
        t.rule(
            "postrouting",
            &[Step::SourceIn(loopback), to_bridge, Step::Masquerade],
        );
        if masquerade {
            t.rule(
                "postrouting",
                &[
                    Step::SourceIn(self.subnet),
                    Step::OutputIsNot(bridge),
                    Step::OutputIsNot("lo"),
                    Step::Masquerade,
                ],
            );
        }
        // Hairpin: without this the other container would answer its neighbour directly, which
        // waits for an answer from the host.
        t.rule(
            "postrouting",
            &[
                Step::SourceIn(self.subnet),
                to_bridge,
                Step::DestinationWasRewritten,
                Step::Masquerade,
            ],
        );
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// The elements of one of the maps.
fn elements(protocol: Protocol, key: MapKey, forwards: &[Forward]) -> Vec<Element> {
    forwards
        .iter()
        .filter(|forward| {
            let by_port = forward.port.host_ip.is_unspecified();
            forward.port.container.protocol == protocol && by_port == (key == MapKey::Port)
        })
        .map(|forward| Element {
            host_ip: forward.port.host_ip,
            host_port: forward.port.host_port,
            address: forward.address,
            port: forward.port.container.number,
        })
        .collect()
}
