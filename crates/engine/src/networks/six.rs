//! The IPv6 half of networks: what is asked for and chosen, and the containers' addresses in it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use hull_model::{Error, Result};
use hull_network::{Config6, MacAddress, OpenError, Subnet, Subnet6};
use hull_state::{Endpoint, Endpoint6, Join, NetworkRecord, Place, Range6};

use super::make::NewNetwork;
use super::own::OwnNetwork;
use super::usual6::Ipv6Networks;
use crate::{Engine, random};

/// As many numbers as a bridge has ports.
const NUMBERS_PREFIX: u8 = 22;

/// What a user asks for of the IPv6 half of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRange6 {
    /// Subnet as `ADDRESS/PREFIX`; empty takes a free one.
    pub subnet: String,
    /// The bridge's address; empty is the first.
    pub gateway: String,
    /// Where addresses come from that nobody asks for.
    pub ip_range: String,
    /// Addresses that no container is given.
    pub aux_addresses: BTreeMap<String, String>,
}

fn address(what: &str, text: &str) -> Result<Ipv6Addr> {
    // As it is shown by some, with its prefix.
    let bare = text.split('/').next().unwrap_or(text);
    let parsed = bare.parse();
    parsed.map_err(|_| Error::invalid(format!("invalid {what} {text:?}: use an IPv6 address")))
}

fn subnet(text: &str) -> Result<Subnet6> {
    let parsed = text.parse::<Subnet6>();
    parsed.map_err(|e| Error::invalid(e.to_string()))
}

/// The first subnet of 0.0.0.0/8 that is not taken. Its addresses, which no host can have (RFC
/// 1122), number the members of a network without IPv4; they are put on no link.
pub(super) fn numbers(taken: &[Subnet]) -> Option<Subnet> {
    (0_u32..1 << 24)
        .step_by(1 << (32 - NUMBERS_PREFIX))
        .filter_map(|first| Subnet::new(Ipv4Addr::from_bits(first), NUMBERS_PREFIX).ok())
        .find(|subnet| !taken.iter().any(|other| other.overlaps(*subnet)))
}

/// The address of the bridge.
pub fn gateway6(range: &Range6) -> Option<Ipv6Addr> {
    let first = || range.subnet.parse().ok().map(Subnet6::gateway);
    range.gateway.or_else(first)
}

/// Whether it is a mere number, on no link.
pub fn is_number(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0
}

/// The IPv6 half that a record asks for.
///
/// # Errors
/// A part of it is malformed.
pub(super) fn config(record: &NetworkRecord) -> Result<Option<Config6>> {
    let Some(range) = &record.v6 else {
        return Ok(None);
    };
    let mut config = Config6::new(subnet(&range.subnet)?);
    if let Some(gateway) = range.gateway {
        config.gateway = gateway;
    }
    if !range.ip_range.is_empty() {
        config.range = Some(subnet(&range.ip_range)?);
    }
    config.reserved = range.aux_addresses.values().copied().collect();
    Ok(Some(config))
}

/// Whether a network is to have an IPv6 half.
fn wanted(wanted: &NewNetwork, usual: Ipv6Networks) -> Result<bool> {
    let six = wanted.ipv6.unwrap_or_else(|| {
        wanted.v6 != NewRange6::default()
            || wanted.without_ipv4
            || match usual {
                Ipv6Networks::Always => true,
                Ipv6Networks::Never => false,
                Ipv6Networks::Auto => hull_network::host_has_ipv6(),
            }
    });
    if wanted.without_ipv4 && !six {
        return Err(Error::invalid(
            "a network without IPv4 needs IPv6: leave one of both switched on",
        ));
    }
    let four = [&wanted.subnet, &wanted.gateway, &wanted.ip_range];
    let aux = wanted.aux_addresses.is_empty();
    if wanted.without_ipv4 && !(four.iter().all(|text| text.is_empty()) && aux) {
        return Err(Error::invalid(
            "IPv4 addresses are given for a network without IPv4",
        ));
    }
    if !six && wanted.v6 != NewRange6::default() {
        return Err(Error::invalid(
            "IPv6 addresses are given for a network without IPv6: leave them out or enable IPv6",
        ));
    }
    Ok(six)
}

