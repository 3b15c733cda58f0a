//! Addresses of the host, of either version of IP, as ports are published on them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of one version of IP.
pub(crate) trait HostAddress: Copy + Eq + fmt::Debug + Into<IpAddr> {}

impl HostAddress for Ipv4Addr {}
impl HostAddress for Ipv6Addr {}

/// Whether ports of both addresses are the same.
pub(crate) fn overlap<A: HostAddress>(one: A, other: A) -> bool {
    one == other || is_any(one) || is_any(other)
}

/// Whether it stands for every address.
pub(crate) fn is_any<A: HostAddress>(address: A) -> bool {
    address.into().is_unspecified()
}
