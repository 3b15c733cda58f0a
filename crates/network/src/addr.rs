//! The address pool of one network, and the choice of a subnet that nothing on the host uses.

use std::net::Ipv4Addr;

use crate::types::Subnet;

/// Why no address could be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Every address is taken.
    #[error("no free address left in {0}: remove containers or choose a larger subnet")]
    Exhausted(Subnet),
    /// The address is not one of the network's.
    #[error("address {address} is not usable in {subnet}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The network's subnet.
        subnet: Subnet,
    },
    /// The address is taken.
    #[error("address {0} is already in use")]
    Taken(Ipv4Addr),
    /// The subnet has no room for a gateway and a container.
    #[error("subnet {0} is too small: use a prefix of 29 or less")]
    TooSmall(Subnet),
    /// Each of the candidates overlaps something.
    #[error("no free subnet found: every candidate overlaps a route of the host; set one")]
    NoSubnet,
}

/// Routes this short stand for "everywhere" (a default route, or the two halves that VPNs use
/// instead of one), so they rule out no subnet.
const SHORTEST_RULING_PREFIX: u8 = 2;
/// A bitmap beyond this serves nobody: a bridge has at most 1,023 ports.
const LARGEST_POOL_BITS: u8 = 16;
const LONGEST_PREFIX: u8 = 29;

/// Who has which address. Addresses are given in a circle, so that one just freed is not given at
/// once to somebody else while its peers still talk to it.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Subnet,
    /// One bit for each host number.
    used: Vec<u64>,
    next: u32,
    size: u32,
}

impl AddressPool {
    pub(crate) fn new(subnet: Subnet) -> Result<Self, AddressError> {
        if subnet.prefix() > LONGEST_PREFIX {
            return Err(AddressError::TooSmall(subnet));
        }
        let bits = (32 - subnet.prefix()).min(LARGEST_POOL_BITS);
        let size = 1_u32 << bits;
        let words = usize::try_from(size.div_ceil(64)).unwrap_or(1);
        Ok(Self {
            subnet,
            used: vec![0; words],
            // Zero names the subnet, one is the gateway.
            next: 2,
            size,
        })
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr, AddressError> {
        let first = 2;
        // The last of the subnet is the broadcast address; in a cut pool it merely stays unused.
        let end = self.size - 1;
        for _ in first..end {
            let host = self.next;
            self.next = if host + 1 >= end { first } else { host + 1 };
            if !self.get(host) {
                self.set(host, true);
                return Ok(Ipv4Addr::from_bits(self.subnet.first().to_bits() + host));
            }
        }
        Err(AddressError::Exhausted(self.subnet))
    }

    /// Takes a given address.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) -> Result<(), AddressError> {
        let host = self.host(address)?;
        if self.get(host) {
            return Err(AddressError::Taken(address));
        }
        self.set(host, true);
        Ok(())
    }

    /// Gives an address back; that it was free is no error.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        if let Ok(host) = self.host(address) {
            self.set(host, false);
        }
    }

    /// Number of addresses taken.
    pub(crate) fn taken(&self) -> u32 {
        self.used.iter().map(|word| word.count_ones()).sum()
    }

    fn host(&self, address: Ipv4Addr) -> Result<u32, AddressError> {
        let host = address
            .to_bits()
            .checked_sub(self.subnet.first().to_bits())
            .filter(|host| *host >= 2 && *host < self.size - 1);
        host.ok_or(AddressError::Outside {
            address,
            subnet: self.subnet,
        })
    }

    fn get(&self, host: u32) -> bool {
        let word = usize::try_from(host / 64).unwrap_or(usize::MAX);
        self.used
            .get(word)
            .is_none_or(|word| word & (1 << (host % 64)) != 0)
    }

    fn set(&mut self, host: u32, taken: bool) {
        let word = usize::try_from(host / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.used.get_mut(word) {
            if taken {
                *word |= 1 << (host % 64);
            } else {
                *word &= !(1 << (host % 64));
            }
        }
    }
}