/// The IPv6 half of the network that is asked for; its subnet may be left to be chosen.
///
/// # Errors
/// What is asked for is malformed or contradicts itself.
pub(super) fn range(new: &NewNetwork, usual: Ipv6Networks) -> Result<Option<Range6>> {
    if !wanted(new, usual)? {
        return Ok(None);
    }
    let wish = &new.v6;
    if wish.subnet.is_empty() && !(wish.gateway.is_empty() && wish.ip_range.is_empty()) {
        return Err(Error::invalid(
            "an IPv6 gateway or range needs the subnet in which it lies",
        ));
    }
    let aux = wish.aux_addresses.iter();
    let aux = aux.map(|(name, text)| Ok((name.clone(), address("auxiliary address", text)?)));
    Ok(Some(Range6 {
        subnet: match wish.subnet.as_str() {
            "" => String::new(),
            text => subnet(text)?.to_string(),
        },
        chosen: !wish.subnet.is_empty(),
        gateway: match wish.gateway.as_str() {
            "" => None,
            text => Some(address("gateway", text)?),
        },
        ip_range: wish.ip_range.clone(),
        aux_addresses: aux.collect::<Result<_>>()?,
    }))
}

/// Checks that the subnet asked for is free, or chooses one.
///
/// # Errors
/// It is not, or there is none.
pub(super) fn settle(
    range: &mut Range6,
    all: &[std::sync::Arc<OwnNetwork>],
) -> Result<(), OpenError> {
    let ranges: Vec<&Range6> = all
        .iter()
        .filter_map(|own| own.record.v6.as_ref())
        .collect();
    let taken: Vec<Subnet6> = ranges
        .iter()
        .filter_map(|range| range.subnet.parse().ok())
        .collect();
    if !range.chosen {
        let ours = ranges.iter().find(|range| !range.chosen);
        let global = ours.and_then(|range| global_id(&range.subnet));
        let subnet = hull_network::free_subnet6(global.unwrap_or_else(new_global_id), &taken)?;
        range.subnet = subnet.to_string();
        return Ok(());
    }
    let Ok(subnet) = range.subnet.parse() else {
        return Ok(());
    };
    match hull_network::overlap6(subnet, &taken)? {
        Some(other) => Err(OpenError::Overlap6 { subnet, other }),
        None => Ok(()),
    }
}

/// What follows `fd` in a prefix of ours: all networks whose subnets Hull chose share it.
fn global_id(subnet: &str) -> Option<[u8; 5]> {
    let subnet: Subnet6 = subnet.parse().ok()?;
    let [_, a, b, c, d, e, ..] = subnet.first().octets();
    Some([a, b, c, d, e])
}

/// RFC 4193 wants it random, so that networks of different hosts can be joined.
fn new_global_id() -> [u8; 5] {
    let [a, b, c, d, e, ..] = random::number().to_be_bytes();
    [a, b, c, d, e]
}

impl Engine {
    /// Gives a container's interface an IPv6 address, if the network has them.
    pub(super) fn plug6(
        &self,
        join: &Join,
        netns: BorrowedFd<'_>,
        endpoint: &Endpoint,
    ) -> Result<Option<Endpoint6>> {
        let mac = endpoint.mac.parse::<MacAddress>();
        let mac = mac.map_err(|e| Error::invalid(e.to_string()))?;
        let plugged = self.on_network(join, |network, _| {
            network.plug6(endpoint.address, netns, &join.interface, mac, join.address6)
        })?;
        let place = plugged.map_err(super::join::refused)?;
        Ok(place.map(|place| Endpoint6 {
            address: place.address,
            prefix: place.prefix,
            gateway: place.gateway,
            ports: Vec::new(),
        }))
    }

