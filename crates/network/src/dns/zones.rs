//! Who is called what: the names of each network.

mod six;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

pub use six::Zone6;

use crate::types::Subnet;

/// Names by which containers reach the host, as other engines have them.
pub const HOST_NAMES: [&str; 4] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
    "host.hull.internal",
];

/// A container's end on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub container: String,
    /// What it is called: its name first, then its aliases and its short id.
    pub names: Vec<String>,
    /// Name servers of its own; none means the host's.
    pub servers: Vec<SocketAddr>,
    /// It is on a network that leads out and has no names, as the default one.
    pub leads_out: bool,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What it alone calls others.
    pub links: Vec<MemberLink>,
    /// Names that it alone knows, with their addresses.
    pub hosts: Vec<(String, IpAddr)>,
}

/// Another container under a name that one container alone uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberLink {
    /// The name.
    pub alias: String,
    /// What the network calls it.
    pub target: String,
    /// The network's id.
    pub network: String,
}

/// A network as its names are concerned.
#[derive(Debug, Clone)]
pub struct Zone {
    /// Name of the network: containers are also called `NAME.NETWORK`.
    pub name: String,
    /// The bridge's address, where the host is.
    pub gateway: Ipv4Addr,
    /// Its subnet.
    pub subnet: Subnet,
    /// Its IPv6 half.
    pub v6: Option<Zone6>,
    /// It leads nowhere: nothing is asked of others.
    pub internal: bool,
}

#[derive(Debug)]
struct Content {
    zone: Zone,
    members: HashMap<Ipv4Addr, Member>,
    /// What those are known by who have an IPv6 address.
    by_ipv6: HashMap<Ipv6Addr, Ipv4Addr>,
    names: HashMap<String, Vec<Ipv4Addr>>,
}

#[derive(Debug, Default)]
struct Maps {
    networks: HashMap<String, Content>,
    /// The networks of each container, in the order in which it joined them.
    containers: HashMap<String, Vec<String>>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It has these addresses.
    Addresses(Vec<Ipv4Addr>),
    /// It has these addresses of IPv6.
    Addresses6(Vec<Ipv6Addr>),
    /// The address asked about is called so.
    Name(String),
    /// It is ours to say that there is none.
    Missing,
    /// Others may know: the container's own servers, or with none the host's.
    Elsewhere(Vec<SocketAddr>),
}

/// All networks' names.
#[derive(Debug, Default)]
pub struct Zones {
    maps: RwLock<Maps>,
    /// Turned with each answer, so that containers of one name share the load.
    turn: AtomicUsize,
}

impl Zones {
    /// Adds a network, or changes what is said of it.
    pub fn set(&self, network: &str, zone: Zone) {
        let mut maps = self.write();
        match maps.networks.get_mut(network) {
            Some(content) => content.zone = zone,
            None => {
                let content = Content {
                    zone,
                    members: HashMap::new(),
                    by_ipv6: HashMap::new(),
                    names: HashMap::new(),
                };
                maps.networks.insert(network.to_owned(), content);
            }
        }
    }

    /// Forgets a network with all its names.
    pub fn remove(&self, network: &str) {
        let mut maps = self.write();
        maps.networks.remove(network);
        for networks in maps.containers.values_mut() {
            networks.retain(|other| other != network);
        }
        maps.containers.retain(|_, networks| !networks.is_empty());
    }

    /// Adds a container's end, in place of what had its address.
    pub fn join(&self, network: &str, address: Ipv4Addr, mut member: Member) {
        self.leave(network, address);
        let mut maps = self.write();
        let Some(content) = maps.networks.get_mut(network) else {
            return;
        };
        for name in &mut member.names {
            name.make_ascii_lowercase();
        }
        for link in &mut member.links {
            link.alias.make_ascii_lowercase();
            link.target.make_ascii_lowercase();
        }
        for (name, _) in &mut member.hosts {
            name.make_ascii_lowercase();
        }
        for (index, name) in member.names.iter().enumerate() {
            let said_before = member.names.iter().take(index).any(|other| other == name);
            if !said_before {
                content.names.entry(name.clone()).or_default().push(address);
            }
        }
        let container = member.container.clone();
        content.by_ipv6.extend(member.v6.map(|v6| (v6, address)));
        content.members.insert(address, member);
        let networks = maps.containers.entry(container).or_default();
        if !networks.iter().any(|other| other == network) {
            networks.push(network.to_owned());
        }
    }

    /// Takes the end with this address out.
    pub fn leave(&self, network: &str, address: Ipv4Addr) {
        let mut maps = self.write();
        let Some(content) = maps.networks.get_mut(network) else {
            return;
        };
        let Some(member) = content.members.remove(&address) else {
            return;
        };
        if let Some(v6) = member.v6 {
            content.by_ipv6.remove(&v6);
        }
        for name in &member.names {
            if let Some(addresses) = content.names.get_mut(name) {
                addresses.retain(|other| *other != address);
                if addresses.is_empty() {
                    content.names.remove(name);
                }
            }
        }
        if let Some(networks) = maps.containers.get_mut(&member.container) {
            networks.retain(|other| other != network);
            if networks.is_empty() {
                maps.containers.remove(&member.container);
            }
        }
    }

