//! What goes into a network and comes out of it: configuration, records, descriptions, errors.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use hull_model::spec::PublishedPort;
use serde::{Deserialize, Serialize};

use crate::addr::AddressError;
use crate::addr6::Address6Error;
use crate::config6::Config6;
use crate::endpoint::EndpointError;
use crate::firewall::Firewall;
use crate::netlink::NetlinkError;
use crate::ports::PortError;
use crate::types::Subnet;
use crate::types6::Subnet6;

/// What a network is to be.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// The table of nf_tables, which networks of one daemon share.
    pub firewall: Arc<Firewall>,
    /// Subnet; `None` keeps the existing bridge's, or takes the first that the host does not use.
    pub subnet: Option<Subnet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Number of endpoints kept ready.
    pub pool_size: usize,
    /// The bridge's address; `None` is the first of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Where addresses that nobody asked for come from; `None` is the whole subnet.
    pub range: Option<Subnet>,
    /// Addresses that no container is given.
    pub reserved: Vec<Ipv4Addr>,
    /// Its IPv6 half, if it has one.
    pub v6: Option<Config6>,
    /// Containers and bridge have IPv4 addresses. Without, theirs are mere numbers.
    pub ipv4: bool,
    /// What its veths' names begin with; `None` derives it from the bridge's name.
    pub veth_prefix: Option<String>,
    /// There was no such network before: no link of it can lie about.
    pub fresh: bool,
    /// Who may talk to whom.
    pub policy: Policy,
    /// The host's resolver configuration; subnets with its name servers in them are avoided.
    pub resolv_conf: PathBuf,
}

impl NetworkConfig {
    /// Docker's MTU.
    pub const DEFAULT_MTU: u32 = 1500;
    /// Enough for a few starts in a row while the next are made.
    pub const DEFAULT_POOL_SIZE: usize = 8;

    /// The usual configuration of the network on `bridge`: it has a table of its own, with the
    /// bridge's name, `hull` for `hull0`.
    pub fn new(bridge: &str) -> Self {
        let table = if bridge == "hull0" {
            "hull".to_owned()
        } else {
            format!("hull-{bridge}")
        };
        Self {
            bridge: bridge.to_owned(),
            firewall: Arc::new(Firewall::new(&table)),
            subnet: None,
            mtu: Self::DEFAULT_MTU,
            pool_size: Self::DEFAULT_POOL_SIZE,
            gateway: None,
            range: None,
            reserved: Vec::new(),
            v6: None,
            ipv4: true,
            veth_prefix: None,
            fresh: false,
            policy: Policy::default(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// Who may talk to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Nothing but the host and each other: no route leads out, no port in.
    pub internal: bool,
    /// The containers may talk to each other.
    pub icc: bool,
    /// The host lends them its address when they talk to others.
    pub masquerade: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            internal: false,
            icc: true,
            masquerade: true,
        }
    }
}

/// An endpoint in use, as the caller's records have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveEndpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address.
    pub address6: Option<std::net::Ipv6Addr>,
    /// The host's end of its veth pair.
    pub host_veth: String,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
    /// Those on IPv6 addresses of the host.
    pub ports6: Vec<hull_model::spec::PublishedPort6>,
}

/// Why a network could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The gateway, a range or a reserved address lies outside the subnet.
    #[error("{what} {address} is not usable in {subnet}")]
    Outside {
        /// Which.
        what: &'static str,
        /// The address.
        address: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// A name is unusable.
    #[error("invalid {what} {name:?}")]
    InvalidName {
        /// Which.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Another kind of interface has the bridge's name.
    #[error("{bridge} exists and is no bridge but {kind}: choose another name")]
    NotABridge {
        /// The name.
        bridge: String,
        /// What it is.
        kind: String,
    },
    /// The subnet asked for is used by the host.
    #[error("subnet {subnet} overlaps {other}, which the host uses: choose another")]
    Overlap {
        /// The subnet.
        subnet: Subnet,
        /// What it overlaps.
        other: Subnet,
    },
    /// As `Outside`, of IPv6.
    #[error("{what} {address} is not usable in {subnet}")]
    Outside6 {
        /// Which.
        what: &'static str,
        /// The address.
        address: String,
        /// The subnet.
        subnet: Subnet6,
    },
    /// As `Overlap`, of IPv6.
    #[error("subnet {subnet} overlaps {other}, which the host uses: choose another")]
    Overlap6 {
        /// The subnet.
        subnet: Subnet6,
        /// What it overlaps.
        other: Subnet6,
    },
    /// No IPv6 subnet can be had.
    #[error("choose an IPv6 subnet")]
    Subnet6(#[source] Address6Error),
    /// No subnet can be had.
    #[error("choose a subnet")]
    Subnet(#[source] AddressError),
    /// A request to the kernel failed.
    #[error("{step} of bridge {bridge}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The bridge.
        bridge: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
    /// The background thread could not be started.
    #[error("start the network's background thread")]
    Thread(#[source] std::io::Error),
}

/// Why a container could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No IPv6 address.
    #[error(transparent)]
    Address6(#[from] Address6Error),
    /// No endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The network is being removed.
    #[error("the network is being removed")]
    Closed,
}

/// Why ports could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The address is not attached.
    #[error("no container has the address {0}")]
    Unknown(Ipv4Addr),
    /// The kernel refused.
    #[error("publish ports in table {table}")]
    Kernel {
        /// The table.
        table: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
}

/// A network as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInfo {
    /// Bridge.
    pub bridge: String,
    /// nf_tables table.
    pub table: String,
    /// Subnet.
    pub subnet: Subnet,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Containers attached.
    pub attached: usize,
    /// Endpoints ready.
    pub ready: usize,
    /// What does not work on this host, in words for its user; logged once by the caller.
    pub warnings: Vec<String>,
}

/// What exists though no container or ready endpoint needs it; see [`Network::check`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Links that bear our name.
    pub veths: Vec<String>,
    /// Addresses taken by nobody.
    pub addresses: usize,
    /// Ports published to nobody.
    pub ports: Vec<PublishedPort>,
}

impl Leaks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
