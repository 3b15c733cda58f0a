//! The IPv6 addresses of one network, and the choice of a prefix that nothing on the host uses.

use std::net::Ipv6Addr;

use crate::circle::Circle;
use crate::config6::Config6;
use crate::types6::Subnet6;

/// Why no IPv6 address could be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Address6Error {
    /// Every address is taken.
    #[error("no free IPv6 address left in {0}: remove containers or choose a larger subnet")]
    Exhausted(Subnet6),
    /// The address is not one of the network's.
    #[error("address {address} is not usable in {subnet}")]
    Outside {
        /// The address.
        address: Ipv6Addr,
        /// The network's subnet.
        subnet: Subnet6,
    },
    /// The address is taken.
    #[error("address {0} is already in use")]
    Taken(Ipv6Addr),
    /// The subnet has no room for a gateway and a container.
    #[error("IPv6 subnet {0} is too small: use a prefix of 126 or less")]
    TooSmall(Subnet6),
    /// Each of the candidates overlaps something.
    #[error("no free IPv6 subnet found: every candidate overlaps a route of the host; set one")]
    NoSubnet,
    /// The network has none.
    #[error("the network has no IPv6 addresses: create it with --ipv6")]
    None,
}

/// Routes this short stand for "everywhere": a default route, its two halves, or all of the global
/// addresses.
const SHORTEST_RULING_PREFIX: u8 = 4;
const LONGEST_PREFIX: u8 = 126;

/// Who has which address.
#[derive(Debug)]
pub(crate) struct AddressPool6 {
    subnet: Subnet6,
    circle: Circle,
}

impl AddressPool6 {
    /// The addresses of `config`'s subnet.
    pub(crate) fn new(config: &Config6) -> Result<Self, Address6Error> {
        let subnet = config.subnet;
        if subnet.prefix() > LONGEST_PREFIX {
            return Err(Address6Error::TooSmall(subnet));
        }
        let range = config.range.unwrap_or(subnet);
        // The first address is every router's.
        let first = range.first().to_bits().max(subnet.first().to_bits() + 1);
        let last = range.last().to_bits();
        let reserved = config.reserved.iter().chain([&config.gateway]);
        let circle = Circle::new((first, last), reserved.map(|a| a.to_bits()));
        Ok(Self { subnet, circle })
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv6Addr, Address6Error> {
        let number = self.circle.allocate();
        number
            .map(Ipv6Addr::from_bits)
            .ok_or(Address6Error::Exhausted(self.subnet))
    }

    /// Takes a given address.
    pub(crate) fn reserve(&mut self, address: Ipv6Addr) -> Result<(), Address6Error> {
        let usable = self.subnet.contains(address)
            && address != self.subnet.first()
            && !self.circle.is_reserved(address.to_bits());
        if !usable {
            return Err(Address6Error::Outside {
                address,
                subnet: self.subnet,
            });
        }
        if !self.circle.take(address.to_bits()) {
            return Err(Address6Error::Taken(address));
        }
        Ok(())
    }

    /// Gives an address back; that it was free is no error.
    pub(crate) fn release(&mut self, address: Ipv6Addr) {
        self.circle.release(address.to_bits());
    }
}

/// The first subnet of 64 bits with this global id that overlaps nothing in `occupied`.
pub(crate) fn choose(global: [u8; 5], occupied: &[Subnet6]) -> Result<Subnet6, Address6Error> {
    (0..=u16::MAX)
        .map(|index| Subnet6::unique_local(global, index))
        .find(|candidate| first_overlap(*candidate, occupied).is_none())
        .ok_or(Address6Error::NoSubnet)
}

/// What in `occupied` shares an address with `subnet`.
pub(crate) fn first_overlap(subnet: Subnet6, occupied: &[Subnet6]) -> Option<Subnet6> {
    occupied
        .iter()
        .copied()
        .find(|other| other.prefix() >= SHORTEST_RULING_PREFIX && subnet.overlaps(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet6 {
        text.parse().expect("a subnet")
    }

    fn address(text: &str) -> Ipv6Addr {
        text.parse().expect("an address")
    }

    fn pool(text: &str) -> AddressPool6 {
        AddressPool6::new(&Config6::new(subnet(text))).expect("a pool")
    }

    #[test]
    fn allocate_in_a_range_skips_gateway_and_reserved_addresses() {
        let config = Config6 {
            gateway: address("fd00::5"),
            range: Some(subnet("fd00::4/126")),
            reserved: vec![address("fd00::6")],
            ..Config6::new(subnet("fd00::/64"))
        };
        let mut pool = AddressPool6::new(&config).expect("a pool");
        assert_eq!(pool.allocate(), Ok(address("fd00::4")));
        assert_eq!(pool.allocate(), Ok(address("fd00::7")));
        assert!(matches!(pool.allocate(), Err(Address6Error::Exhausted(_))));
        assert_eq!(pool.reserve(address("fd00::1")), Ok(()));
        for text in ["fd00::5", "fd00::6", "fd00::", "fd01::9"] {
            assert!(pool.reserve(address(text)).is_err(), "{text}");
        }
        pool.release(address("fd00::7"));
        assert_eq!(pool.allocate(), Ok(address("fd00::7")));
    }

    #[test]
    fn allocate_after_release_takes_another_address() {
        let mut pool = pool("fd00::/64");
        let first = pool.allocate().expect("an address");
        assert_eq!(first, address("fd00::2"));
        pool.release(first);
        assert_eq!(pool.allocate(), Ok(address("fd00::3")));
        assert_eq!(
            pool.reserve(address("fd00::3")),
            Err(Address6Error::Taken(address("fd00::3")))
        );
    }

    #[test]
    fn pool_of_a_subnet_without_room_is_refused() {
        for text in ["fd00::/127", "fd00::1/128"] {
            assert!(AddressPool6::new(&Config6::new(subnet(text))).is_err());
        }
        assert!(AddressPool6::new(&Config6::new(subnet("fd00::/126"))).is_ok());
        // The highest address of all is reached without running over.
        let top = subnet("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126");
        let mut pool = AddressPool6::new(&Config6::new(top)).expect("a pool");
        assert!(pool.allocate().is_ok() && pool.allocate().is_ok());
        assert!(pool.allocate().is_err());
    }

    #[test]
    fn choose_avoids_routes_but_not_default_ones() {
        let global = [1, 2, 3, 4, 5];
        let occupied = [
            "::/0",
            "2000::/3",
            "fd01:203:405::/64",
            "fd01:203:405:1::7/128",
        ];
        let occupied = occupied.map(subnet);
        assert_eq!(choose(global, &occupied), Ok(subnet("fd01:203:405:2::/64")));
        let all = [subnet("fc00::/7")];
        assert_eq!(choose(global, &all), Err(Address6Error::NoSubnet));
    }
}
