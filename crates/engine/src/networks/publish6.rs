//! What a container publishes on the host's IPv6 addresses.
//!
//! Nothing translates between both versions of IP: ports of IPv6 addresses lead to the container's
//! IPv6 address, which only networks with an IPv6 half give it. A wish for every address of the host
//! is two, one for each version, of which a container that has one version gets one.

use std::net::{Ipv4Addr, Ipv6Addr};

use hull_model::spec::{ContainerSpec, PublishSpec, PublishSpec6, PublishedPort, PublishedPort6};
use hull_model::{Error, Result};
use hull_network::{PortError, PublishError};
use hull_state::{ContainerRecord, Endpoint, Join, Place};

use crate::Engine;
use crate::containers::{ports_wanted, start};

/// What a container wants published on IPv6 addresses.
pub(super) fn wanted(spec: &ContainerSpec) -> Vec<PublishSpec6> {
    let mut wanted = spec.published6.clone();
    if spec.publish_all {
        let all = ports_wanted(spec);
        let random = all.iter().filter(|wish| wish.host_port == 0);
        for wish in random.map(every) {
            if !wanted.iter().any(|known| known.covers(wish.container)) {
                wanted.push(wish);
            }
        }
    }
    wanted
}

/// The wish for every IPv6 address that goes with one for every address of IPv4.
fn every(wish: &PublishSpec) -> PublishSpec6 {
    PublishSpec6 {
        container: wish.container,
        host_ip: Ipv6Addr::UNSPECIFIED,
        host_port: wish.host_port,
        host_port_end: wish.host_port_end,
        more: wish.more,
    }
}

/// Whether both are one wish for every address of the host.
pub(super) fn is_one(four: &PublishSpec, six: &PublishSpec6) -> bool {
    four.host_ip.is_unspecified() && every(four) == *six
}

/// Says no to what can only be had by IPv6 where a container has no such address.
///
/// # Errors
/// It wants a port on an IPv6 address of the host.
pub(crate) fn check_without_ipv6(spec: &ContainerSpec) -> Result<()> {
    let alone = |six: &&PublishSpec6| !spec.published.iter().any(|four| is_one(four, six));
    match spec.published6.iter().find(alone) {
        Some(wish) => Err(Error::invalid(format!(
            "cannot publish on [{}]: the container has no IPv6 address, and nothing translates between both; put it on a network with --ipv6",
            wish.host_ip
        ))),
        None => Ok(()),
    }
}

/// Says no to what can only be had by IPv4 where a container has no such address.
///
/// # Errors
/// It wants a port on an IPv4 address of the host.
pub(super) fn check_without_ipv4(spec: &ContainerSpec) -> Result<()> {
    let alone = |four: &&PublishSpec| !spec.published6.iter().any(|six| is_one(four, six));
    match spec.published.iter().find(alone) {
        Some(wish) => Err(Error::invalid(format!(
            "cannot publish on {}: the container has no IPv4 address, and nothing translates between both",
            wish.host_ip
        ))),
        None => Ok(()),
    }
}

/// Whether anything is published at one of the places.
pub(super) fn publishes(places: &[Place]) -> bool {
    places.iter().map(|place| &place.endpoint).any(|endpoint| {
        let six = endpoint.v6.as_ref();
        !endpoint.ports.is_empty() || six.is_some_and(|v6| !v6.ports.is_empty())
    })
}

/// A random port of both versions of IP has the same number.
fn with_number_of(wish: &PublishSpec6, four: &[PublishedPort]) -> PublishSpec6 {
    let open = wish.host_port == 0 || wish.host_port_end > wish.host_port;
    let same = four.iter().find(|port| {
        open && wish.host_ip.is_unspecified()
            && port.host_ip == Ipv4Addr::UNSPECIFIED
            && port.container == wish.container
            && port.more == wish.more
    });
    match same {
        Some(port) => PublishSpec6 {
            host_port: port.host_port,
            host_port_end: port.host_port,
            ..*wish
        },
        None => *wish,
    }
}

fn exactly(port: PublishedPort6) -> PublishSpec6 {
    PublishSpec6 {
        container: port.container,
        host_ip: port.host_ip,
        host_port: port.host_port,
        host_port_end: port.host_port,
        more: port.more,
    }
}

