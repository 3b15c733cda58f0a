//! Containers join networks and leave them, at their start and while they run.
//!
//! ```text
//! connect      interface made ──▶ record written ──▶ names told
//! disconnect   record written ──▶ names forgotten ──▶ interface deleted
//! ```
//!
//! A kill in between leaves an interface that no record names, which the next start deletes.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use hull_model::spec::{ContainerSpec, NetworkMode, PublishSpec};
use hull_model::{Error, ErrorKind, Result};
use hull_network::{Address6Error, AddressError, AttachError, MacAddress, Network, Plug};
use hull_state::{ContainerRecord, ContainerState, Endpoint, Join, Place};

use super::links;
use super::own::OwnNetwork;
use super::{publish6, six};
use crate::Engine;
use crate::containers::{ports_wanted, start};

/// The interface's name by Docker's option.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// The kernel's parameters of the interface by Docker's option.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
/// IFNAMSIZ less the zero byte.
const LONGEST_INTERFACE: usize = 15;
/// A container with more than these is no use of a bridge.
const MOST_NETWORKS: usize = 64;

fn forbidden(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Forbidden, text)
}

pub(super) fn refused(error: AttachError) -> Error {
    let text = "cannot set up the container's network";
    match error {
        AttachError::Address(AddressError::Taken(_)) => {
            Error::with_source(ErrorKind::Forbidden, "Address already in use", error)
        }
        AttachError::Address(AddressError::Outside { .. } | AddressError::NotManaged(_)) => {
            Error::with_source(ErrorKind::InvalidArgument, text, error)
        }
        AttachError::Address6(Address6Error::Taken(_)) => {
            Error::with_source(ErrorKind::Forbidden, "Address already in use", error)
        }
        AttachError::Address6(Address6Error::Outside { .. } | Address6Error::None) => {
            Error::with_source(ErrorKind::InvalidArgument, text, error)
        }
        AttachError::Address(_) | AttachError::Address6(_) | AttachError::Closed => {
            Error::with_source(ErrorKind::Unavailable, text, error)
        }
        AttachError::Endpoint(_) => Error::internal(text, error),
    }
}

/// Gives each join without an interface the first `ethN` that is free.
fn name_interfaces(joins: &mut [Join]) {
    let mut taken: HashSet<String> = joins.iter().map(|join| join.interface.clone()).collect();
    let mut number = 0;
    for join in joins.iter_mut().filter(|join| join.interface.is_empty()) {
        loop {
            let name = format!("eth{number}");
            number += 1;
            if taken.insert(name.clone()) {
                join.interface = name;
                break;
            }
        }
    }
}

impl Engine {
    /// The network with this id, the default one or a user's, with what `act` makes of it.
    pub(super) fn on_network<T>(
        &self,
        join: &Join,
        act: impl FnOnce(&Network, Option<&OwnNetwork>) -> T,
    ) -> Result<T> {
        if join.network == self.network_id("bridge") {
            return Ok(act(self.bridge()?, None));
        }
        let own = self.own_networks.get(&join.network);
        let own =
            own.ok_or_else(|| Error::not_found(format!("network {} not found", join.name)))?;
        Ok(act(own.network()?, Some(&own)))
    }

