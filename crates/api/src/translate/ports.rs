//! Ports as the API writes them: `80/tcp`, ranges, bindings.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hull_api_types::Empty;
use hull_api_types::host_config::{PortBinding, PortMap};
use hull_model::spec::{Port, Protocol, PublishSpec, PublishedPort};
use hull_model::{Error, Result};

/// Ports of one request, ranges counted out.
const MAX_PORTS: usize = 4096;

/// Reads `80`, `80/tcp` or `3000-3005/udp`.
fn range(text: &str) -> Result<Vec<Port>> {
    let wrong = |why: &str| Error::invalid(format!("invalid port {text:?}: {why}"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong("only tcp and udp are supported")),
    };
    let (first, last) = span(numbers).ok_or_else(|| wrong("want a number or a range"))?;
    if first == 0 {
        return Err(wrong("port 0 does not exist"));
    }
    Ok((first..=last)
        .map(|number| Port { number, protocol })
        .collect())
}

/// Reads `80` or `80-90`.
fn span(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn bounded<T>(list: Vec<T>) -> Result<Vec<T>> {
    if list.len() > MAX_PORTS {
        return Err(Error::invalid(format!(
            "more than {MAX_PORTS} ports in one request"
        )));
    }
    Ok(list)
}

/// Reads the set of exposed ports.
///
/// # Errors
/// If one is malformed or there are too many.
pub(crate) fn exposed(set: &BTreeMap<String, Empty>) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for text in set.keys() {
        ports.extend(range(text)?);
        ports = bounded(ports)?;
    }
    Ok(ports)
}

/// Reads the bindings.
///
/// # Errors
/// If a port or address is malformed or there are too many.
pub(crate) fn published(map: &PortMap) -> Result<Vec<PublishSpec>> {
    let mut list = Vec::new();
    for (text, bindings) in map {
        for container in range(text)? {
            for binding in bindings.iter().flatten() {
                list.push(publish(container, binding)?);
            }
        }
        list = bounded(list)?;
    }
    Ok(list)
}

fn publish(container: Port, binding: &PortBinding) -> Result<PublishSpec> {
    let host_ip = match binding.host_ip.as_str() {
        "" => Ipv4Addr::UNSPECIFIED,
        text => text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid IP address: {text}: want an IPv4 address (IPv6 comes with a later version)"
            ))
        })?,
    };
    let (host_port, host_port_end) = match binding.host_port.as_str() {
        "" => (0, 0),
        text => span(text)
            .ok_or_else(|| Error::invalid(format!("invalid port specification: {text:?}")))?,
    };
    Ok(PublishSpec {
        container,
        host_ip,
        host_port,
        host_port_end,
    })
}

/// Writes `80/tcp`.
pub(crate) fn key(port: Port) -> String {
    format!("{}/{}", port.number, port.protocol.as_str())
}

/// Writes the bindings asked for.
pub(crate) fn wished(list: &[PublishSpec]) -> PortMap {
    let mut map = PortMap::new();
    for publish in list {
        let host_port = match (publish.host_port, publish.host_port_end) {
            (0, _) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = if publish.host_ip.is_unspecified() {
            String::new()
        } else {
            publish.host_ip.to_string()
        };
        let bindings = map.entry(key(publish.container)).or_default();
        bindings
            .get_or_insert_default()
            .push(PortBinding { host_ip, host_port });
    }
    map
}

/// Writes the ports as they are: exposed ones that are not published are `null`.
pub(crate) fn actual<'a>(
    exposed: &[Port],
    published: impl IntoIterator<Item = &'a PublishedPort>,
) -> PortMap {
    let mut map: PortMap = exposed.iter().map(|port| (key(*port), None)).collect();
    for port in published {
        let bindings = map.entry(key(port.container)).or_default();
        bindings.get_or_insert_default().push(PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: port.host_port.to_string(),
        });
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

    #[test]
    fn bindings_round_trip() {
        for (ip, port) in [("", ""), ("127.0.0.1", "8080"), ("", "8000-8010")] {
            let wire = map("80/tcp", ip, port);
            assert_eq!(wished(&published(&wire).unwrap()), wire);
        }
    }

    #[test]
    fn range_of_exposed_ports_is_counted_out() {
        let set = BTreeMap::from([("3000-3002/udp".to_owned(), Empty {})]);
        let ports = exposed(&set).unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!(key(ports[2]), "3002/udp");
    }

    #[test]
    fn malformed_ports_are_refused() {
        for (key, ip, port) in [
            ("x/tcp", "", "1"),
            ("80/sctp", "", "1"),
            ("0/tcp", "", "1"),
            ("90-80/tcp", "", "1"),
            ("80/tcp", "localhost", "1"),
            ("80/tcp", "::1", "1"),
            ("80/tcp", "", "70000"),
            ("80/tcp", "", "-1"),
        ] {
            assert!(published(&map(key, ip, port)).is_err(), "{key} {ip} {port}");
        }
        assert!(published(&map("1-60000/tcp", "", "")).is_err());
    }

    #[test]
    fn exposed_port_without_binding_is_null() {
        let port = Port {
            number: 80,
            protocol: Protocol::Tcp,
        };
        assert_eq!(
            actual(&[port], &[]),
            PortMap::from([("80/tcp".to_owned(), None)])
        );
    }
}
