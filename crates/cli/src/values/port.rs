//! Published and exposed ports: `-p [[IP:]HOST:]CONTAINER[/PROTO]` with ranges, `--expose`.

use std::net::IpAddr;

use hull_api_types::host_config::{PortBinding, PortMap};

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u16,
    end: u16,
}

impl Range {
    fn length(self) -> u32 {
        u32::from(self.end) - u32::from(self.start)
    }
}

fn range(text: &str) -> Option<Range> {
    let port = |text: &str| {
        if text.chars().all(|c| c.is_ascii_digit()) {
            text.parse::<u16>().ok()
        } else {
            None
        }
    };
    let (start, end) = match text.split_once('-') {
        Some((start, end)) => (port(start)?, port(end)?),
        None => (port(text)?, port(text)?),
    };
    (start <= end).then_some(Range { start, end })
}

fn protocol(text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        "tcp" | "udp" | "sctp" => Ok(lower),
        _ => Err(format!("invalid proto: {text}")),
    }
}

/// Adds what one `-p` publishes.
pub(crate) fn publish(spec: &str, map: &mut PortMap) -> Result<(), String> {
    let (address, host, container) = split(spec)?;
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let (container, proto) = match container.split_once('/') {
        Some((container, proto)) => (container, protocol(proto)?),
        None => (container, "tcp".to_owned()),
    };
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let inside = range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
    let outside = if host.is_empty() {
        None
    } else {
        Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?)
    };
    if let Some(outside) = outside
        && outside.length() != inside.length()
        // Many ports of the host for one of the container: the engine chooses one of them.
        && inside.length() != 0
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    for offset in 0..=inside.length() {
        let offset = u16::try_from(offset).unwrap_or(0);
        let host_port = match outside {
            None => String::new(),
            Some(outside) if inside.length() == 0 && outside.length() > 0 => {
                format!("{}-{}", outside.start, outside.end)
            }
            Some(outside) => (outside.start + offset).to_string(),
        };
        let binding = PortBinding {
            host_ip: address.to_owned(),
            host_port,
        };
        map.entry(format!("{}/{proto}", inside.start + offset))
            .or_default()
            .get_or_insert_with(Vec::new)
            .push(binding);
    }
    Ok(())
}

/// Address, port of the host, port of the container.
fn split(spec: &str) -> Result<(&str, &str, &str), String> {
    let (rest, container) = match spec.rsplit_once(':') {
        None => return Ok(("", "", spec)),
        Some(parts) => parts,
    };
    let (address, host) = match rest.rsplit_once(':') {
        None => return Ok(("", rest, container)),
        Some(parts) => parts,
    };
    let address = match address.strip_prefix('[') {
        Some(inner) => inner
            .strip_suffix(']')
            .ok_or_else(|| format!("invalid IP address: {address}"))?,
        None => address,
    };
    Ok((address, host, container))
}

/// The ports that one `--expose` names, as `80/tcp`.
pub(crate) fn expose(spec: &str) -> Result<Vec<String>, String> {
    if spec.contains(':') {
        return Err(format!("invalid port format for --expose: {spec}"));
    }
    let (ports, proto) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let proto = protocol(proto)?;
    let range = range(ports).ok_or_else(|| format!(
            "invalid range format for --expose: {spec}, error: strconv.ParseUint: parsing {ports:?}: invalid syntax"
        ))?;
    Ok((range.start..=range.end)
        .map(|port| format!("{port}/{proto}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(spec: &str) -> Result<Vec<(String, String, String)>, String> {
        let mut map = PortMap::new();
        publish(spec, &mut map)?;
        Ok(map
            .into_iter()
            .flat_map(|(port, bindings)| {
                bindings
                    .unwrap_or_default()
                    .into_iter()
                    .map(move |b| (port.clone(), b.host_ip, b.host_port))
            })
            .collect())
    }

    fn row(a: &str, b: &str, c: &str) -> (String, String, String) {
        (a.to_owned(), b.to_owned(), c.to_owned())
    }

    #[test]
    fn publish_all_forms() {
        assert_eq!(one("80").unwrap(), [row("80/tcp", "", "")]);
        assert_eq!(one("8080:80").unwrap(), [row("80/tcp", "", "8080")]);
        assert_eq!(
            one("127.0.0.1:8080:80/udp").unwrap(),
            [row("80/udp", "127.0.0.1", "8080")]
        );
        assert_eq!(
            one("127.0.0.1::80").unwrap(),
            [row("80/tcp", "127.0.0.1", "")]
        );
        assert_eq!(
            one("[::1]:8080:80").unwrap(),
            [row("80/tcp", "::1", "8080")]
        );
        assert_eq!(
            one("8000-8001:80-81").unwrap(),
            [row("80/tcp", "", "8000"), row("81/tcp", "", "8001")]
        );
        assert_eq!(
            one("8000-8005:80").unwrap(),
            [row("80/tcp", "", "8000-8005")]
        );
        assert_eq!(one("80/TCP").unwrap(), [row("80/tcp", "", "")]);
    }

    #[test]
    fn publish_errors_are_dockers() {
        assert_eq!(one("99999:1").unwrap_err(), "invalid hostPort: 99999");
        assert_eq!(one("a:b").unwrap_err(), "invalid containerPort: b");
        assert_eq!(one("80:").unwrap_err(), "no port specified: 80:<empty>");
        assert_eq!(one("1.2.3:80:80").unwrap_err(), "invalid IP address: 1.2.3");
        assert_eq!(one("80/foo").unwrap_err(), "invalid proto: foo");
        assert_eq!(
            one("1-3:1-2").unwrap_err(),
            "invalid ranges specified for container and host Ports: 1-2 and 1-3"
        );
    }

    #[test]
    fn publish_widest_range_does_not_overflow() {
        assert_eq!(one("0-65535:0-65535").unwrap().len(), 65536);
        assert!(one("9-1:80").is_err());
    }

    #[test]
    fn expose_ranges() {
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(
            expose("80:80").unwrap_err(),
            "invalid port format for --expose: 80:80"
        );
        assert!(expose("x").is_err());
    }
}
