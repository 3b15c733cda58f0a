//! Subnets and MAC addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A text or a pair that is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid subnet {0}: write it as ADDRESS/PREFIX, for example 172.17.0.0/16")]
pub struct InvalidSubnet(String);

/// An IPv4 subnet; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    /// The subnet of `prefix` bits that holds `address`.
    ///
    /// # Errors
    /// `prefix` is over 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, InvalidSubnet> {
        if prefix > 32 {
            return Err(InvalidSubnet(format!("{address}/{prefix}")));
        }
        Ok(Self {
            first: address.to_bits() & mask(prefix),
            prefix,
        })
    }

    /// 127.0.0.0/8.
    pub const LOOPBACK: Self = Self {
        first: 127 << 24,
        prefix: 8,
    };

    /// Number of leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its lowest address, which names the subnet itself.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// Its highest address, the broadcast address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first | !mask(self.prefix))
    }

    /// The address of the bridge: the first after the subnet's own.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.saturating_add(1))
    }

    /// The network mask as an address.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.first
    }

    /// Whether both share an address.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.first & shorter == other.first & shorter
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32_u32.saturating_sub(u32::from(prefix)))
        .unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address = address.parse().map_err(|_| invalid())?;
        let prefix = prefix.parse().map_err(|_| invalid())?;
        Self::new(address, prefix).map_err(|_| invalid())
    }
}

/// A MAC address; shown as `02:42:ac:11:00:02`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address Docker too gives to a container: `02:42` and the four bytes of the IPv4
    /// address. Locally administered, and whoever cached it for an address need not learn anew.
    pub fn from_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

/// A text that is no MAC address of a single host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a MAC address: write six bytes as in 02:42:ac:11:00:02")]
pub struct InvalidMac(String);

impl FromStr for MacAddress {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.filter(|p| !p.starts_with('+')).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        // Addresses of groups and the zero address are no host's.
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(invalid());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnet_with_host_bits_is_cut_to_its_first_address() {
        let subnet: Subnet = "172.17.3.9/16".parse().expect("a subnet");
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert_eq!(subnet.gateway(), Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(subnet.last(), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(subnet.netmask(), Ipv4Addr::new(255, 255, 0, 0));
    }

    #[test]
    fn subnet_malformed_is_an_error() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "x/8", "1.2.3.4/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn subnet_overlap_is_symmetric() {
        let wide: Subnet = "10.0.0.0/8".parse().expect("a subnet");
        let narrow: Subnet = "10.200.0.0/24".parse().expect("a subnet");
        let other: Subnet = "11.0.0.0/24".parse().expect("a subnet");
        let everything: Subnet = "0.0.0.0/0".parse().expect("a subnet");
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide));
        assert!(!wide.overlaps(other) && !other.overlaps(wide));
        assert!(everything.overlaps(other));
    }

    #[test]
    fn mac_parsed_is_shown_the_same_and_groups_are_refused() {
        let mac: MacAddress = "92:D0:c6:0a:29:33".parse().expect("an address");
        assert_eq!(mac.to_string(), "92:d0:c6:0a:29:33");
        for text in [
            "",
            "92:d0:c6:0a:29",
            "92:d0:c6:0a:29:33:44",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "9:d0:c6:0a:29:33",
            "+2:d0:c6:0a:29:33",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn mac_from_ipv4_is_readable() {
        let mac = MacAddress::from_ipv4(Ipv4Addr::new(172, 17, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
    }
}