    /// Checks what a join says of IPv6.
    pub(super) fn check_join6(&self, join: &Join) -> Result<()> {
        let Some(address) = join.address6 else {
            return Ok(());
        };
        let own = self.own_networks.get(&join.network);
        let direct = own.as_ref().map(|own| own.direct()).transpose()?.flatten();
        let subnet = match direct {
            Some(direct) => direct.config().v6.as_ref().map(|v6| v6.subnet),
            None => {
                let info = self.on_network(join, |network, _| network.info6())?;
                info.map(|info| info.subnet)
            }
        };
        if subnet.is_some_and(|subnet| subnet.contains(address)) {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "no configured subnet contains IP address {address}"
            )))
        }
    }
}

/// Where the host is, on a place's network.
pub(crate) fn gateway(endpoint: &Endpoint) -> IpAddr {
    match &endpoint.v6 {
        Some(v6) if is_number(endpoint.address) => v6.gateway.into(),
        _ => endpoint.gateway.into(),
    }
}

/// The addresses at a place, IPv4 first.
pub(crate) fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    let four = Some(endpoint.address).filter(|address| !is_number(*address));
    let six = endpoint.v6.as_ref().map(|v6| v6.address.into());
    four.map(IpAddr::from).into_iter().chain(six)
}

/// Has the IPv6 default route lead through the first of `places` that has IPv6, the best first.
pub(super) fn lead_out6<'a>(
    netns: BorrowedFd<'_>,
    places: impl Iterator<Item = &'a Place>,
) -> Result<()> {
    for place in places {
        if let Some(v6) = &place.endpoint.v6 {
            return hull_network::lead_out6(netns, &place.interface, v6.gateway).map_err(
                crate::internal("cannot set the container's IPv6 default route"),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> NewNetwork {
        NewNetwork {
            name: "n".into(),
            ..NewNetwork::default()
        }
    }

    fn with(change: impl FnOnce(&mut NewNetwork)) -> Result<Option<Range6>> {
        let mut new = new();
        change(&mut new);
        range(&new, Ipv6Networks::Never)
    }

    #[test]
    fn half_is_made_when_it_is_asked_for_or_usual() {
        assert_eq!(with(|_| ()).unwrap(), None);
        assert!(with(|n| n.ipv6 = Some(true)).unwrap().is_some());
        assert!(with(|n| n.without_ipv4 = true).unwrap().is_some());
        let asked = with(|n| n.v6.subnet = "fd00:7::9/64".into()).unwrap();
        let asked = asked.expect("a subnet says so too");
        assert!(asked.chosen && asked.subnet == "fd00:7::/64");
        assert!(range(&new(), Ipv6Networks::Always).unwrap().is_some());
        let refused = NewNetwork {
            ipv6: Some(false),
            ..new()
        };
        assert_eq!(range(&refused, Ipv6Networks::Always).unwrap(), None);
    }

    #[test]
    fn contradictions_and_malformed_parts_are_refused() {
        let refuse = |change: fn(&mut NewNetwork)| assert!(with(change).is_err());
        refuse(|n| {
            n.without_ipv4 = true;
            n.ipv6 = Some(false);
        });
        refuse(|n| {
            n.without_ipv4 = true;
            n.subnet = "10.0.0.0/24".into();
        });
        refuse(|n| {
            n.ipv6 = Some(false);
            n.v6.subnet = "fd00::/64".into();
        });
        refuse(|n| n.v6.gateway = "fd00::1".into());
        refuse(|n| n.v6.subnet = "fd00::".into());
        refuse(|n| {
            n.v6.subnet = "fd00::/64".into();
            n.v6.aux_addresses.insert("a".into(), "10.0.0.1".into());
        });
    }

    #[test]
    fn chosen_subnets_share_their_global_id() {
        assert_eq!(
            global_id("fd12:3456:789a:1::/64"),
            Some([0x12, 0x34, 0x56, 0x78, 0x9a])
        );
        assert_ne!(new_global_id(), new_global_id());
        let first = numbers(&[]).expect("a subnet");
        assert!(is_number(first.gateway()));
        assert_eq!(
            numbers(&[first]).expect("the next").to_string(),
            "0.0.4.0/22"
        );
        assert!(!is_number(Ipv4Addr::new(10, 0, 0, 2)));
    }
}
