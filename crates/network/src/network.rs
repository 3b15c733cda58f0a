//! A network: one bridge with its subnet, table, ports and warm endpoints.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_model::spec::{Protocol, PublishSpec, PublishedPort};
use serde::{Deserialize, Serialize};

use crate::addr::{AddressError, AddressPool};
use crate::conntrack::{self, Flows};
use crate::endpoint::{Endpoint, EndpointError, Factory};
use crate::netlink::{NetlinkError, Socket};
use crate::open;
use crate::pool::{Job, Pool, Work};
use crate::ports::{PortError, PortTable};
use crate::route::Route;
use crate::table::{Forward, Table};
use crate::types::Subnet;

/// The kernel removes a veth by itself when its namespace goes; only what is left after this long
/// (a process that still sits in the namespace) is deleted by us.
const LINK_GRACE: Duration = Duration::from_secs(2);

/// The kernel's table of flows is walked as a whole, milliseconds of work: changes that come
/// together share one walk.
const FLOW_DELAY: Duration = Duration::from_millis(20);

/// What a network is to be.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Name of the nf_tables table, of the family ip.
    pub table: String,
    /// Subnet; `None` keeps the existing bridge's, or takes the first that the host does not use.
    pub subnet: Option<Subnet>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Number of endpoints kept ready.
    pub pool_size: usize,
    /// The host's resolver configuration; subnets with its name servers in them are avoided.
    pub resolv_conf: PathBuf,
}

impl NetworkConfig {
    /// Docker's MTU.
    pub const DEFAULT_MTU: u32 = 1500;
    /// Enough for a few starts in a row while the next are made.
    pub const DEFAULT_POOL_SIZE: usize = 8;

    /// The usual configuration of the network on `bridge`: its table has the bridge's name, `hull`
    /// for `hull0`.
    pub fn new(bridge: &str) -> Self {
        let table = if bridge == "hull0" {
            "hull".to_owned()
        } else {
            format!("hull-{bridge}")
        };
        Self {
            bridge: bridge.to_owned(),
            table,
            subnet: None,
            mtu: Self::DEFAULT_MTU,
            pool_size: Self::DEFAULT_POOL_SIZE,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// An endpoint in use, as the caller's records have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveEndpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// The host's end of its veth pair.
    pub host_veth: String,
    /// Its published ports.
    pub ports: Vec<PublishedPort>,
}

/// Why a network could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
    /// No endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
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

/// Addresses and names in use.
#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) addresses: AddressPool,
    /// Names of the links that rightly exist: of attached, ready and unfinished endpoints.
    pub(crate) veths: HashSet<String>,
    /// Address and link of each attached container.
    pub(crate) attached: HashMap<Ipv4Addr, String>,
    /// Addresses taken for endpoints that are being made.
    pub(crate) unfinished: usize,
}

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) ports: PortTable,
    pub(crate) socket: Socket,
}

/// What the network shares with its background thread.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) factory: Factory,
    pub(crate) members: Mutex<Members>,
}

impl Core {
    pub(crate) fn members(&self) -> MutexGuard<'_, Members> {
        // Each critical section leaves the sets consistent, a panic within none of them included.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> Result<Endpoint, AttachError> {
        let address = {
            let mut members = self.members();
            let address = members.addresses.allocate()?;
            members.unfinished += 1;
            address
        };
        let names = Mutex::new(Vec::new());
        let outcome = self.factory.create(address, |name| {
            self.members().veths.insert(name.to_owned());
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push(name.to_owned());
        });
        let mut members = self.members();
        members.unfinished -= 1;
        let kept = outcome.as_ref().ok().map(|made| made.host_veth.as_str());
        for name in names.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if Some(name.as_str()) != kept {
                members.veths.remove(&name);
            }
        }
        if outcome.is_err() {
            members.addresses.release(address);
        }
        Ok(outcome?)
    }
}

impl Work for Arc<Core> {
    fn make(&self) -> Option<Endpoint> {
        Core::make(self).ok()
    }

    fn run(&self, jobs: Vec<Job>) {
        // All of it is tidying: what fails is found again by the next start's reconciliation.
        let Ok(mut route) = Route::open() else { return };
        let mut flows = Flows::default();
        for job in jobs {
            match job {
                Job::DeleteLink(name) => {
                    route.delete_link(&name).ok();
                }
                Job::ForgetFlows(address) => flows.answered_by.push(address),
                Job::ForgetUdpToHost(ports) => {
                    let addresses = route.addresses().unwrap_or_default();
                    flows.to_host.extend(expand(&ports, &addresses));
                }
            }
        }
        conntrack::forget(&flows).ok();
    }
}

