//! Changes what a container publishes while it runs: one transaction of the kernel, all or nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use hull_model::spec::{PublishSpec, PublishSpec6, PublishedPort, PublishedPort6};

use crate::config::PublishError;
use crate::cut::{Piece, cut};
use crate::elements::Change;
use crate::host_address::{HostAddress, is_any};
use crate::network::Network;
use crate::ports::PortTable;
use crate::table::{self, Forward};
use crate::table6::{self, Forward6};

/// What is to be published no more, parts of ranges perhaps, and what from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct PortExchange<'a> {
    /// What goes of IPv4.
    pub remove: &'a [PublishedPort],
    /// What comes of IPv4.
    pub add: &'a [PublishSpec],
    /// What goes of IPv6.
    pub remove6: &'a [PublishedPort6],
    /// What comes of IPv6. Random ones of every address have the numbers of those of IPv4 that come
    /// with them, if they are free.
    pub add6: &'a [PublishSpec6],
}

/// All that a container publishes.
pub type AllPublished = (Vec<PublishedPort>, Vec<PublishedPort6>);

/// What a table of ports held of a container.
type Held<A> = Vec<(PublishedPort<A>, Ipv4Addr)>;

impl Network {
    /// Changes the ports of the container at `key`. Connections that came in by what goes are cut,
    /// in its namespace `netns` too. Answers all that it publishes then.
    ///
    /// # Errors
    /// A port is taken or not published, the container lacks an address, or the kernel refuses; then
    /// all is as before.
    pub fn republish(
        &self,
        key: Ipv4Addr,
        exchange: PortExchange<'_>,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<AllPublished, PublishError> {
        let veth = self.core.members().attached.get(&key).cloned();
        let veth = veth.ok_or(PublishError::Unknown(key))?;
        let six = !exchange.remove6.is_empty() || !exchange.add6.is_empty();
        let address6 = self.address6_of(key);
        if six && address6.is_none() {
            return Err(PublishError::Unknown(key));
        }
        let mut publisher = self.publisher();
        let before = publisher.ports.of(Some(key));
        let before6 = publisher.ports6.of(Some(key));
        publisher
            .ports
            .exchange(key, exchange.remove, exchange.add)?;
        let after = publisher.ports.of(Some(key));
        let come = only(&after, &before);
        if let Err(error) = exchange6(&mut publisher.ports6, key, &exchange, &come) {
            publisher.ports.restore(key, &before);
            return Err(error.into());
        }
        let after6 = publisher.ports6.of(Some(key));
        let four = |ports: Vec<PublishedPort>| {
            let forwards = ports.into_iter().map(|port| Forward { port, address: key });
            table::of_ports(&forwards.collect::<Vec<_>>())
        };
        let six = |ports: Vec<PublishedPort6>| {
            let Some(address) = address6 else {
                return Vec::new();
            };
            let forwards = ports.into_iter().map(|port| Forward6 { port, address });
            table6::of_ports(&forwards.collect::<Vec<_>>())
        };
        let mut change = Change {
            remove: four(only(&before, &after)),
            add: four(come.clone()),
        };
        change.remove.extend(six(only(&before6, &after6)));
        change.add.extend(six(only(&after6, &before6)));
        if let Err(source) = self.change(change) {
            publisher.ports.restore(key, &before);
            publisher.ports6.restore(key, &before6);
            return Err(PublishError::Kernel {
                table: self.config.firewall.name().to_owned(),
                source,
            });
        }
        drop(publisher);
        let pieces = exchange.remove.iter().map(|port| Piece::of(port, key));
        let pieces6 = address6.into_iter().flat_map(|address| {
            let gone = exchange.remove6.iter();
            gone.map(move |port| Piece::of(port, address))
        });
        // What was asked for is done; connections that stay end with the container at the latest.
        cut(&pieces.chain(pieces6).collect::<Vec<_>>(), netns).ok();
        self.settle_published(&veth, &come);
        let come6 = only(&after6, &before6);
        if !come6.is_empty() {
            self.settle_published6(&veth, &come6);
        }
        Ok((ports_of(after), ports_of(after6)))
    }
}

fn exchange6(
    ports: &mut PortTable<std::net::Ipv6Addr>,
    key: Ipv4Addr,
    exchange: &PortExchange<'_>,
    four: &[PublishedPort],
) -> Result<(), crate::ports::PortError> {
    let like: Vec<_> = exchange
        .add6
        .iter()
        .map(|wish| like_four(wish, four))
        .collect();
    let outcome = ports.exchange(key, exchange.remove6, &like);
    if outcome.is_err() && like != exchange.add6 {
        // Another has the number on IPv6 alone: then both differ.
        return ports.exchange(key, exchange.remove6, exchange.add6);
    }
    outcome
}

/// A wish whose number is open, with that of its other half.
fn like_four(wish: &PublishSpec6, four: &[PublishedPort]) -> PublishSpec6 {
    let open = wish.host_port == 0 || wish.host_port_end > wish.host_port;
    let same = four.iter().find(|port| {
        open && is_any(wish.host_ip)
            && is_any(port.host_ip)
            && (port.container, port.more) == (wish.container, wish.more)
    });
    let number = |port: &PublishedPort| PublishSpec6 {
        host_port: port.host_port,
        host_port_end: port.host_port,
        ..*wish
    };
    same.map_or(*wish, number)
}

fn only<A: HostAddress>(these: &Held<A>, others: &Held<A>) -> Vec<PublishedPort<A>> {
    let new = these.iter().filter(|held| !others.contains(held));
    new.map(|(port, _)| *port).collect()
}

fn ports_of<A>(held: Held<A>) -> Vec<PublishedPort<A>> {
    held.into_iter().map(|(port, _)| port).collect()
}

impl Piece {
    fn of<A: HostAddress>(port: &PublishedPort<A>, address: impl Into<IpAddr>) -> Self {
        Self {
            container: port.container,
            host_ip: (!is_any(port.host_ip)).then(|| port.host_ip.into()),
            host_port: port.host_port,
            more: port.more,
            address: address.into(),
        }
    }
}
