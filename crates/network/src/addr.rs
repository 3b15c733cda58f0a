//! The address pool of one network, and the choice of a subnet that nothing on the host uses.

use std::net::Ipv4Addr;

use crate::circle::Circle;
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
    /// Nobody gives addresses there.
    #[error("the network has no address management, so that {0} cannot be given: leave it out")]
    NotManaged(Ipv4Addr),
    /// Each of the candidates overlaps something.
    #[error("no free subnet found: every candidate overlaps a route of the host; set one")]
    NoSubnet,
}

/// Routes this short stand for "everywhere" (a default route, or the two halves that VPNs use
/// instead of one), so they rule out no subnet.
const SHORTEST_RULING_PREFIX: u8 = 2;
const LONGEST_PREFIX: u8 = 29;

/// Who has which address.
#[derive(Debug)]
pub(crate) struct AddressPool {
    subnet: Subnet,
    circle: Circle,
}

impl AddressPool {
    /// The addresses of `subnet` without `gateway` and `reserved`; those given without being asked
    /// for come from `range`.
    pub(crate) fn new(
        subnet: Subnet,
        gateway: Ipv4Addr,
        range: Option<Subnet>,
        reserved: &[Ipv4Addr],
    ) -> Result<Self, AddressError> {
        if subnet.prefix() > LONGEST_PREFIX {
            return Err(AddressError::TooSmall(subnet));
        }
        let range = range.unwrap_or(subnet);
        // The subnet's own name and its broadcast address are no host's.
        let first = range.first().to_bits().max(subnet.first().to_bits() + 1);
        let last = range.last().to_bits().min(subnet.last().to_bits() - 1);
        let reserved = reserved.iter().chain([&gateway]).map(number);
        let circle = Circle::new((first.into(), last.into()), reserved);
        Ok(Self { subnet, circle })
    }

    /// The next free address.
    pub(crate) fn allocate(&mut self) -> Result<Ipv4Addr, AddressError> {
        // The circle is that of 32-bit numbers, and gives none beyond them.
        let number = self.circle.allocate().and_then(|n| u32::try_from(n).ok());
        number
            .map(Ipv4Addr::from_bits)
            .ok_or(AddressError::Exhausted(self.subnet))
    }

    /// Takes a given address.
    pub(crate) fn reserve(&mut self, address: Ipv4Addr) -> Result<(), AddressError> {
        let usable = self.subnet.contains(address)
            && address != self.subnet.first()
            && address != self.subnet.last()
            && !self.circle.is_reserved(number(&address));
        if !usable {
            return Err(AddressError::Outside {
                address,
                subnet: self.subnet,
            });
        }
        if !self.circle.take(number(&address)) {
            return Err(AddressError::Taken(address));
        }
        Ok(())
    }

    /// Gives an address back; that it was free is no error.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.circle.release(number(&address));
    }

    /// Number of addresses taken.
    pub(crate) fn taken(&self) -> usize {
        self.circle.taken()
    }
}

fn number(address: &Ipv4Addr) -> u128 {
    address.to_bits().into()
}

/// What the user chose must lie in the subnet: otherwise what it is, and its text.
pub(crate) fn check_inside(
    subnet: Subnet,
    gateway: Ipv4Addr,
    range: Option<Subnet>,
    reserved: &[Ipv4Addr],
) -> Result<(), (&'static str, String)> {
    if !subnet.contains(gateway) || gateway == subnet.first() || gateway == subnet.last() {
        return Err(("gateway", gateway.to_string()));
    }
    if let Some(range) = range
        && !(range.prefix() >= subnet.prefix() && subnet.contains(range.first()))
    {
        return Err(("range", range.to_string()));
    }
    match reserved.iter().find(|a| !subnet.contains(**a)) {
        Some(address) => Err(("reserved address", address.to_string())),
        None => Ok(()),
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

/// The subnets tried for networks of the user's own: ten large ones, then some 66,000 of 254
/// addresses each, so that they do not run out before the host's links do.
fn further_candidates() -> impl Iterator<Item = Subnet> {
    let small = |first: u8, seconds: std::ops::RangeInclusive<u8>| {
        seconds.flat_map(move |second| {
            (0..=255).map(move |third| (Ipv4Addr::new(first, second, third, 0), 24))
        })
    };
    let sixteens = (18..=27).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    sixteens
        .chain(small(172, 28..=31))
        .chain(small(192, 168..=168))
        .chain(small(10, 0..=255))
        .filter_map(|(address, prefix)| Subnet::new(address, prefix).ok())
}

/// As [`choose_subnet`], for one more network.
pub(crate) fn choose_further(occupied: &[Subnet]) -> Result<Subnet, AddressError> {
    further_candidates()
        .find(|candidate| first_overlap(*candidate, occupied).is_none())
        .ok_or(AddressError::NoSubnet)
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

    fn whole(text: &str) -> Result<AddressPool, AddressError> {
        let subnet = subnet(text);
        AddressPool::new(subnet, subnet.gateway(), None, &[])
    }

    #[test]
    fn allocate_in_a_range_skips_gateway_and_reserved_addresses() {
        let [gateway, aux] = [5, 6].map(|n| Ipv4Addr::new(10, 1, 0, n));
        let range = Some(subnet("10.1.0.4/30"));
        let mut pool =
            AddressPool::new(subnet("10.1.0.0/24"), gateway, range, &[aux]).expect("a pool");
        assert_eq!(pool.allocate(), Ok(Ipv4Addr::new(10, 1, 0, 4)));
        assert_eq!(pool.allocate(), Ok(Ipv4Addr::new(10, 1, 0, 7)));
        assert!(matches!(pool.allocate(), Err(AddressError::Exhausted(_))));
        assert_eq!(pool.reserve(Ipv4Addr::new(10, 1, 0, 1)), Ok(()));
        for address in [gateway, aux] {
            assert!(pool.reserve(address).is_err(), "{address}");
        }
    }

    #[test]
    fn choose_further_lasts_for_thousands_of_networks() {
        let mut occupied = vec![subnet("172.17.0.0/16"), subnet("10.0.0.0/8")];
        for _ in 0..1200 {
            let next = choose_further(&occupied).expect("a subnet");
            assert_eq!(first_overlap(next, &occupied), None);
            occupied.push(next);
        }
        assert_eq!(occupied[2], subnet("172.18.0.0/16"));
        assert_eq!(occupied[12], subnet("172.28.0.0/24"));
    }

    #[test]
    fn allocate_after_release_takes_another_address() {
        let mut pool = whole("10.1.0.0/29").expect("a pool");
        let first = pool.allocate().expect("an address");
        assert_eq!(first, Ipv4Addr::new(10, 1, 0, 2));
        pool.release(first);
        assert_eq!(pool.allocate(), Ok(Ipv4Addr::new(10, 1, 0, 3)));
    }

    #[test]
    fn allocate_when_all_are_taken_fails_and_release_helps() {
        let mut pool = whole("10.1.0.0/29").expect("a pool");
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
        let mut pool = whole("10.1.0.0/24").expect("a pool");
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
        assert!(whole("10.0.0.0/30").is_err());
        assert!(whole("10.0.0.0/32").is_err());
        assert!(whole("0.0.0.0/0").is_ok());
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
