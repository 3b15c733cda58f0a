//! The IPv6 half of networks and of places on them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use hull_model::spec::PublishedPort6;
use serde::{Deserialize, Serialize};

/// The IPv6 half of a network that a user made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Range6 {
    /// Subnet as `ADDRESS/PREFIX`.
    pub subnet: String,
    /// The user chose the subnet, not Hull.
    pub chosen: bool,
    /// The bridge's address; `None` is the first of the subnet.
    pub gateway: Option<Ipv6Addr>,
    /// Where addresses that nobody asked for come from, as `ADDRESS/PREFIX`; empty is the subnet.
    pub ip_range: String,
    /// Addresses that no container is given, by what the user calls them.
    pub aux_addresses: BTreeMap<String, Ipv6Addr>,
}

/// A container's IPv6 place on a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint6 {
    /// Address.
    pub address: Ipv6Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Default route.
    pub gateway: Ipv6Addr,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PublishedPort6>,
}
