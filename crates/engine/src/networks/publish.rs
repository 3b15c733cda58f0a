//! What a container publishes, changed while it runs or not.
//!
//! ```text
//! worked out ──▶ table of the kernel, at once ──▶ connections cut ──▶ record written
//! ```
//!
//! A kill before the last step leaves the change in the kernel, where the next start of the daemon
//! undoes it: the record decides.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use hull_model::spec::{
    Isolation, NetworkMode, PublishSpec, PublishSpec6, PublishedPort, PublishedPort6,
};
use hull_model::{Error, Result};
use hull_network::{AllPublished, Firewall, PortExchange};
use hull_state::{ContainerRecord, Endpoint, Join};

use super::own::OwnNetwork;
use super::port_plan::{Planned, plan};
use super::publish6::is_one;
use super::six;
use crate::Engine;
use crate::containers::start;
use crate::settings::Settings;

/// A change of what a container publishes. What is meant for both versions of IP stands in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortChange {
    /// Published from now on.
    pub add: Vec<PublishSpec>,
    /// Published no more: of an unspecified address every one is meant, of port zero any.
    pub remove: Vec<PublishSpec>,
    /// As `add`, of IPv6.
    pub add6: Vec<PublishSpec6>,
    /// As `remove`, of IPv6.
    pub remove6: Vec<PublishSpec6>,
}

impl PortChange {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is exchanged at one place of a container.
#[derive(Debug, Default)]
struct Exchange {
    remove: Vec<PublishedPort>,
    add: Vec<PublishSpec>,
    remove6: Vec<PublishedPort6>,
    add6: Vec<PublishSpec6>,
}

/// What takes a change of ports back: the last first.
#[derive(Debug, Default)]
pub(crate) struct Undo(Vec<(Endpoint, Join, Exchange)>);

impl Engine {
    /// Changes what a container publishes, in the kernel if it runs, and in `record`, which the
    /// caller writes. If he cannot, he has [`Engine::undo_ports`] take the change back.
    ///
    /// # Errors
    /// A port is taken, or not published; then nothing has changed.
    pub(crate) fn change_ports(
        &self,
        record: &mut ContainerRecord,
        change: &PortChange,
    ) -> Result<Undo> {
        let mut undo = Undo::default();
        if change.is_empty() {
            return Ok(undo);
        }
        check_mode(&record.spec.network)?;
        let actual = record.state.is_running().then(|| {
            let four: Vec<PublishedPort> = record.published().copied().collect();
            let six: Vec<PublishedPort6> = record.published6().copied().collect();
            (four, six)
        });
        let planned = plan(&record.spec, actual.as_ref(), change)?;
        if actual.is_some() {
            for (place, join, exchange) in self.exchanges(record, change, &planned)? {
                match self.exchange(record, &place, &join, &exchange) {
                    Ok(after) => {
                        undo.0
                            .push((place.clone(), join, exchange_back(&place, &after)));
                        set_ports(record, &place, after);
                    }
                    Err(error) => {
                        self.undo_ports(record, undo);
                        return Err(error);
                    }
                }
            }
        }
        record.spec.published = planned.four.published;
        record.spec.published6 = planned.six.published;
        record.spec.publish_all = planned.publish_all;
        let four = change.add.iter().map(|wish| (wish.container, wish.more));
        let six = change.add6.iter().map(|wish| (wish.container, wish.more));
        for (port, more) in four.chain(six) {
            if more == 0 && !record.spec.exposed_ports.contains(&port) {
                record.spec.exposed_ports.push(port);
            }
        }
        Ok(undo)
    }

    /// Takes back what [`Engine::change_ports`] did. Connections that were cut stay so.
    pub(crate) fn undo_ports(&self, record: &ContainerRecord, undo: Undo) {
        for (place, join, exchange) in undo.0.into_iter().rev() {
            if let Err(error) = self.exchange(record, &place, &join, &exchange) {
                tracing::error!(error = %error.chain(), container = %record.id, "cannot take back a change of ports");
            }
        }
    }

