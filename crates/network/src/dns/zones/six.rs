//! What names mean in IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use super::{Content, HOST_NAMES, Known, Maps, Zones};
use crate::types6::Subnet6;

/// The IPv6 half of a network as its names are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone6 {
    /// The bridge's address, where the host is.
    pub gateway: Ipv6Addr,
    /// Its subnet.
    pub subnet: Subnet6,
}

/// Members of networks without IPv4 are known by numbers that are on no link.
pub(super) fn is_number(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0
}

impl Zones {
    /// The address by which a container is known that asks from this one; of one that is not known
    /// yet, nobody's in the network's subnet.
    pub(in super::super) fn known_by(&self, network: &str, client: Ipv6Addr) -> Option<Ipv4Addr> {
        let maps = self.read();
        let content = maps.networks.get(network)?;
        match content.by_ipv6.get(&client) {
            Some(address) => Some(*address),
            None => content
                .holds6(client)
                .then_some(content.zone.subnet.first()),
        }
    }

    /// As [`Zones::address_of`], of IPv6 addresses.
    pub(in super::super) fn address6_of(
        &self,
        network: &str,
        client: Ipv4Addr,
        name: &str,
    ) -> Known {
        let maps = self.read();
        let Some(asked) = maps.networks.get(network) else {
            return Known::Missing;
        };
        if let Some(addresses) = maps.private6(network, client, name) {
            return Known::Addresses6(addresses);
        }
        for content in maps.reach(network, client) {
            if let Some(found) = content.named(name) {
                let mut addresses = content.in_ipv6(found);
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let by = turn.checked_rem(addresses.len()).unwrap_or(0);
                addresses.rotate_left(by);
                return Known::Addresses6(addresses);
            }
        }
        if HOST_NAMES.contains(&name) {
            let gateway = asked.zone.v6.map(|v6| v6.gateway);
            return Known::Addresses6(gateway.into_iter().collect());
        }
        maps.elsewhere(network, client)
    }

    /// As [`Zones::name_of`], of an IPv6 address.
    pub(in super::super) fn name6_of(
        &self,
        network: &str,
        client: Ipv4Addr,
        address: Ipv6Addr,
    ) -> Known {
        let maps = self.read();
        for content in maps.reach(network, client) {
            if !content.holds6(address) {
                continue;
            }
            let known_by = content.by_ipv6.get(&address);
            let member = known_by.and_then(|known| content.members.get(known));
            return match member.and_then(|member| member.names.first()) {
                Some(name) => Known::Name(format!("{name}.{}", content.zone.name)),
                None => Known::Missing,
            };
        }
        maps.elsewhere(network, client)
    }
}

impl Content {
    fn holds6(&self, address: Ipv6Addr) -> bool {
        self.zone.v6.is_some_and(|v6| v6.subnet.contains(address))
    }

    /// The IPv6 addresses of those who are known by these.
    fn in_ipv6(&self, known: &[Ipv4Addr]) -> Vec<Ipv6Addr> {
        let members = known.iter().filter_map(|known| self.members.get(known));
        members.filter_map(|member| member.v6).collect()
    }
}

impl Maps {
    /// As [`Maps::private`], of IPv6 addresses.
    fn private6(&self, network: &str, client: Ipv4Addr, name: &str) -> Option<Vec<Ipv6Addr>> {
        let member = self.member(network, client)?;
        let link = member.links.iter().find(|link| link.alias == name);
        let linked = link.and_then(|link| {
            let content = self.networks.get(&link.network)?;
            Some(content.in_ipv6(content.names.get(&link.target)?))
        });
        if linked.is_some() {
            return linked;
        }
        let mut hosts = member.hosts.iter().filter(|(known, _)| known == name);
        let first = hosts.next()?;
        let six = std::iter::once(first)
            .chain(hosts)
            .filter_map(|host| match host.1 {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            });
        Some(six.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Member, Zone};
    use super::*;
    use crate::types::Subnet;

    const NET: &str = "n";

    fn four(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    fn six(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
    }

    fn zones(subnet: Ipv4Addr) -> Zones {
        let zones = Zones::default();
        let zone = Zone {
            name: "net".to_owned(),
            gateway: Subnet::new(subnet, 24).expect("a subnet").gateway(),
            subnet: Subnet::new(subnet, 24).expect("a subnet"),
            v6: Some(Zone6 {
                gateway: six(1),
                subnet: Subnet6::new(six(0), 64).expect("a subnet"),
            }),
            internal: true,
        };
        zones.set(NET, zone);
        zones
    }

    fn join(zones: &Zones, known: Ipv4Addr, v6: Option<Ipv6Addr>, names: &[&str]) {
        let member = Member {
            container: known.to_string(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            v6,
            ..Member::default()
        };
        zones.join(NET, known, member);
    }

    #[test]
    fn names_have_addresses_of_both_kinds() {
        let zones = zones(four(0));
        join(&zones, four(2), Some(six(2)), &["web", "www"]);
        join(&zones, four(3), None, &["old", "www"]);
        let of = |name| zones.address6_of(NET, four(2), name);
        assert_eq!(of("web"), Known::Addresses6(vec![six(2)]));
        assert_eq!(of("www.net"), Known::Addresses6(vec![six(2)]));
        assert_eq!(of("old"), Known::Addresses6(Vec::new()));
        assert_eq!(of("host.docker.internal"), Known::Addresses6(vec![six(1)]));
        assert_eq!(of("elsewhere"), Known::Missing);
        let name = |address| zones.name6_of(NET, four(3), address);
        assert_eq!(name(six(2)), Known::Name("web.net".to_owned()));
        assert_eq!(name(six(9)), Known::Missing);
    }

    #[test]
    fn container_that_asks_by_ipv6_is_known_until_it_leaves() {
        let zones = zones(four(0));
        join(&zones, four(2), Some(six(2)), &["web"]);
        assert_eq!(zones.known_by(NET, six(2)), Some(four(2)));
        assert_eq!(zones.known_by(NET, six(3)), Some(four(0)));
        let stranger = "fd99::1".parse().expect("an address");
        assert_eq!(zones.known_by(NET, stranger), None);
        zones.leave(NET, four(2));
        assert_eq!(zones.known_by(NET, six(2)), Some(four(0)));
    }

    #[test]
    fn member_of_a_network_without_ipv4_has_no_such_address() {
        let number = |last| Ipv4Addr::new(0, 0, 0, last);
        let zones = zones(number(0));
        join(&zones, number(2), Some(six(2)), &["web"]);
        let none = Known::Addresses(Vec::new());
        assert_eq!(zones.address_of(NET, number(2), "web"), none);
        let host = zones.address_of(NET, number(2), "host.hull.internal");
        assert_eq!(host, none);
        let found = zones.address6_of(NET, number(2), "web");
        assert_eq!(found, Known::Addresses6(vec![six(2)]));
    }

    #[test]
    fn hosts_of_a_container_answer_by_their_kind() {
        let zones = zones(four(0));
        let member = Member {
            hosts: vec![
                ("printer".to_owned(), IpAddr::from(six(77))),
                ("scanner".to_owned(), IpAddr::from(four(77))),
            ],
            ..Member::default()
        };
        zones.join(NET, four(2), member);
        let of = |name| zones.address6_of(NET, four(2), name);
        assert_eq!(of("printer"), Known::Addresses6(vec![six(77)]));
        assert_eq!(of("scanner"), Known::Addresses6(Vec::new()));
    }
}
