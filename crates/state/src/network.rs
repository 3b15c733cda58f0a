//! The record of a network that a user made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use hull_model::spec::Link;
use serde::{Deserialize, Serialize};

use crate::six::Range6;

/// Everything known about a network, but for who is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkRecord {
    /// 64 hex digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// When it was created, ns since 1970.
    pub created_at_ns: u64,
    /// Its driver; empty means bridge.
    pub driver: String,
    /// Who manages its addresses; empty means Hull, `null` nobody.
    pub ipam: String,
    /// Name of its bridge, or of the interface on which its containers sit.
    pub bridge: String,
    /// Hull made that interface, where it is no bridge with addresses.
    pub made_link: bool,
    /// Subnet as `ADDRESS/PREFIX`.
    pub subnet: String,
    /// The bridge's address; `None` is the first of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Where addresses that nobody asked for come from, as `ADDRESS/PREFIX`; empty is the subnet.
    pub ip_range: String,
    /// Addresses that no container is given, by what the user calls them.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Its IPv6 half, if it has one.
    pub v6: Option<Range6>,
    /// Its containers have no IPv4 addresses.
    pub without_ipv4: bool,
    /// The user chose the subnet, not Hull.
    pub subnet_chosen: bool,
    /// Nothing but the host and each other can be reached.
    pub internal: bool,
    /// `--attachable`, shown by inspect.
    pub attachable: bool,
    /// Options of the driver as they were given.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// How a container joins a network, at each start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Join {
    /// Id of the network; of the default bridge, its own.
    pub network: String,
    /// Its name.
    pub name: String,
    /// What the container is called there beside its name.
    pub aliases: Vec<String>,
    /// Address asked for.
    pub address: Option<Ipv4Addr>,
    /// IPv6 address asked for.
    pub address6: Option<std::net::Ipv6Addr>,
    /// MAC address asked for; empty if none.
    pub mac: String,
    /// Whose default route counts: the highest, among equals the first name.
    pub gw_priority: i64,
    /// The interface as the container sees it; empty before the first start.
    pub interface: String,
    /// Options as they were given.
    pub options: BTreeMap<String, String>,
    /// Other containers under names that this one alone knows.
    pub links: Vec<Link>,
}
