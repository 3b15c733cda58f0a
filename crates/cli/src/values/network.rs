//! `--network NAME` and `--network name=NAME,alias=…,ip=…`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_api_types::network::{EndpointIpamConfig, EndpointSettings};

/// One network to join.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NetworkSpec {
    /// Its name or mode.
    pub(crate) name: String,
    /// How to join it.
    pub(crate) endpoint: EndpointSettings,
}

/// Reads one `--network`.
pub(crate) fn parse(spec: &str) -> Result<NetworkSpec, String> {
    let mut out = NetworkSpec::default();
    if !spec.contains('=') {
        out.name = spec.to_owned();
        return Ok(out);
    }
    for field in super::mount::fields(spec)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field {field}"))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => out.name = value.to_owned(),
            "alias" => out
                .endpoint
                .aliases
                .get_or_insert_with(Vec::new)
                .push(value.to_owned()),
            "ip" => {
                value
                    .parse::<Ipv4Addr>()
                    .map_err(|_| format!("invalid IPv4 address: {value}"))?;
                out.ipam().ipv4_address = value.to_owned();
            }
            "ip6" => {
                value
                    .parse::<Ipv6Addr>()
                    .map_err(|_| format!("invalid IPv6 address: {value}"))?;
                out.ipam().ipv6_address = value.to_owned();
            }
            "link-local-ip" => {
                value
                    .parse::<IpAddr>()
                    .map_err(|_| format!("invalid link-local address: {value}"))?;
                out.ipam().link_local_ips.push(value.to_owned());
            }
            "mac-address" => out.endpoint.mac_address = value.to_owned(),
            "driver-opt" => {
                let (name, text) = value.split_once('=').ok_or_else(|| {
                    format!("invalid key value pair format in driver options: {value}")
                })?;
                out.endpoint
                    .driver_opts
                    .get_or_insert_default()
                    .insert(name.to_owned(), text.to_owned());
            }
            "gw-priority" => {
                out.endpoint.gw_priority = super::scalar::go_int(value)
                    .map_err(|_| format!("invalid gw-priority: {value}"))?
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if out.name.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(out)
}

impl NetworkSpec {
    /// The addresses asked for.
    pub(crate) fn ipam(&mut self) -> &mut EndpointIpamConfig {
        self.endpoint.ipam_config.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_forms() {
        assert_eq!(parse("container:abc").unwrap().name, "container:abc");
        let got = parse("name=net,alias=a,alias=b,ip=10.0.0.5").unwrap();
        assert_eq!(got.name, "net");
        assert_eq!(got.endpoint.aliases.unwrap(), ["a", "b"]);
        assert_eq!(got.endpoint.ipam_config.unwrap().ipv4_address, "10.0.0.5");
        assert!(parse("alias=a").is_err());
        assert!(parse("name=x,ip=::1").is_err());
        assert!(parse("name=x,foo=1").is_err());
    }
}