    /// What a new container joins: nothing if its mode says it all.
    pub(crate) fn resolve_joins(
        &self,
        spec: &ContainerSpec,
        wanted: Vec<Join>,
    ) -> Result<Option<Vec<Join>>> {
        let primary = match &spec.network {
            // As most are: nothing to look up.
            NetworkMode::Bridge if wanted.is_empty() && spec.mac.is_empty() => return Ok(None),
            NetworkMode::Bridge => "bridge",
            NetworkMode::Network(name) => name,
            mode @ (NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_)) => {
                let own = crate::network_name(mode);
                if !spec.mac.is_empty() && !matches!(mode, NetworkMode::None) {
                    return Err(Error::invalid(
                        "conflicting options: mac-address and the network mode",
                    ));
                }
                return match wanted.iter().find(|join| join.name != own) {
                    Some(join) if !matches!(mode, NetworkMode::Container(_)) => {
                        Err(Error::invalid(format!(
                            "conflicting options: network {} and the network mode {own}",
                            join.name
                        )))
                    }
                    _ => Ok(None),
                };
            }
        };
        let mut first = Join {
            name: primary.to_owned(),
            mac: spec.mac.clone(),
            ..Join::default()
        };
        if primary != "bridge" {
            links::of_first(spec, &mut first);
        }
        let mut joins = vec![self.resolve(first)?];
        for mut join in wanted {
            if join.name == "default" {
                primary.clone_into(&mut join.name);
            }
            let join = self.resolve(join)?;
            match joins.iter_mut().find(|known| known.network == join.network) {
                // What is said of the network that the mode names.
                Some(known) if known.aliases.is_empty() && known.address.is_none() => {
                    let (mac, links) = (std::mem::take(&mut known.mac), known.links.clone());
                    *known = join;
                    for link in links {
                        if !known.links.iter().any(|own| own.alias == link.alias) {
                            known.links.push(link);
                        }
                    }
                    if known.mac.is_empty() {
                        known.mac = mac;
                    }
                }
                Some(known) => {
                    return Err(Error::invalid(format!(
                        "network {} is named twice",
                        known.name
                    )));
                }
                None => joins.push(join),
            }
        }
        if joins.len() > MOST_NETWORKS {
            return Err(Error::invalid(format!(
                "more than {MOST_NETWORKS} networks"
            )));
        }
        for join in &joins {
            self.check_join(join)?;
        }
        let plain = Join {
            network: self.network_id("bridge"),
            name: "bridge".to_owned(),
            ..Join::default()
        };
        Ok((joins != [plain]).then_some(joins))
    }

    /// Finds the network that a join names.
    fn resolve(&self, mut join: Join) -> Result<Join> {
        let found = self.bare_network(&join.name)?;
        if !matches!(found.driver, "bridge" | "macvlan" | "ipvlan") {
            return Err(Error::invalid(format!(
                "conflicting options: network {} and others",
                found.name
            )));
        }
        join.network = found.id;
        join.name = found.name;
        if let Some(name) = join.options.get(INTERFACE) {
            join.interface.clone_from(name);
        }
        Ok(join)
    }

    fn check_join(&self, join: &Join) -> Result<()> {
        self.check_bandwidth(join)?;
        if !join.mac.is_empty() {
            let parsed = join.mac.parse::<MacAddress>();
            parsed.map_err(|e| Error::invalid(e.to_string()))?;
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        let name = &join.interface;
        if name.len() > LONGEST_INTERFACE || name.contains(bad) || name == "." || name == ".." {
            return Err(Error::invalid(format!("invalid interface name {name:?}")));
        }
        if !join.mac.is_empty() && self.driver_of(&join.network) == "ipvlan" {
            return Err(Error::invalid(
                "ipvlan interfaces have the MAC address of their parent: leave the MAC address out",
            ));
        }
        if let Some(list) = join.options.get(SYSCTLS) {
            let checked = hull_network::interface_sysctls(list);
            checked.map_err(|e| Error::invalid(e.to_string()))?;
        }
        if join.network == self.network_id("bridge") {
            if !join.links.is_empty() {
                return Err(Error::invalid(
                    "links on the default network are given when the container is created: use --link of create and run",
                ));
            }
            if join.address.is_some() {
                return Err(Error::invalid(
                    "user specified IP address is supported on user defined networks only",
                ));
            }
            if !join.aliases.is_empty() {
                return Err(Error::invalid(
                    "network-scoped aliases are only supported for user-defined networks",
                ));
            }
        }
        self.check_join6(join)?;
        let Some(address) = join.address else {
            return Ok(());
        };
        let own = self.own_networks.get(&join.network);
        let subnet = match own.as_ref().map(|own| own.direct()).transpose()?.flatten() {
            Some(direct) => direct.config().subnet.ok_or_else(|| {
                Error::invalid(format!(
                    "network {} has no address management: leave the address out",
                    join.name
                ))
            })?,
            None => self.on_network(join, |network, _| network.info().subnet)?,
        };
        if subnet.contains(address) {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "no configured subnet contains IP address {address}"
            )))
        }
    }

    /// What a container joins, said or not.
    pub(super) fn joins_of(&self, record: &ContainerRecord) -> Vec<Join> {
        record.joins.clone().unwrap_or_else(|| {
            let default = matches!(record.spec.network, NetworkMode::Bridge).then(|| Join {
                network: self.network_id("bridge"),
                name: "bridge".to_owned(),
                interface: hull_network::INTERFACE.to_owned(),
                ..Join::default()
            });
            default.into_iter().collect()
        })
    }

    /// Makes an interface on each network that a starting container joins, with the ports it
    /// publishes. What was made before a failure is in `places`.
    pub(crate) fn plug_all(
        &self,
        record: &ContainerRecord,
        netns: BorrowedFd<'_>,
        places: &mut Vec<Place>,
    ) -> Result<()> {
        let mut joins = record.joins.clone().unwrap_or_default();
        name_interfaces(&mut joins);
        for join in &joins {
            places.push(self.plug(join, netns, None)?);
        }
        self.lead_out(record, &joins, netns, places)
    }

    /// Makes an interface, of a container that runs already if one is given.
    fn plug(
        &self,
        join: &Join,
        netns: BorrowedFd<'_>,
        running: Option<&ContainerRecord>,
    ) -> Result<Place> {
        let own = self.own_networks.get(&join.network);
        let own = own.map(|own| self.reopen_direct(own));
        if let Some(direct) = own.as_ref().map(|own| own.direct()).transpose()?.flatten() {
            let place = self.plug_direct(direct, join, netns)?;
            if let Err(error) = set_sysctls(join, netns) {
                self.free_places(std::slice::from_ref(&place));
                return Err(error);
            }
            return Ok(place);
        }
        let plug = Plug {
            netns,
            interface: &join.interface,
            address: join.address,
            mac: join.mac.parse().ok(),
        };
        let before = |veth: &str| {
            if let Some(record) = running {
                self.close_egress(record, veth);
            }
        };
        let plugged = self.on_network(join, |network, _| network.plug_announced(&plug, &before))?;
        let plugged = plugged.map_err(refused)?;
        let mut place = Place {
            network: join.network.clone(),
            interface: join.interface.clone(),
            endpoint: Endpoint {
                address: plugged.address,
                prefix: plugged.prefix,
                gateway: plugged.gateway,
                mac: plugged.mac.to_string(),
                veth: plugged.host_veth,
                ports: Vec::new(),
                v6: None,
            },
        };
        let plugged6 = self.plug6(join, netns, &place.endpoint);
        let done = plugged6.and_then(|v6| {
            place.endpoint.v6 = v6;
            set_sysctls(join, netns)
        });
        let done = done.and_then(|()| self.limit_bandwidth(join, &place.endpoint.veth));
        if let Err(error) = done {
            self.free_places(std::slice::from_ref(&place));
            return Err(error);
        }
        Ok(place)
    }

    /// The driver of the network with this id.
    fn driver_of(&self, network: &str) -> &'static str {
        let own = self.own_networks.get(network);
        own.map_or("bridge", |own| own.driver())
    }

    /// Sets up what a new interface on the network `id` needs in the place of one that was lost.
    pub(super) fn connect_again(
        &self,
        record: &ContainerRecord,
        id: &str,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        if let Some(endpoint) = &record.endpoint {
            return hull_network::lead_out(netns, hull_network::INTERFACE, endpoint.gateway)
                .map_err(crate::internal("cannot set the container's default route"));
        }
        let joins = self.joins_of(record);
        let place = record.places.iter().find(|place| place.network == id);
        if let (Some(join), Some(place)) = (joins.iter().find(|j| j.network == id), place) {
            set_sysctls(join, netns)?;
            self.limit_bandwidth(join, &place.endpoint.veth)?;
        }
        let mut places = record.places.clone();
        self.lead_out(record, &joins, netns, &mut places)
    }

    /// Has the default route lead through the network whose turn it is, and the ports published
    /// there.
    fn lead_out(
        &self,
        record: &ContainerRecord,
        joins: &[Join],
        netns: BorrowedFd<'_>,
        places: &mut [Place],
    ) -> Result<()> {
        let leads = |join: &&Join| {
            let own = self.own_networks.get(&join.network);
            own.is_none_or(|own| own.leads_out())
        };
        let rank = |join: &&Join| (join.gw_priority, std::cmp::Reverse(join.name.clone()));
        let mut leading: Vec<&Join> = joins.iter().filter(leads).collect();
        leading.sort_by_key(|join| std::cmp::Reverse(rank(join)));
        let place_of = |join: &&Join| places.iter().find(|p| p.network == join.network);
        six::lead_out6(netns, leading.iter().filter_map(place_of))?;
        let has_ipv4 = |join: &&&Join| {
            place_of(join).is_some_and(|place| !six::is_number(place.endpoint.address))
        };
        let Some(join) = leading.iter().find(has_ipv4).copied() else {
            if !leading.is_empty() && !publish6::publishes(places) {
                publish6::check_without_ipv4(&record.spec)?;
            }
            return self.publish6(record, joins, &leading, places);
        };
        let Some(chosen) = places.iter().position(|p| p.network == join.network) else {
            return Ok(());
        };
        let (interface, gateway) = match places.get(chosen) {
            Some(place) => (place.interface.clone(), place.endpoint.gateway),
            None => return Ok(()),
        };
        hull_network::lead_out(netns, &interface, gateway)
            .map_err(crate::internal("cannot set the container's default route"))?;
        self.publish4(record, joins, join, places)?;
        self.publish6(record, joins, &leading, places)
    }

    /// Has the ports of a container lead to it by the network of `join`; they leave others.
    fn publish4(
        &self,
        record: &ContainerRecord,
        joins: &[Join],
        join: &Join,
        places: &mut [Place],
    ) -> Result<()> {
        let Some(chosen) = places.iter().position(|p| p.network == join.network) else {
            return Ok(());
        };
        let mut wanted = Vec::new();
        let mut published = false;
        for (index, place) in places.iter_mut().enumerate() {
            if place.endpoint.ports.is_empty() {
                continue;
            }
            published = true;
            if index == chosen {
                continue;
            }
            let address = place.endpoint.address;
            let named = joins.iter().find(|j| j.network == place.network);
            if let Some(join) = named {
                let outcome = self.on_network(join, |network, _| network.unpublish(address))?;
                outcome.map_err(start::publish_error)?;
            }
            wanted.extend(place.endpoint.ports.drain(..).map(|port| PublishSpec {
                container: port.container,
                host_ip: port.host_ip,
                host_port: port.host_port,
                host_port_end: port.host_port,
                more: port.more,
            }));
        }
        if !published {
            wanted = ports_wanted(&record.spec);
        }
        let own = self.own_networks.get(&join.network);
        // On a wire that is not ours a container has its own ports: as in Docker, none is published.
        if wanted.is_empty() || own.is_some_and(|own| own.direct.is_some()) {
            return Ok(());
        }
        let Some(place) = places.get_mut(chosen) else {
            return Ok(());
        };
        let address = place.endpoint.address;
        let outcome = self.on_network(join, |network, own| {
            let binding = own.map_or(Ipv4Addr::UNSPECIFIED, OwnNetwork::binding);
            for wish in &mut wanted {
                if wish.host_ip.is_unspecified() {
                    wish.host_ip = binding;
                }
            }
            network.publish(address, &wanted)
        })?;
        place.endpoint.ports = outcome.map_err(start::publish_error)?;
        Ok(())
    }

    /// Gives places and their ports back, of a container that ended.
    pub(crate) fn free_places(&self, places: &[Place]) {
        for place in places {
            self.withdraw(place);
            self.lift_bandwidth(&place.endpoint.veth);
            if place.network == self.network_id("bridge") {
                self.free_endpoint(&place.endpoint);
            } else if let Some(own) = self.own_networks.get(&place.network) {
                match (&own.direct, &own.network) {
                    (Some(Ok(direct)), _) => direct.release(&place.endpoint.veth),
                    (None, Ok(network)) => super::give_back(network, &place.endpoint),
                    _ => {}
                }
            }
        }
    }

    /// Keeps the interfaces' names that a start has chosen.
    pub(crate) fn settle_joins(record: &mut ContainerRecord) {
        for join in record.joins.iter_mut().flatten() {
            let place = record.places.iter().find(|p| p.network == join.network);
            if let Some(place) = place {
                join.interface.clone_from(&place.interface);
            }
        }
    }

    /// Has a container join a network, at once if it runs.
    ///
    /// # Errors
    /// `Forbidden` if its network is not its own, if it is there already or the address is taken.
    pub async fn connect(
        self: &Arc<Self>,
        network: &str,
        container: &str,
        join: Join,
    ) -> Result<()> {
        let join = self.resolve(Join {
            name: network.to_owned(),
            ..join
        })?;
        self.check_join(&join)?;
        let container = self.containers.find(container)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        if record.state.is_running() {
            crate::containers::machine::refuse(&record, "joining a network while it runs")?;
        }
        check_changeable(&record)?;
        self.check_egress(&record.spec, Some(std::slice::from_ref(&join)))?;
        let mut joins = self.joins_of(&record);
        if joins.iter().any(|known| known.network == join.network) {
            return Err(forbidden(format!(
                "endpoint with name {} already exists in network {}",
                record.name, join.name
            )));
        }
        if joins.len() >= MOST_NETWORKS {
            return Err(Error::invalid(format!(
                "more than {MOST_NETWORKS} networks"
            )));
        }
        let (id, name) = (join.network.clone(), join.name.clone());
        joins.push(join);
        if record.state.is_running() {
            self.spread(&mut record);
            name_interfaces(&mut joins);
            let netns = self.namespace_of(&record.id, "net")?;
            let Some(join) = joins.last() else {
                return Ok(());
            };
            let plug = || self.plug(join, netns.as_fd(), Some(&record));
            let place = tokio::task::block_in_place(plug)?;
            record.places.push(place.clone());
            // Nothing leads out there yet.
            let egress = self.enforce_egress(&record, None, &record.places).await;
            let egress = egress.inspect_err(|_| self.free_places(std::slice::from_ref(&place)))?;
            // The container runs: whatever fails now, its policy stays.
            if let Some(egress) = egress {
                egress.keep();
            }
            let mut places = record.places.clone();
            let led = self.lead_out(&record, &joins, netns.as_fd(), &mut places);
            record.places = places;
            record.joins = Some(joins);
            if let Err(error) = led.and_then(|()| self.store_soon(&record)) {
                record.places.retain(|other| other.network != place.network);
                match self.enforce_egress(&record, None, &record.places).await {
                    Ok(egress) => {
                        if let Some(egress) = egress {
                            egress.keep();
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = %error.chain(), container = record.id, "its egress policy still names a network that it did not join");
                    }
                }
                self.free_places(std::slice::from_ref(&place));
                return Err(error);
            }
            container.set(record.clone());
            self.announce(&record);
            self.rewrite_files(&record);
        } else {
            record.joins = Some(joins);
            self.store(&record)?;
            container.set(record.clone());
        }
        self.tell_neighbours(&record, &record.places);
        let driver = self.driver_of(&id);
        self.network_event("connect", &id, &name, driver, Some(&record.id));
        Ok(())
    }

    /// Has a container leave a network, at once if it runs.
    ///
    /// # Errors
    /// `Forbidden` if it is not there.
    pub async fn disconnect(self: &Arc<Self>, network: &str, container: &str) -> Result<()> {
        let container = self.containers.find(container)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        if record.state.is_running() {
            crate::containers::machine::refuse(&record, "leaving a network while it runs")?;
        }
        check_changeable(&record)?;
        let mut joins = self.joins_of(&record);
        // A network that is gone is still named by containers that do not run.
        let found = self.network(network).map(|found| found.id);
        let wanted = found.unwrap_or_else(|_| network.to_owned());
        let position = joins
            .iter()
            .position(|join| join.network == wanted || join.name == network);
        let Some(position) = position else {
            return Err(forbidden(format!(
                "container {} is not connected to network {network}",
                record.name
            )));
        };
        let join = joins.remove(position);
        self.spread(&mut record);
        record.joins = Some(joins.clone());
        let left = record
            .places
            .iter()
            .position(|place| place.network == join.network)
            .map(|index| record.places.remove(index));
        self.store(&record)?;
        container.set(record.clone());
        if let Some(place) = left {
            self.withdraw(&place);
            self.lift_bandwidth(&place.endpoint.veth);
            let address = place.endpoint.address;
            let own = self.own_networks.get(&join.network);
            if let Some(Ok(direct)) = own.as_ref().and_then(|own| own.direct.as_ref()) {
                self.unplug_direct(direct, &record.id, &place)?;
            } else {
                let unplug = || self.on_network(&join, |network, _| network.unplug(address));
                tokio::task::block_in_place(unplug)?.map_err(start::publish_error)?;
            }
            let egress = self.enforce_egress(&record, None, &record.places).await?;
            if let Some(egress) = egress {
                egress.keep();
            }
            let netns = self.namespace_of(&record.id, "net")?;
            let mut places = record.places.clone();
            // What it published there it goes on to publish elsewhere, random ports by their numbers.
            places.push(place.clone());
            self.lead_out(&record, &joins, netns.as_fd(), &mut places)?;
            places.pop();
            record.places = places;
            self.store_soon(&record)?;
            container.set(record.clone());
            self.announce(&record);
            self.rewrite_files(&record);
            self.tell_neighbours(&record, std::slice::from_ref(&place));
        }
        let driver = self.driver_of(&join.network);
        self.network_event(
            "disconnect",
            &join.network,
            &join.name,
            driver,
            Some(&record.id),
        );
        Ok(())
    }

    /// Has the place on the default network stand where those on others do.
    fn spread(&self, record: &mut ContainerRecord) {
        if let Some(endpoint) = record.endpoint.take() {
            record.places.push(Place {
                network: self.network_id("bridge"),
                interface: hull_network::INTERFACE.to_owned(),
                endpoint,
            });
        }
    }
}

