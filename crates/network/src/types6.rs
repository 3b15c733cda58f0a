//! IPv6 subnets.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::types::MacAddress;

/// A text or a pair that is no IPv6 subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid IPv6 subnet {0}: write it as ADDRESS/PREFIX, for example fd12:3456:789a::/64")]
pub struct InvalidSubnet6(String);

/// An IPv6 subnet; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet6 {
    first: u128,
    prefix: u8,
}

/// Prefixes from which no container can have an address: loopback and the like, link-local,
/// multicast.
const UNUSABLE: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::UNSPECIFIED, 64),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

impl Subnet6 {
    /// The subnet of `prefix` bits that holds `address`.
    ///
    /// # Errors
    /// `prefix` is over 128.
    pub fn new(address: Ipv6Addr, prefix: u8) -> Result<Self, InvalidSubnet6> {
        if prefix > 128 {
            return Err(InvalidSubnet6(format!("{address}/{prefix}")));
        }
        Ok(Self {
            first: address.to_bits() & mask(prefix),
            prefix,
        })
    }

    /// Number of leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its lowest address, which every router of the subnet answers to.
    pub fn first(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.first)
    }

    /// Its highest address.
    pub fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.first | !mask(self.prefix))
    }

    /// The address of the bridge: the first after the subnet's own.
    pub fn gateway(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.first.saturating_add(1))
    }

    /// Its mask as an address.
    pub fn netmask(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(mask(self.prefix))
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.first
    }

    /// Whether both share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.first & shorter == other.first & shorter
    }

    /// Whether containers can have its addresses: it is neither link-local nor multicast nor
    /// loopback.
    pub fn is_usable(self) -> bool {
        let unusable = |(address, prefix)| Self::new(address, prefix).ok();
        !UNUSABLE
            .into_iter()
            .filter_map(unusable)
            .any(|other| self.overlaps(other))
    }

    /// The `index`th subnet of 64 bits in the prefix of 48 bits that begins with `fd` and `global`
    /// (RFC 4193).
    pub fn unique_local(global: [u8; 5], index: u16) -> Self {
        let [a, b, c, d, e] = global;
        let [high, low] = index.to_be_bytes();
        let head = u64::from_be_bytes([0xfd, a, b, c, d, e, high, low]);
        Self {
            first: u128::from(head) << 64,
            prefix: 64,
        }
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(prefix)))
        .unwrap_or(0)
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl FromStr for Subnet6 {
    type Err = InvalidSubnet6;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubnet6(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).map_err(|_| invalid())
    }
}

/// The link-local address of an interface with this MAC address (RFC 4291, appendix A).
pub(crate) fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let tail = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet6 {
        text.parse().expect("a subnet")
    }

    #[test]
    fn subnet_with_host_bits_is_cut_to_its_first_address() {
        let net = subnet("2001:db8:1:2:3::4/64");
        assert_eq!(net.to_string(), "2001:db8:1:2::/64");
        assert_eq!(net.gateway().to_string(), "2001:db8:1:2::1");
        assert_eq!(net.last().to_string(), "2001:db8:1:2:ffff:ffff:ffff:ffff");
        assert_eq!(net.netmask().to_string(), "ffff:ffff:ffff:ffff::");
        assert!(net.contains("2001:db8:1:2::99".parse().expect("an address")));
        assert!(!net.contains("2001:db8:1:3::99".parse().expect("an address")));
    }

    #[test]
    fn subnet_malformed_is_an_error() {
        for text in [
            "",
            "fd00::",
            "fd00::/129",
            "fd00:/8",
            "10.0.0.0/8",
            "fd00::/-1",
        ] {
            assert!(text.parse::<Subnet6>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnet_of_no_container_is_not_usable() {
        for text in ["::/0", "::1/128", "fe80::/64", "ff02::/16", "::ffff:0:0/96"] {
            assert!(!subnet(text).is_usable(), "{text}");
        }
        for text in ["fd00::/8", "2001:db8::/32", "64:ff9b::/96"] {
            assert!(subnet(text).is_usable(), "{text}");
        }
    }

    #[test]
    fn unique_local_subnets_are_numbered_within_their_prefix() {
        let net = Subnet6::unique_local([0x12, 0x34, 0x56, 0x78, 0x9a], 258);
        assert_eq!(net.to_string(), "fd12:3456:789a:102::/64");
        assert!(net.overlaps(subnet("fd12:3456:789a::/48")));
        assert!(!net.overlaps(subnet("fd12:3456:789b::/48")));
    }

    #[test]
    fn link_local_address_follows_the_mac_address() {
        let mac = MacAddress([0x02, 0x42, 0xac, 0x12, 0, 2]);
        assert_eq!(link_local(mac).to_string(), "fe80::42:acff:fe12:2");
    }
}