    /// What is to be exchanged where.
    fn exchanges(
        &self,
        record: &ContainerRecord,
        change: &PortChange,
        planned: &Planned,
    ) -> Result<Vec<(Endpoint, Join, Exchange)>> {
        let mut list: Vec<(Endpoint, Join, Exchange)> = Vec::new();
        let no_place =
            || Error::invalid("none of the container's networks leads to the host's ports");
        if !(planned.four.pieces.is_empty() && change.add.is_empty()) {
            match self.publishing_place(record, false) {
                Some((place, join)) => {
                    let exchange = Exchange {
                        remove: planned.four.pieces.clone(),
                        add: change.add.clone(),
                        ..Exchange::default()
                    };
                    list.push((place, join, exchange));
                }
                // Those of both versions are had by the other.
                None if change
                    .add
                    .iter()
                    .all(|four| change.add6.iter().any(|six| is_one(four, six))) => {}
                None => return Err(no_place()),
            }
        }
        let alone = |six: &PublishSpec6| !change.add.iter().any(|four| is_one(four, six));
        if !(planned.six.pieces.is_empty() && change.add6.is_empty()) {
            match self.publishing_place(record, true) {
                Some((place, join)) => {
                    let (remove6, add6) = (planned.six.pieces.clone(), change.add6.clone());
                    match list.iter_mut().find(|(_, known, _)| *known == join) {
                        Some((.., exchange)) => {
                            exchange.remove6 = remove6;
                            exchange.add6 = add6;
                        }
                        None => {
                            let exchange = Exchange {
                                remove6,
                                add6,
                                ..Exchange::default()
                            };
                            list.push((place, join, exchange));
                        }
                    }
                }
                None if change.add6.iter().any(alone) => {
                    return Err(Error::invalid(
                        "the container has no IPv6 address, and nothing translates between both: put it on a network with --ipv6",
                    ));
                }
                None => {}
            }
        }
        if list.is_empty() {
            Err(no_place())
        } else {
            Ok(list)
        }
    }

    fn exchange(
        &self,
        record: &ContainerRecord,
        place: &Endpoint,
        join: &Join,
        exchange: &Exchange,
    ) -> Result<AllPublished> {
        // The sockets of a machine are not the host's to close.
        let netns = match record.spec.isolation {
            Isolation::Container => Some(self.namespace_of(&record.id, "net")?),
            Isolation::Vm => None,
        };
        let (mut add, mut add6) = (exchange.add.clone(), exchange.add6.clone());
        let act = || {
            self.on_network(join, |network, own| {
                let binding = own.map_or(Ipv4Addr::UNSPECIFIED, OwnNetwork::binding);
                if !binding.is_unspecified() {
                    // Whoever says where IPv4 ports are bound wants no more than that.
                    add6.retain(|wish| !wish.host_ip.is_unspecified());
                }
                for wish in add.iter_mut().filter(|wish| wish.host_ip.is_unspecified()) {
                    wish.host_ip = binding;
                }
                let exchange = PortExchange {
                    remove: &exchange.remove,
                    add: &add,
                    remove6: &exchange.remove6,
                    add6: &add6,
                };
                network.republish(place.address, exchange, netns.as_ref().map(AsFd::as_fd))
            })
        };
        tokio::task::block_in_place(act)?.map_err(start::publish_error)
    }