/// Sets the kernel's parameters of an interface that was made.
fn set_sysctls(join: &Join, netns: BorrowedFd<'_>) -> Result<()> {
    let Some(list) = join.options.get(SYSCTLS) else {
        return Ok(());
    };
    let text = "cannot set up the container's network";
    let wrong = |e| Error::with_source(ErrorKind::InvalidArgument, text, e);
    let list = hull_network::interface_sysctls(list).map_err(wrong)?;
    hull_network::set_interface_sysctls(netns, &join.interface, &list).map_err(wrong)
}

fn check_changeable(record: &ContainerRecord) -> Result<()> {
    match &record.spec.network {
        NetworkMode::Host | NetworkMode::Container(_) => Err(forbidden(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        )),
        NetworkMode::None => Err(forbidden(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        )),
        NetworkMode::Bridge | NetworkMode::Network(_) => match record.state {
            ContainerState::Removing | ContainerState::Dead => Err(Error::conflict(
                "container is marked for removal and cannot be connected or disconnected to the network",
            )),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_keep_their_names_and_fill_gaps() {
        let mut joins = ["", "eth1", "lan", ""].map(|interface| Join {
            interface: interface.to_owned(),
            ..Join::default()
        });
        name_interfaces(&mut joins);
        let names = joins.map(|join| join.interface);
        assert_eq!(names, ["eth0", "eth1", "lan", "eth2"]);
    }
}
