//! Bridge networks: a bridge, endpoints on it, published ports, names, and the files in a container
//! that tell of them.
//!
//! A [`Network`] belongs to one bridge. Its calls are synchronous: [`Network::attach`] takes
//! microseconds while ready endpoints last, a millisecond otherwise. The kernel is spoken to
//! directly (rtnetlink, nfnetlink); no helper program is run. The bridge and the prefix of its veths
//! bear the network's name; the table of nf_tables is one for all networks ([`Firewall`]).

mod addr;
mod addr6;
mod admission;
pub mod bandwidth;
mod check;
mod circle;
mod config;
mod config6;
mod conntrack;
mod core;
mod cut;
mod direct;
pub mod dns;
pub mod egress;
mod elements;
mod endpoint;
mod fault;
pub mod files;
mod firewall;
mod host;
mod host6;
mod host_address;
mod isolated;
mod isolated_pool;
pub mod netlink;
mod network;
mod nft;
mod open;
mod plug;
pub mod pool;
mod port_ranges;
mod ports;
mod publish6;
mod republish;
mod route;
mod rule;
mod six;
mod sockets;
mod survey;
mod sysctl;
mod table;
mod table6;
mod table_read;
mod turn;
mod types;
mod types6;
mod watch;

pub use addr::AddressError;
pub use addr6::Address6Error;
pub use check::Mended;
pub use config::{
    AttachError, Leaks, LiveEndpoint, NetworkConfig, NetworkInfo, OpenError, Policy, PublishError,
};
pub use config6::{Config6, Info6, Place6};
pub use direct::{
    DirectConfig, DirectError, DirectNetwork, DirectPlace, IpvlanFlag, IpvlanMode, MacvlanMode,
    Upper, Wire, remove_parent,
};
pub use endpoint::{Endpoint, EndpointError, INTERFACE};
pub use fault::{Fault, Part as FaultyPart};
pub use firewall::Firewall;
pub use isolated::isolated;
pub use isolated_pool::IsolatedPool;
pub use netlink::NetlinkError;
pub use network::Network;
pub use plug::{Plug, Plugged, lead_out};
pub use ports::PortError;
pub use republish::{AllPublished, PortExchange};
pub use six::{free_subnet6, host_has_ipv6, lead_out6, overlap6};
pub use survey::{
    free_subnet, interface_exists, overlap, remove_table, sweep_bridges, tables_dropping_input,
};
pub use sysctl::{InterfaceSysctl, SysctlError, interface_sysctls, set_interface_sysctls};
pub use types::{InvalidMac, InvalidSubnet, MacAddress, Subnet};
pub use types6::{InvalidSubnet6, Subnet6};
pub use watch::{Notice, Watch};