fn is_udp(port: &PublishedPort) -> bool {
    port.container.protocol == Protocol::Udp
}

/// Replaces the unspecified address by each of the host's.
fn expand(
    ports: &[(Ipv4Addr, u16)],
    addresses: &[(u32, Subnet, Ipv4Addr)],
) -> Vec<(Ipv4Addr, u16)> {
    let mut targets = Vec::new();
    for (address, port) in ports {
        if address.is_unspecified() {
            targets.extend(addresses.iter().map(|(.., own)| (*own, *port)));
        } else {
            targets.push((*address, *port));
        }
    }
    targets
}

/// An open network. Dropping it ends the background thread and the ready endpoints; bridge, table
/// and attached containers stay, to be found again by the next [`Network::open`].
///
/// It belongs to the network namespace of the thread that opened it; call it from threads of the
/// same namespace.
#[derive(Debug)]
pub struct Network {
    config: NetworkConfig,
    core: Arc<Core>,
    table: Table,
    publisher: Mutex<Publisher>,
    warnings: Vec<String>,
    // Last, so that everything its thread uses is still there when it is joined.
    pool: Pool,
}

impl Network {
    /// Opens the network: makes the bridge unless it is there, rebuilds the table, takes over what
    /// `live` lists, and removes links of ours that belong to nobody.
    ///
    /// # Errors
    /// A name is unusable, the subnet is not free, or the kernel refuses.
    pub fn open(config: NetworkConfig, live: &[LiveEndpoint]) -> Result<Self, OpenError> {
        let parts = open::open(&config, live)?;
        let core = Arc::new(parts.core);
        let pool = Pool::start(config.pool_size, Arc::clone(&core)).map_err(OpenError::Thread)?;
        for stray in parts.strays {
            pool.defer(Duration::ZERO, Job::DeleteLink(stray));
        }
        Ok(Self {
            config,
            core,
            table: parts.table,
            publisher: Mutex::new(parts.publisher),
            warnings: parts.warnings,
            pool,
        })
    }

    /// An endpoint for one container: a ready one, or one made on the spot (about a millisecond).
    /// Give it back with [`Network::release`].
    ///
    /// # Errors
    /// No address is free, or the kernel refuses.
    pub fn attach(&self) -> Result<Endpoint, AttachError> {
        let endpoint = match self.pool.take() {
            Some(endpoint) => endpoint,
            None => Core::make(&self.core)?,
        };
        let mut members = self.core.members();
        members
            .attached
            .insert(endpoint.address, endpoint.host_veth.clone());
        Ok(endpoint)
    }

    /// Publishes ports of the container at `address`: all or none.
    ///
    /// # Errors
    /// A port is taken, nobody has the address, or the kernel refuses.
    pub fn publish(
        &self,
        address: Ipv4Addr,
        wishes: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, PublishError> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let veth = self.core.members().attached.get(&address).cloned();
        let veth = veth.ok_or(PublishError::Unknown(address))?;
        let mut publisher = self.publisher();
        let Publisher { ports, socket } = &mut *publisher;
        let published = ports.allocate(address, wishes)?;
        let forwards: Vec<_> = published
            .iter()
            .map(|port| Forward {
                port: *port,
                address,
            })
            .collect();
        // Somebody may have flushed all tables (`nft flush ruleset`): ours is then made anew.
        let outcome = self.table.add(socket, &forwards).or_else(|error| {
            if error.errno() == Some(libc::ENOENT) {
                self.table.rebuild(socket, &all_forwards(ports))
            } else {
                Err(error)
            }
        });
        if let Err(source) = outcome {
            for port in &published {
                ports.release(port);
            }
            return Err(PublishError::Kernel {
                table: self.config.table.clone(),
                source,
            });
        }
        drop(publisher);
        let udp: Vec<_> = published
            .iter()
            .filter(|port| is_udp(port))
            .map(|port| (port.host_ip, port.host_port))
            .collect();
        if !udp.is_empty() {
            self.pool.defer(FLOW_DELAY, Job::ForgetUdpToHost(udp));
        }
        // Where bridged packets pass the firewall (br_netfilter), a container that calls its own
        // published port is answered within the bridge, by the port it came from. Others do not
        // need it, so a failure only concerns that case.
        if let Ok(mut route) = Route::open() {
            route.set_hairpin(&veth).ok();
        }
        Ok(published)
    }