/// The subnets tried, in order: Docker's, then the rest of the private ranges.
fn candidates() -> impl Iterator<Item = Subnet> {
    let sixteens = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let twenties = (0..=255)
        .step_by(16)
        .map(|third| (Ipv4Addr::new(192, 168, third, 0), 20));
    let tens = (0..=255).map(|second| (Ipv4Addr::new(10, second, 0, 0), 16));
    sixteens
        .chain(twenties)
        .chain(tens)
        .filter_map(|(address, prefix)| Subnet::new(address, prefix).ok())
}

/// The first candidate that overlaps nothing in `occupied`: routes, addresses, name servers.
pub(crate) fn choose_subnet(occupied: &[Subnet]) -> Result<Subnet, AddressError> {
    candidates()
        .find(|candidate| first_overlap(*candidate, occupied).is_none())
        .ok_or(AddressError::NoSubnet)
}

/// The candidate that holds `address`.
pub(crate) fn candidate_with(address: Ipv4Addr) -> Option<Subnet> {
    candidates().find(|candidate| candidate.contains(address))
}

/// What in `occupied` shares an address with `subnet`.
pub(crate) fn first_overlap(subnet: Subnet, occupied: &[Subnet]) -> Option<Subnet> {
    occupied
        .iter()
        .copied()
        .find(|other| other.prefix() >= SHORTEST_RULING_PREFIX && subnet.overlaps(*other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn allocate_after_release_takes_another_address() {
        let mut pool = AddressPool::new(subnet("10.1.0.0/29")).expect("a pool");
        let first = pool.allocate().expect("an address");
        assert_eq!(first, Ipv4Addr::new(10, 1, 0, 2));
        pool.release(first);
        assert_eq!(pool.allocate(), Ok(Ipv4Addr::new(10, 1, 0, 3)));
    }

    #[test]
    fn allocate_when_all_are_taken_fails_and_release_helps() {
        let mut pool = AddressPool::new(subnet("10.1.0.0/29")).expect("a pool");
        let taken: Vec<_> = (0..5)
            .map(|_| pool.allocate().expect("an address"))
            .collect();
        assert_eq!(taken.last(), Some(&Ipv4Addr::new(10, 1, 0, 6)));
        assert!(matches!(pool.allocate(), Err(AddressError::Exhausted(_))));
        pool.release(Ipv4Addr::new(10, 1, 0, 4));
        assert_eq!(pool.allocate(), Ok(Ipv4Addr::new(10, 1, 0, 4)));
    }

    #[test]
    fn reserve_foreign_gateway_or_taken_address_fails() {
        let mut pool = AddressPool::new(subnet("10.1.0.0/24")).expect("a pool");
        for address in ["10.1.0.0", "10.1.0.1", "10.1.0.255", "10.2.0.9", "9.0.0.1"] {
            let outcome = pool.reserve(address.parse().expect("an address"));
            assert!(
                matches!(outcome, Err(AddressError::Outside { .. })),
                "{address}"
            );
        }
        let address = Ipv4Addr::new(10, 1, 0, 9);
        assert_eq!(pool.reserve(address), Ok(()));
        assert_eq!(pool.reserve(address), Err(AddressError::Taken(address)));
        assert_eq!(pool.taken(), 1);
    }

    #[test]
    fn pool_of_a_subnet_without_room_is_refused() {
        assert!(AddressPool::new(subnet("10.0.0.0/30")).is_err());
        assert!(AddressPool::new(subnet("10.0.0.0/32")).is_err());
        assert!(AddressPool::new(subnet("0.0.0.0/0")).is_ok());
    }

    #[test]
    fn choose_subnet_avoids_routes_but_not_default_ones() {
        assert_eq!(choose_subnet(&[]), Ok(subnet("172.17.0.0/16")));
        let occupied = ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "172.17.200.0/24"].map(subnet);
        assert_eq!(choose_subnet(&occupied), Ok(subnet("172.18.0.0/16")));
        assert_eq!(
            choose_subnet(&[subnet("172.16.0.0/12")]),
            Ok(subnet("192.168.0.0/20"))
        );
        assert_eq!(
            choose_subnet(&["172.16.0.0/12", "192.168.0.0/16", "10.0.3.4/32"].map(subnet)),
            Ok(subnet("10.1.0.0/16"))
        );
        let all = ["172.16.0.0/12", "192.168.0.0/16", "10.0.0.0/8"].map(subnet);
        assert_eq!(choose_subnet(&all), Err(AddressError::NoSubnet));
    }
}