    /// Where a running container publishes on addresses of IPv4 or IPv6: where it does, or where its
    /// default route leads.
    fn publishing_place(&self, record: &ContainerRecord, ipv6: bool) -> Option<(Endpoint, Join)> {
        let publishes = |endpoint: &Endpoint| match &endpoint.v6 {
            Some(v6) if ipv6 => !v6.ports.is_empty(),
            _ => !ipv6 && !endpoint.ports.is_empty(),
        };
        let has_address = |endpoint: &Endpoint| match ipv6 {
            true => endpoint.v6.is_some(),
            false => !six::is_number(endpoint.address),
        };
        let joins = self.joins_of(record);
        let bridge = self.network_id("bridge");
        let place_of = |join: &Join| -> Option<&Endpoint> {
            if join.network == bridge && record.endpoint.is_some() {
                return record.endpoint.as_ref();
            }
            let place = record.places.iter().find(|p| p.network == join.network);
            place.map(|place| &place.endpoint)
        };
        let all = joins
            .iter()
            .filter_map(|join| Some((join, place_of(join)?)));
        let all: Vec<_> = all.collect();
        let leads = |(join, endpoint): &&(&Join, &Endpoint)| {
            let own = self.own_networks.get(&join.network);
            own.is_none_or(|own| own.leads_out() && own.direct.is_none()) && has_address(endpoint)
        };
        let rank = |(join, _): &&(&Join, &Endpoint)| {
            (join.gw_priority, std::cmp::Reverse(join.name.clone()))
        };
        let found = all
            .iter()
            .find(|(_, endpoint)| publishes(endpoint))
            .or_else(|| all.iter().filter(leads).max_by_key(rank));
        found.map(|(join, endpoint)| ((*endpoint).clone(), (*join).clone()))
    }
}

/// Has published ports obey the host's rules for input, if the settings say so.
///
/// # Errors
/// The host cannot do it: better no daemon than ports that are open behind a firewall.
pub(crate) fn obey_input(settings: &Settings, firewall: &Firewall) -> Result<()> {
    let obey = settings.published_ports_obey_input;
    match firewall.obey_input(&settings.bridge, obey) {
        Err(error) if obey => Err(Error::internal(
            "published ports cannot obey the host's rules for input",
            error,
        )),
        Err(error) => {
            tracing::warn!(%error, "cannot remove the interfaces of ports that obeyed the host's rules");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn check_mode(mode: &NetworkMode) -> Result<()> {
    let whose = match mode {
        NetworkMode::Bridge | NetworkMode::Network(_) => return Ok(()),
        NetworkMode::Host => "the host's network",
        NetworkMode::None => "no network",
        NetworkMode::Container(_) => "another container's network",
    };
    Err(Error::invalid(format!(
        "conflicting options: port publishing and a container in {whose}"
    )))
}

fn set_ports(record: &mut ContainerRecord, place: &Endpoint, (four, six): AllPublished) {
    let places = record.places.iter_mut().map(|place| &mut place.endpoint);
    let mut all = record.endpoint.iter_mut().chain(places);
    if let Some(endpoint) = all.find(|endpoint| endpoint.address == place.address) {
        endpoint.ports = four;
        if let Some(v6) = &mut endpoint.v6 {
            v6.ports = six;
        }
    }
}

/// What undoes an exchange after which a place publishes `after`.
fn exchange_back(place: &Endpoint, (four, six): &AllPublished) -> Exchange {
    let before6: &[PublishedPort6] = place.v6.as_ref().map_or(&[], |v6| &v6.ports);
    Exchange {
        remove: difference(four, &place.ports),
        add: exactly(&difference(&place.ports, four)),
        remove6: difference(six, before6),
        add6: exactly(&difference(before6, six)),
    }
}

fn difference<A: Copy + PartialEq>(
    these: &[PublishedPort<A>],
    others: &[PublishedPort<A>],
) -> Vec<PublishedPort<A>> {
    let new = these.iter().filter(|port| !others.contains(port));
    new.copied().collect()
}

/// The wishes that give exactly these.
fn exactly<A: Copy>(ports: &[PublishedPort<A>]) -> Vec<PublishSpec<A>> {
    let wish = |port: &PublishedPort<A>| PublishSpec {
        container: port.container,
        host_ip: port.host_ip,
        host_port: port.host_port,
        host_port_end: port.host_port,
        more: port.more,
    };
    ports.iter().map(wish).collect()
}
