//! The IPv6 half of networks and of places on them, as the API writes it.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hull_api_types::network::{EndpointSettings, IpamConfig};
use hull_engine::NetworkRecord;
use hull_engine::networks::{NewRange6, is_number};
use hull_model::spec::{PublishSpec, PublishSpec6};
use hull_model::{Error, Result};
use hull_state::Endpoint;

/// A version of IP, as ports of the host are bound to its addresses.
pub(crate) trait HostIp: Copy + Eq + Hash {
    /// Every address.
    const ANY: Self;
    /// The address, if it is of this version.
    fn of(address: IpAddr) -> Option<Self>;
}

impl HostIp for Ipv4Addr {
    const ANY: Self = Self::UNSPECIFIED;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl HostIp for Ipv6Addr {
    const ANY: Self = Self::UNSPECIFIED;

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }
}

/// Whether both are one wish for every address of the host.
pub(crate) fn is_every(four: &PublishSpec, six: &PublishSpec6) -> bool {
    let ports = |first, last, more| (first, last, more);
    four.host_ip.is_unspecified()
        && six.host_ip.is_unspecified()
        && four.container == six.container
        && ports(four.host_port, four.host_port_end, four.more)
            == ports(six.host_port, six.host_port_end, six.more)
}

/// Tells the range of IPv4 from that of IPv6.
///
/// # Errors
/// There are two of a kind.
pub(crate) fn split(ranges: Vec<IpamConfig>) -> Result<(IpamConfig, NewRange6)> {
    let is_six = |range: &IpamConfig| {
        let aux = range.auxiliary_addresses.values();
        [&range.subnet, &range.gateway, &range.ip_range]
            .into_iter()
            .chain(aux)
            .any(|text| text.contains(':'))
    };
    let (six, four): (Vec<_>, Vec<_>) = ranges.into_iter().partition(is_six);
    let one = |mut list: Vec<IpamConfig>, version: &str| match list.len() {
        0 | 1 => Ok(list.pop().unwrap_or_default()),
        _ => Err(Error::invalid(format!(
            "a network has one {version} subnet: leave the others out"
        ))),
    };
    let (four, six) = (one(four, "IPv4")?, one(six, "IPv6")?);
    let six = NewRange6 {
        subnet: six.subnet,
        gateway: six.gateway,
        ip_range: six.ip_range,
        aux_addresses: six.auxiliary_addresses,
    };
    Ok((four, six))
}

/// Writes the range of a network's IPv6 half.
pub(crate) fn config(own: &NetworkRecord) -> Option<IpamConfig> {
    let v6 = own.v6.as_ref()?;
    let aux = v6.aux_addresses.iter();
    Some(IpamConfig {
        subnet: v6.subnet.clone(),
        gateway: hull_engine::networks::gateway6(v6)
            .map(|gateway| gateway.to_string())
            .unwrap_or_default(),
        ip_range: v6.ip_range.clone(),
        auxiliary_addresses: aux
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    })
}

/// Writes an address of IPv4, if it is more than a number.
pub(crate) fn shown(address: Ipv4Addr) -> String {
    if is_number(address) {
        String::new()
    } else {
        address.to_string()
    }
}

/// Writes the length of an address's prefix, if the address is more than a number.
pub(crate) fn prefix(endpoint: &Endpoint) -> i64 {
    if is_number(endpoint.address) {
        0
    } else {
        i64::from(endpoint.prefix)
    }
}

/// Writes the IPv6 half of a place.
pub(crate) fn place(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    if let Some(v6) = &endpoint.v6 {
        settings.ipv6_gateway = v6.gateway.to_string();
        settings.global_ipv6_address = v6.address.to_string();
        settings.global_ipv6_prefix_len = i64::from(v6.prefix);
    }
}

/// Writes a place's IPv6 address with its prefix.
pub(crate) fn with_prefix(endpoint: &Endpoint) -> String {
    let v6 = endpoint.v6.as_ref();
    v6.map(|v6| format!("{}/{}", v6.address, v6.prefix))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: subnet.into(),
            gateway: gateway.into(),
            ..IpamConfig::default()
        }
    }

    #[test]
    fn ranges_are_told_apart_in_any_order() {
        let four = range("10.1.0.0/24", "10.1.0.9");
        let six = range("fd00:1::/64", "fd00:1::9");
        for list in [
            vec![four.clone(), six.clone()],
            vec![six.clone(), four.clone()],
        ] {
            let (left, right) = split(list).unwrap();
            assert_eq!(left, four);
            assert_eq!(
                (right.subnet, right.gateway),
                (six.subnet.clone(), six.gateway.clone())
            );
        }
        let (none, alone) = split(vec![six.clone()]).unwrap();
        assert_eq!(none, IpamConfig::default());
        assert_eq!(alone.subnet, six.subnet);
        assert!(split(vec![six.clone(), six]).is_err());
        assert!(split(vec![four.clone(), four]).is_err());
        assert_eq!(split(Vec::new()).unwrap().1, NewRange6::default());
    }

    #[test]
    fn numbers_are_not_shown() {
        assert_eq!(shown(Ipv4Addr::new(0, 0, 4, 2)), "");
        assert_eq!(shown(Ipv4Addr::new(10, 0, 0, 2)), "10.0.0.2");
    }
}