impl Engine {
    /// Has the IPv6 ports of a container lead to it by the network of `leading`, the best first,
    /// that has IPv6 and is our own; they leave others.
    pub(super) fn publish6(
        &self,
        record: &ContainerRecord,
        joins: &[Join],
        leading: &[&Join],
        places: &mut [Place],
    ) -> Result<()> {
        let is_six = |place: &&Place| place.endpoint.v6.is_some();
        let of = |join: &&Join| {
            let at = places.iter().position(|p| p.network == join.network)?;
            places.get(at).as_ref().filter(|p| is_six(p)).map(|_| at)
        };
        let Some(chosen) = leading.iter().find_map(of) else {
            // Whoever has left the network that had them goes on without.
            return match publishes(places) {
                true => Ok(()),
                false => check_without_ipv6(&record.spec),
            };
        };
        let mut wishes = Vec::new();
        let mut published = false;
        for (index, place) in places.iter_mut().enumerate() {
            let key = place.endpoint.address;
            let Some(v6) = place.endpoint.v6.as_mut().filter(|v6| !v6.ports.is_empty()) else {
                continue;
            };
            published = true;
            if index == chosen {
                continue;
            }
            if let Some(join) = joins.iter().find(|join| join.network == place.network) {
                let outcome = self.on_network(join, |network, _| network.unpublish6(key))?;
                outcome.map_err(start::publish_error)?;
            }
            wishes.extend(v6.ports.drain(..).map(exactly));
        }
        if !published {
            wishes = wanted(&record.spec);
        }
        let four: Vec<PublishedPort> = places
            .iter()
            .flat_map(|place| place.endpoint.ports.iter().copied())
            .collect();
        let (Some(place), false) = (places.get_mut(chosen), wishes.is_empty()) else {
            return Ok(());
        };
        let own = self.own_networks.get(&place.network);
        if own.is_some_and(|own| own.direct.is_some()) {
            // On a wire that is not ours it has its own ports.
            return Ok(());
        }
        let ports = self.publish6_at(joins, place, &wishes, &four)?;
        if let Some(v6) = &mut place.endpoint.v6 {
            v6.ports = ports;
        }
        Ok(())
    }

    fn publish6_at(
        &self,
        joins: &[Join],
        place: &Place,
        wishes: &[PublishSpec6],
        four: &[PublishedPort],
    ) -> Result<Vec<PublishedPort6>> {
        let Some(join) = joins.iter().find(|join| join.network == place.network) else {
            return Ok(Vec::new());
        };
        let Endpoint { address: key, .. } = place.endpoint;
        let mut same: Vec<PublishSpec6> = wishes.iter().map(|w| with_number_of(w, four)).collect();
        let outcome = self.on_network(join, |network, own| {
            if own.is_some_and(|own| !own.binding().is_unspecified()) {
                // Whoever says where IPv4 ports are bound wants no more than that.
                same.retain(|wish| !wish.host_ip.is_unspecified());
            }
            match network.publish6(key, &same) {
                // Another has the number on IPv6 alone: then both differ.
                Err(PublishError::Port(
                    PortError::Allocated { .. } | PortError::Refused { .. },
                )) if same != wishes && same.len() == wishes.len() => network.publish6(key, wishes),
                outcome => outcome,
            }
        })?;
        outcome.map_err(start::publish_error)
    }
}

#[cfg(test)]
mod tests {
    use hull_model::spec::{Port, Protocol};

    use super::*;

    const PORT: Port = Port {
        number: 80,
        protocol: Protocol::Tcp,
    };

    fn four(host_ip: Ipv4Addr, host_port: u16) -> PublishSpec {
        PublishSpec {
            container: PORT,
            host_ip,
            host_port,
            host_port_end: host_port,
            more: 0,
        }
    }

    fn six(host_ip: Ipv6Addr, host_port: u16) -> PublishSpec6 {
        PublishSpec6 {
            host_ip,
            ..every(&four(Ipv4Addr::UNSPECIFIED, host_port))
        }
    }

    #[test]
    fn wish_for_every_address_needs_neither_version() {
        let mut spec = ContainerSpec {
            published: vec![four(Ipv4Addr::UNSPECIFIED, 8080)],
            published6: vec![six(Ipv6Addr::UNSPECIFIED, 8080)],
            ..ContainerSpec::default()
        };
        assert!(check_without_ipv6(&spec).is_ok() && check_without_ipv4(&spec).is_ok());
        spec.published6.push(six(Ipv6Addr::LOCALHOST, 8081));
        assert!(check_without_ipv6(&spec).is_err());
        spec.published6.clear();
        assert!(check_without_ipv6(&spec).is_ok() && check_without_ipv4(&spec).is_err());
    }

    #[test]
    fn random_port_has_the_number_of_its_other_half() {
        let published = [PublishedPort {
            container: PORT,
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_port: 50_000,
            more: 0,
        }];
        let random = six(Ipv6Addr::UNSPECIFIED, 0);
        let with = with_number_of(&random, &published);
        assert_eq!((with.host_port, with.host_port_end), (50_000, 50_000));
        let said = six(Ipv6Addr::UNSPECIFIED, 8080);
        assert_eq!(with_number_of(&said, &published), said);
        let local = six(Ipv6Addr::LOCALHOST, 0);
        assert_eq!(with_number_of(&local, &published), local);
    }

    #[test]
    fn all_exposed_ports_are_published_on_both_versions() {
        let spec = ContainerSpec {
            publish_all: true,
            exposed_ports: vec![PORT],
            ..ContainerSpec::default()
        };
        assert_eq!(wanted(&spec), [six(Ipv6Addr::UNSPECIFIED, 0)]);
    }
}
