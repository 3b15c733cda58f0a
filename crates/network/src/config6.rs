//! What goes into the IPv6 half of a network and comes out of it.

use std::net::Ipv6Addr;

use crate::types6::Subnet6;

/// What the IPv6 half of a network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config6 {
    /// Subnet.
    pub subnet: Subnet6,
    /// The bridge's address.
    pub gateway: Ipv6Addr,
    /// Where addresses that nobody asked for come from; `None` is the whole subnet.
    pub range: Option<Subnet6>,
    /// Addresses that no container is given.
    pub reserved: Vec<Ipv6Addr>,
}

impl Config6 {
    /// The usual configuration of a subnet: the bridge has its first address.
    pub fn new(subnet: Subnet6) -> Self {
        Self {
            subnet,
            gateway: subnet.gateway(),
            range: None,
            reserved: Vec::new(),
        }
    }

    /// What of it does not lie in the subnet, as (what, which).
    pub(crate) fn outside(&self) -> Option<(&'static str, String)> {
        let Self {
            subnet,
            gateway,
            range,
            reserved,
        } = self;
        if !subnet.is_usable() {
            return Some(("subnet", subnet.to_string()));
        }
        if !subnet.contains(*gateway) || *gateway == subnet.first() {
            return Some(("gateway", gateway.to_string()));
        }
        if let Some(range) = range
            && !(range.prefix() >= subnet.prefix() && subnet.contains(range.first()))
        {
            return Some(("range", range.to_string()));
        }
        let stray = reserved.iter().find(|a| !subnet.contains(**a));
        stray.map(|address| ("reserved address", address.to_string()))
    }
}

/// A container's IPv6 place on a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place6 {
    /// Address.
    pub address: Ipv6Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv6Addr,
}

/// The IPv6 half of a network as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info6 {
    /// Subnet.
    pub subnet: Subnet6,
    /// The bridge's address.
    pub gateway: Ipv6Addr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_is_named() {
        let subnet: Subnet6 = "fd00:1::/64".parse().expect("a subnet");
        let good = Config6::new(subnet);
        assert_eq!(good.outside(), None);
        let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address");
        let what = |config: Config6| config.outside().map(|(what, _)| what);
        for gateway in ["fd00:1::", "fd00:2::1"] {
            let config = Config6 {
                gateway: address(gateway),
                ..good.clone()
            };
            assert_eq!(what(config), Some("gateway"), "{gateway}");
        }
        let wide = Config6 {
            range: "fd00:1::/48".parse().ok(),
            ..good.clone()
        };
        assert_eq!(what(wide), Some("range"));
        let stray = Config6 {
            reserved: vec![address("fd00::7")],
            ..good.clone()
        };
        assert_eq!(what(stray), Some("reserved address"));
        let link_local = Config6::new("fe80::/64".parse().expect("a subnet"));
        assert_eq!(what(link_local), Some("subnet"));
    }
}
