//! Ports as the API writes them: `80/tcp`, ranges, bindings.
//!
//! Docker's API counts ranges out, port by port. Here they are joined again as they come in, so that
//! a range is one wish, one record and one rule, and counted out only where somebody asks.
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hull_api_types::Empty;
use hull_api_types::host_config::{PortBinding, PortMap};
use hull_engine::PortChange;
use hull_model::spec::{
    ContainerSpec, Port, Protocol, PublishSpec, PublishSpec6, PublishedPort, PublishedPort6,
};
use hull_model::{Error, Result};

use super::six::{self, HostIp};

/// Ports of one request, where ranges count as one.
const MAX_PORTS: usize = 4096;
/// Random ports are chosen together, in a row, if there are more than so many of them.
const MANY_RANDOM: u16 = 64;

/// Ports of one protocol in a row.
#[derive(Clone, Copy)]
struct Range {
    first: Port,
    more: u16,
}

impl Range {
    fn ports(self) -> impl Iterator<Item = Port> {
        (0..=self.more).map(move |offset| Port {
            number: self.first.number.saturating_add(offset),
            ..self.first
        })
    }
}

/// Reads `80`, `80/tcp` or `3000-3005/udp`.
fn range(text: &str) -> Result<Range> {
    let wrong = |why: &str| Error::invalid(format!("invalid port {text:?}: {why}"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "" => Protocol::Tcp,
        name => {
            Protocol::from_name(name).ok_or_else(|| wrong("the protocols are tcp, udp and sctp"))?
        }
    };
    let (first, last) = span(numbers).ok_or_else(|| wrong("want a number or a range"))?;
    if first == 0 {
        return Err(wrong("port 0 does not exist"));
    }
    Ok(Range {
        first: Port {
            number: first,
            protocol,
        },
        more: last - first,
    })
}

/// Reads `80` or `80-90`.
fn span(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn bounded<T>(list: &[T]) -> Result<()> {
    if list.len() > MAX_PORTS {
        return Err(Error::invalid(format!(
            "more than {MAX_PORTS} ports in one request"
        )));
    }
    Ok(())
}

/// Reads the set of exposed ports, less those of ranges that are published.
///
/// # Errors
/// If one is malformed or there are too many.
pub(crate) fn exposed(
    set: &BTreeMap<String, Empty>,
    published: &[PublishSpec],
) -> Result<Vec<Port>> {
    let ranges: Vec<_> = published.iter().filter(|p| p.more > 0).collect();
    let mut ports = Vec::new();
    for text in set.keys() {
        let wanted = range(text)?.ports();
        ports.extend(wanted.filter(|port| !ranges.iter().any(|range| range.covers(*port))));
        bounded(&ports)?;
    }
    Ok(ports)
}

/// Reads the bindings of one version of IP; those without an address are of both.
///
/// # Errors
/// If a port or address is malformed or there are too many.
pub(crate) fn published<A: HostIp>(map: &PortMap) -> Result<Vec<PublishSpec<A>>> {
    let mut wanted = Vec::with_capacity(map.len());
    for (text, bindings) in map {
        wanted.push((range(text)?, bindings.as_deref().unwrap_or_default()));
    }
    wanted.sort_by_key(|(range, _)| range.first);
    let mut list = Joined::new();
    for (range, bindings) in wanted {
        for binding in bindings {
            let Some(first) = publish(range.first, binding)? else {
                continue;
            };
            if first.host_port_end - first.host_port == range.more && first.host_port != 0 {
                list.add(PublishSpec {
                    host_port_end: first.host_port,
                    more: range.more,
                    ..first
                });
            } else {
                for container in range.ports() {
                    list.add(PublishSpec { container, ..first });
                    bounded(&list.wishes)?;
                }
            }
            bounded(&list.wishes)?;
        }
    }
    let (many, few): (Vec<_>, Vec<_>) = list
        .wishes
        .into_iter()
        .partition(|wish| wish.host_port != 0 || wish.more > MANY_RANDOM);
    let few = few.into_iter().flat_map(|wish| {
        let ports = wish.container_ports();
        ports.map(move |container| PublishSpec {
            container,
            more: 0,
            ..wish
        })
    });
    Ok(many.into_iter().chain(few).collect())
}

/// Reads a change of what is published.
///
/// # Errors
/// As [`published`].
pub(crate) fn change(add: &PortMap, remove: &PortMap) -> Result<PortChange> {
    Ok(PortChange {
        add: published(add)?,
        remove: published(remove)?,
        add6: published(add)?,
        remove6: published(remove)?,
    })
}

/// Wishes, those that continue one another made one.
struct Joined<A> {
    wishes: Vec<PublishSpec<A>>,
    /// The last wish with this protocol, address and distance between both ports; random ones have
    /// no distance.
    last: HashMap<(Protocol, A, Option<i32>), usize>,
}

impl<A: HostIp> Joined<A> {
    fn new() -> Self {
        Self {
            wishes: Vec::new(),
            last: HashMap::new(),
        }
    }

    fn add(&mut self, wish: PublishSpec<A>) {
        let distance = match (wish.host_port, wish.host_port_end) {
            (0, 0) => None,
            (first, last) if first == last => {
                Some(i32::from(first) - i32::from(wish.container.number))
            }
            _ => return self.wishes.push(wish),
        };
        let key = (wish.container.protocol, wish.host_ip, distance);
        if let Some(former) = self.last.get(&key).and_then(|i| self.wishes.get_mut(*i)) {
            let next = u32::from(former.container.number) + u32::from(former.more) + 1;
            let more = u32::from(former.more) + u32::from(wish.more) + 1;
            if let (true, Ok(more)) = (next == u32::from(wish.container.number), more.try_into()) {
                former.more = more;
                return;
            }
        }
        self.last.insert(key, self.wishes.len());
        self.wishes.push(wish);
    }
}

fn publish<A: HostIp>(container: Port, binding: &PortBinding) -> Result<Option<PublishSpec<A>>> {
    let host_ip = match binding.host_ip.as_str() {
        "" => A::ANY,
        text => {
            let address = text
                .parse()
                .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?;
            match A::of(address) {
                Some(address) => address,
                None => return Ok(None),
            }
        }
    };
    let (host_port, host_port_end) = match binding.host_port.as_str() {
        "" => (0, 0),
        text => span(text)
            .ok_or_else(|| Error::invalid(format!("invalid port specification: {text:?}")))?,
    };
    Ok(Some(PublishSpec {
        container,
        host_ip,
        host_port,
        host_port_end,
        more: 0,
    }))
}

/// Writes `80/tcp`.
pub(crate) fn key(port: Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// Writes the exposed ports, published ranges counted out.
pub(crate) fn all_exposed(spec: &ContainerSpec) -> BTreeMap<String, Empty> {
    spec.exposed().map(|port| (key(port), Empty {})).collect()
}

/// Writes the bindings asked for; one for every address of both versions of IP bears none.
pub(crate) fn wished(list: &[PublishSpec], list6: &[PublishSpec6]) -> PortMap {
    let mut map = PortMap::new();
    for publish in list {
        let both = list6.iter().any(|six| six::is_every(publish, six));
        let host_ip = (!both).then(|| publish.host_ip.to_string());
        write_wish(&mut map, publish, &host_ip.unwrap_or_default());
    }
    for publish in list6 {
        if !list.iter().any(|four| six::is_every(four, publish)) {
            write_wish(&mut map, publish, &publish.host_ip.to_string());
        }
    }
    map
}

fn write_wish<A: Copy>(map: &mut PortMap, publish: &PublishSpec<A>, host_ip: &str) {
    for (offset, container) in (0..).zip(publish.container_ports()) {
        let host_port = match (publish.host_port, publish.host_port_end) {
            (0, _) => String::new(),
            (first, last) if first >= last => first.saturating_add(offset).to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let bindings = map.entry(key(container)).or_default();
        bindings.get_or_insert_default().push(PortBinding {
            host_ip: host_ip.to_owned(),
            host_port,
        });
    }
}

/// Writes the ports as they are: exposed ones that are not published are `null`.
pub(crate) fn actual<'a>(
    exposed: impl IntoIterator<Item = Port>,
    published: impl IntoIterator<Item = &'a PublishedPort>,
    published6: impl IntoIterator<Item = &'a PublishedPort6>,
) -> PortMap {
    let exposed = exposed.into_iter();
    let mut map: PortMap = exposed.map(|port| (key(port), None)).collect();
    let mut write = |container, host_ip: IpAddr, host_port: u16| {
        let bindings = map.entry(key(container)).or_default();
        bindings.get_or_insert_default().push(PortBinding {
            host_ip: host_ip.to_string(),
            host_port: host_port.to_string(),
        });
    };
    for port in published.into_iter().flat_map(|port| port.each()) {
        write(port.container, port.host_ip.into(), port.host_port);
    }
    for port in published6.into_iter().flat_map(|port| port.each()) {
        write(port.container, port.host_ip.into(), port.host_port);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, ip: &str, port: &str) -> PortMap {
        let binding = PortBinding {
            host_ip: ip.into(),
            host_port: port.into(),
        };
        PortMap::from([(key.to_owned(), Some(vec![binding]))])
    }

    fn four(map: &PortMap) -> Result<Vec<PublishSpec>> {
        published(map)
    }

    #[test]
    fn bindings_round_trip() {
        for (ip, port) in [
            ("", ""),
            ("127.0.0.1", "8080"),
            ("", "8000-8010"),
            ("0.0.0.0", "8080"),
            ("::", "8080"),
            ("::1", ""),
        ] {
            let wire = map("80/tcp", ip, port);
            let (four, six) = (published(&wire).unwrap(), published(&wire).unwrap());
            assert_eq!(wished(&four, &six), wire);
        }
    }

    #[test]
    fn range_of_exposed_ports_is_counted_out() {
        let set = BTreeMap::from([("3000-3002/udp".to_owned(), Empty {})]);
        let ports = exposed(&set, &[]).unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!(key(ports[2]), "3002/udp");
    }

    #[test]
    fn malformed_ports_are_refused() {
        for (key, ip, port) in [
            ("x/tcp", "", "1"),
            ("80/icmp", "", "1"),
            ("0/tcp", "", "1"),
            ("90-80/tcp", "", "1"),
            ("80/tcp", "localhost", "1"),
            ("80/tcp", "", "70000"),
            ("80/tcp", "", "-1"),
        ] {
            assert!(four(&map(key, ip, port)).is_err(), "{key} {ip} {port}");
        }
        assert!(four(&map("1-60000/tcp", "", "1-5")).is_err());
    }

    #[test]
    fn ports_in_a_row_are_one_wish_and_counted_out_again() {
        let mut wire = PortMap::new();
        for number in 20_000..=24_999_u16 {
            wire.extend(map(&format!("{number}/udp"), "", &number.to_string()));
            let shifted = (number - 15_000).to_string();
            wire.extend(map(&format!("{number}/tcp"), "127.0.0.1", &shifted));
        }
        let wishes = four(&wire).unwrap();
        let spans: Vec<_> = wishes.iter().map(|w| (w.host_port, w.more)).collect();
        assert_eq!(spans, [(5_000, 4_999), (20_000, 4_999)]);
        let every = published(&wire).unwrap();
        assert_eq!(wished(&wishes, &every), wire);
        let set = wire.keys().map(|key| (key.clone(), Empty {})).collect();
        assert_eq!(exposed(&set, &wishes).unwrap(), []);

        let same = map("20000-24999/udp", "", "20000-24999");
        assert_eq!(four(&same).unwrap(), wishes[1..]);
        let any = four(&map("80/tcp", "", "8000-9000")).unwrap();
        assert_eq!((any[0].host_port_end, any[0].more), (9_000, 0));
        assert_eq!(four(&map("1-60/tcp", "", "")).unwrap().len(), 60);
        assert_eq!(four(&map("1-90/tcp", "", "")).unwrap().len(), 1);
    }

    #[test]
    fn exposed_port_without_binding_is_null() {
        let port = Port {
            number: 80,
            protocol: Protocol::Sctp,
        };
        assert_eq!(
            actual([port], &[], &[]),
            PortMap::from([("80/sctp".to_owned(), None)])
        );
    }
}