    /// Takes back all ports of the container at `address`; that there are none is no error. The
    /// ports are free afterwards even if the kernel refuses, which rebuilding the table repairs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unpublish(&self, address: Ipv4Addr) -> Result<(), PublishError> {
        let mut publisher = self.publisher();
        let Publisher { ports, socket } = &mut *publisher;
        let forwards: Vec<_> = ports
            .of(Some(address))
            .into_iter()
            .map(|(port, address)| Forward { port, address })
            .collect();
        if forwards.is_empty() {
            return Ok(());
        }
        for forward in &forwards {
            ports.release(&forward.port);
        }
        let outcome = self
            .table
            .remove(socket, &forwards)
            .or_else(|_| self.table.rebuild(socket, &all_forwards(ports)));
        if forwards.iter().any(|forward| is_udp(&forward.port)) {
            self.pool.defer(FLOW_DELAY, Job::ForgetFlows(address));
        }
        outcome.map_err(|source| PublishError::Kernel {
            table: self.config.table.clone(),
            source,
        })
    }

    /// Ports of the container at `address`.
    pub fn published(&self, address: Ipv4Addr) -> Vec<PublishedPort> {
        let ports = self.publisher().ports.of(Some(address));
        ports.into_iter().map(|(port, _)| port).collect()
    }

    /// Gives back an address with its ports. The link goes by itself with the namespace, so drop
    /// the descriptor too; if processes linger there, it is deleted after a while. Never waits for
    /// either. That nobody has the address is no error.
    ///
    /// # Errors
    /// As [`Network::unpublish`]; the address is free nevertheless.
    pub fn release(&self, address: Ipv4Addr) -> Result<(), PublishError> {
        let outcome = self.unpublish(address);
        let mut members = self.core.members();
        if let Some(veth) = members.attached.remove(&address) {
            members.veths.remove(&veth);
            members.addresses.release(address);
            drop(members);
            self.pool.defer(LINK_GRACE, Job::DeleteLink(veth));
        }
        outcome
    }

    /// What the network looks like now.
    pub fn info(&self) -> NetworkInfo {
        NetworkInfo {
            bridge: self.config.bridge.clone(),
            table: self.config.table.clone(),
            subnet: self.core.factory.subnet,
            gateway: self.core.factory.subnet.gateway(),
            mtu: self.config.mtu,
            attached: self.core.members().attached.len(),
            ready: self.pool.ready(),
            warnings: self.warnings.clone(),
        }
    }

    /// Looks for what nobody needs. The kernel removes links of ended containers a moment late, so
    /// ask again before you believe in a leak.
    ///
    /// # Errors
    /// The kernel does not list its links.
    pub fn check(&self) -> Result<Leaks, NetlinkError> {
        let links = Route::open()?.links()?;
        let ports = self.publisher().ports.of(None);
        let ready = self.pool.ready();
        let members = self.core.members();
        let prefix = self.core.factory.veth_prefix.as_str();
        let known = members.attached.len() + ready + members.unfinished;
        let taken = usize::try_from(members.addresses.taken()).unwrap_or(usize::MAX);
        Ok(Leaks {
            veths: links
                .into_iter()
                .map(|link| link.name)
                .filter(|name| name.starts_with(prefix) && !members.veths.contains(name))
                .collect(),
            addresses: taken.saturating_sub(known),
            ports: ports
                .into_iter()
                .filter(|(_, owner)| !members.attached.contains_key(owner))
                .map(|(port, _)| port)
                .collect(),
        })
    }

    /// Ends the network for good: removes its table and its bridge. For when no container is
    /// attached any more.
    ///
    /// # Errors
    /// The kernel refuses; what could be removed was.
    pub fn destroy(self) -> Result<(), NetlinkError> {
        let Self {
            config,
            table,
            publisher,
            pool,
            ..
        } = self;
        drop(pool);
        let mut publisher = publisher
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let table = table.delete(&mut publisher.socket);
        let bridge = Route::open()?.delete_link(&config.bridge);
        table.and(bridge)
    }

    fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything published, as the table is to say it.
pub(crate) fn all_forwards(ports: &PortTable) -> Vec<Forward> {
    ports
        .of(None)
        .into_iter()
        .map(|(port, address)| Forward { port, address })
        .collect()
}