    /// Whether the network's server answers whoever has this address.
    pub(super) fn serves(&self, network: &str, client: Ipv4Addr) -> bool {
        let maps = self.read();
        let content = maps.networks.get(network);
        content.is_some_and(|content| content.zone.subnet.contains(client))
    }

    /// What the container at `client` is told of a name (in lower case, without its last dot).
    pub(super) fn address_of(&self, network: &str, client: Ipv4Addr, name: &str) -> Known {
        let maps = self.read();
        let Some(asked) = maps.networks.get(network) else {
            return Known::Missing;
        };
        if let Some(addresses) = maps.private(network, client, name) {
            let four = addresses.into_iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            });
            return Known::Addresses(four.collect());
        }
        for content in maps.reach(network, client) {
            if let Some(found) = content.named(name) {
                let mut addresses = found.clone();
                addresses.retain(|address| !six::is_number(*address));
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let by = turn.checked_rem(addresses.len()).unwrap_or(0);
                addresses.rotate_left(by);
                return Known::Addresses(addresses);
            }
        }
        if HOST_NAMES.contains(&name) {
            let mut addresses = vec![asked.zone.gateway];
            addresses.retain(|address| !six::is_number(*address));
            return Known::Addresses(addresses);
        }
        maps.elsewhere(network, client)
    }

    /// What the container at `client` is told of an address.
    pub(super) fn name_of(&self, network: &str, client: Ipv4Addr, address: Ipv4Addr) -> Known {
        let maps = self.read();
        for content in maps.reach(network, client) {
            if !content.zone.subnet.contains(address) {
                continue;
            }
            let member = content.members.get(&address);
            return match member.and_then(|member| member.names.first()) {
                Some(name) => Known::Name(format!("{name}.{}", content.zone.name)),
                None => Known::Missing,
            };
        }
        maps.elsewhere(network, client)
    }

    /// What the container at `client` is told of everything else, be the name one of ours or not.
    pub(super) fn other(&self, network: &str, client: Ipv4Addr, name: &str) -> Known {
        match self.address_of(network, client, name) {
            Known::Addresses(_) => Known::Addresses(Vec::new()),
            known => known,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        // Each change leaves the maps consistent; a panic within none of them is possible.
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// What the network calls so, with its own name behind or not.
    fn named(&self, name: &str) -> Option<&Vec<Ipv4Addr>> {
        let within = || {
            let short = name.strip_suffix(self.zone.name.as_str());
            let short = short.and_then(|rest| rest.strip_suffix('.'))?;
            self.names.get(short)
        };
        self.names.get(name).or_else(within)
    }
}

impl Maps {
    fn member(&self, network: &str, client: Ipv4Addr) -> Option<&Member> {
        self.networks.get(network)?.members.get(&client)
    }

    /// What a name stands for that the container at `client` alone uses. A link to a container that
    /// is not there yet stands for nothing.
    fn private(&self, network: &str, client: Ipv4Addr, name: &str) -> Option<Vec<IpAddr>> {
        let member = self.member(network, client)?;
        let link = member.links.iter().find(|link| link.alias == name);
        let linked = link.and_then(|link| {
            let content = self.networks.get(&link.network)?;
            content.names.get(&link.target)
        });
        if let Some(addresses) = linked {
            return Some(addresses.iter().map(|a| IpAddr::from(*a)).collect());
        }
        let hosts = member.hosts.iter().filter(|(known, _)| known == name);
        let addresses: Vec<IpAddr> = hosts.map(|(_, address)| *address).collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// The networks whose names the container at `client` may know: the one it asks on first.
    fn reach<'a>(
        &'a self,
        network: &'a str,
        client: Ipv4Addr,
    ) -> impl Iterator<Item = &'a Content> {
        let member = self.member(network, client);
        let others = member.and_then(|member| self.containers.get(&member.container));
        let others = others
            .into_iter()
            .flatten()
            .filter(move |other| *other != network);
        std::iter::once(network)
            .chain(others.map(String::as_str))
            .filter_map(|network| self.networks.get(network))
    }

    fn elsewhere(&self, network: &str, client: Ipv4Addr) -> Known {
        let member = self.member(network, client);
        let leads_out = member.is_some_and(|member| member.leads_out);
        if !leads_out
            && self
                .reach(network, client)
                .all(|content| content.zone.internal)
        {
            return Known::Missing;
        }
        Known::Elsewhere(
            member
                .map(|member| member.servers.clone())
                .unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: &str = "f";
    const BACK: &str = "b";

    fn address(last: u8, third: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, third, last)
    }

    fn member(container: &str, names: &[&str]) -> Member {
        Member {
            container: container.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Member::default()
        }
    }

    /// `web` and `app` on front, `app` and `db` on back, which is internal.
    fn zones() -> Zones {
        let zones = Zones::default();
        for (network, name, third, internal) in
            [(FRONT, "front", 1, false), (BACK, "back", 2, true)]
        {
            let zone = Zone {
                name: name.to_owned(),
                gateway: address(1, third),
                subnet: Subnet::new(address(0, third), 24).expect("a subnet"),
                v6: None,
                internal,
            };
            zones.set(network, zone);
        }
        zones.join(FRONT, address(2, 1), member("1", &["web", "www"]));
        zones.join(FRONT, address(3, 1), member("2", &["App"]));
        zones.join(BACK, address(3, 2), member("2", &["app"]));
        zones.join(BACK, address(4, 2), member("3", &["db", "data"]));
        zones
    }

    #[test]
    fn names_are_known_on_shared_networks_alone() {
        let zones = zones();
        let of = |network, client, name| zones.address_of(network, client, name);
        let found = |a| Known::Addresses(vec![a]);
        assert_eq!(of(FRONT, address(3, 1), "web"), found(address(2, 1)));
        assert_eq!(of(FRONT, address(3, 1), "www.front"), found(address(2, 1)));
        // app asks on front for what is on back.
        assert_eq!(of(FRONT, address(3, 1), "db"), found(address(4, 2)));
        assert_eq!(of(FRONT, address(2, 1), "db"), Known::Elsewhere(Vec::new()));
        assert_eq!(of(BACK, address(4, 2), "web"), Known::Missing);
        assert_eq!(
            of(BACK, address(4, 2), "host.docker.internal"),
            found(address(1, 2))
        );
    }

    #[test]
    fn links_and_hosts_of_a_container_are_known_to_it_alone() {
        let zones = zones();
        let mut own = member("5", &["linking"]);
        own.links = vec![MemberLink {
            alias: "Store".to_owned(),
            target: "app".to_owned(),
            network: FRONT.to_owned(),
        }];
        own.hosts = vec![("printer".to_owned(), IpAddr::from([192, 0, 2, 5]))];
        zones.join(FRONT, address(5, 1), own);
        let of = |client, name| zones.address_of(FRONT, client, name);
        let app = Known::Addresses(vec![address(3, 1)]);
        assert_eq!(of(address(5, 1), "store"), app);
        let printer = Known::Addresses(vec![Ipv4Addr::new(192, 0, 2, 5)]);
        assert_eq!(of(address(5, 1), "printer"), printer);
        for name in ["store", "printer"] {
            assert_eq!(of(address(2, 1), name), Known::Elsewhere(Vec::new()));
        }
        // Whom it means may come later and go.
        zones.leave(FRONT, address(3, 1));
        assert_eq!(of(address(5, 1), "store"), Known::Elsewhere(Vec::new()));
    }

    #[test]
    fn internal_network_asks_others_for_a_container_that_has_another_way_out() {
        let zones = zones();
        let server = SocketAddr::from(([127, 0, 0, 1], 53));
        let mut both = member("7", &["both"]);
        both.leads_out = true;
        both.servers = vec![server];
        zones.join(BACK, address(7, 2), both);
        let asked = zones.address_of(BACK, address(7, 2), "example.org");
        assert_eq!(asked, Known::Elsewhere(vec![server]));
        let asked = zones.address_of(BACK, address(4, 2), "example.org");
        assert_eq!(asked, Known::Missing);
    }

    #[test]
    fn names_of_several_take_turns_and_vanish_with_the_last() {
        let zones = zones();
        zones.join(FRONT, address(9, 1), member("9", &["web"]));
        let ask = || match zones.address_of(FRONT, address(3, 1), "web") {
            Known::Addresses(list) => list,
            other => panic!("{other:?}"),
        };
        let (first, second) = (ask(), ask());
        assert_eq!(first.len(), 2);
        assert_ne!(first[0], second[0]);
        zones.leave(FRONT, address(9, 1));
        zones.leave(FRONT, address(2, 1));
        let none = zones.address_of(FRONT, address(3, 1), "web");
        assert_eq!(none, Known::Elsewhere(Vec::new()));
    }

    #[test]
    fn addresses_are_called_by_name_and_network() {
        let zones = zones();
        let name = zones.name_of(FRONT, address(3, 1), address(4, 2));
        assert_eq!(name, Known::Name("db.back".to_owned()));
        let none = zones.name_of(FRONT, address(3, 1), address(77, 1));
        assert_eq!(none, Known::Missing);
        let foreign = zones.name_of(FRONT, address(2, 1), address(4, 2));
        assert_eq!(foreign, Known::Elsewhere(Vec::new()));
    }

    #[test]
    fn removed_network_is_out_of_reach() {
        let zones = zones();
        zones.remove(BACK);
        let none = zones.address_of(FRONT, address(3, 1), "db");
        assert_eq!(none, Known::Elsewhere(Vec::new()));
        assert!(!zones.serves(BACK, address(4, 2)));
    }
}
