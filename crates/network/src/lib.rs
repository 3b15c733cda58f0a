//! Bridge networks: a bridge, endpoints on it, published ports, names, and the files in a container
//! that tell of them.
//!
//! A [`Network`] belongs to one bridge. Its calls are synchronous: [`Network::attach`] takes
//! microseconds while ready endpoints last, a millisecond otherwise. The kernel is spoken to
//! directly (rtnetlink, nfnetlink); no helper program is run. The bridge and the prefix of its veths
//! bear the network's name; the table of nf_tables is one for all networks ([`Firewall`]).

mod addr;
mod config;
mod conntrack;
mod core;
pub mod dns;
mod elements;
mod endpoint;
pub mod files;
mod firewall;
mod host;
mod isolated;
mod isolated_pool;
pub mod netlink;
mod network;
mod nft;
mod open;
mod plug;
pub mod pool;
mod ports;
mod route;
mod rule;
mod survey;
mod table;
mod turn;
mod types;

pub use addr::AddressError;
pub use config::{
    AttachError, Leaks, LiveEndpoint, NetworkConfig, NetworkInfo, OpenError, Policy, PublishError,
};
pub use endpoint::{Endpoint, EndpointError, INTERFACE};
pub use firewall::Firewall;
pub use isolated::isolated;
pub use isolated_pool::IsolatedPool;
pub use netlink::NetlinkError;
pub use network::Network;
pub use plug::{Plug, Plugged, lead_out};
pub use ports::PortError;
pub use survey::{free_subnet, interface_exists, overlap, remove_table, sweep_bridges};
pub use types::{InvalidMac, InvalidSubnet, MacAddress, Subnet};
