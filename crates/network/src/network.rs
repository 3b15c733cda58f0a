//! A network: one bridge with its subnet, table, ports and warm endpoints.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use hull_model::spec::{Protocol, PublishSpec, PublishedPort};

use crate::config::{
    AttachError, Leaks, LiveEndpoint, NetworkConfig, NetworkInfo, OpenError, PublishError,
};
use crate::core::{Core, Job, Publisher};
use crate::elements::{Change, Entry};
use crate::endpoint::Endpoint;
use crate::firewall::Firewall;
use crate::netlink::NetlinkError;
use crate::open;
use crate::pool::Pool;
use crate::route::Route;
use crate::table::{self, Forward};
use crate::table6;

/// The kernel removes a veth by itself when its namespace goes; only what is left after this long
/// (a process that still sits in the namespace) is deleted by us.
const LINK_GRACE: Duration = Duration::from_secs(2);

/// The kernel's table of flows is walked as a whole, milliseconds of work: changes that come
/// together share one walk.
pub(crate) const FLOW_DELAY: Duration = Duration::from_millis(20);

/// An open network. Dropping it ends the background thread and the ready endpoints; bridge, table
/// and attached containers stay, to be found again by the next [`Network::open`].
///
/// It belongs to the network namespace of the thread that opened it; call it from threads of the
/// same namespace.
#[derive(Debug)]
pub struct Network {
    pub(crate) config: NetworkConfig,
    pub(crate) core: Arc<Core>,
    /// Where the network's name server listens at the bridge's address; zero without one.
    name_server: AtomicU16,
    pub(crate) six: Option<crate::six::Six>,
    warnings: Vec<String>,
    // Last, so that everything its thread uses is still there when it is joined.
    pub(crate) pool: Pool<Endpoint, Job>,
}

impl Network {
    /// Opens the network: makes the bridge unless it is there, writes the table, takes over what
    /// `live` lists, and removes links of ours that belong to nobody.
    ///
    /// # Errors
    /// A name is unusable, the subnet is not free, or the kernel refuses.
    pub fn open(config: NetworkConfig, live: &[LiveEndpoint]) -> Result<Self, OpenError> {
        let parts = open::open(&config, live)?;
        let core = Arc::new(parts.core);
        let pool = Pool::start("hull-net-pool", config.pool_size, Arc::clone(&core))
            .map_err(OpenError::Thread)?;
        for stray in parts.strays {
            pool.defer(Duration::ZERO, Job::DeleteLink(stray));
        }
        Ok(Self {
            config,
            core,
            name_server: AtomicU16::new(0),
            six: parts.six,
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
        if self.core.members().closed {
            return Err(AttachError::Closed);
        }
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
        let ports = &mut publisher.ports;
        let published = ports.allocate(address, wishes)?;
        let forwards: Vec<_> = published
            .iter()
            .map(|port| Forward {
                port: *port,
                address,
            })
            .collect();
        let outcome = self.change(Change::adding(table::of_ports(&forwards)));
        if let Err(source) = outcome {
            for port in &published {
                ports.release(port);
            }
            return Err(PublishError::Kernel {
                table: self.config.firewall.name().to_owned(),
                source,
            });
        }
        drop(publisher);
        self.settle_published(&veth, &published);
        Ok(published)
    }

    /// What is done when ports were published to the container behind `veth`.
    pub(crate) fn settle_published(&self, veth: &str, published: &[PublishedPort]) {
        let udp = published.iter().filter(|port| is_udp(port));
        self.settle(
            veth,
            udp.map(|port| (port.host_ip.into(), port.host_port..=port.host_port_end())),
        );
    }

    /// The same, told those of UDP alone.
    pub(crate) fn settle(
        &self,
        veth: &str,
        udp: impl Iterator<Item = (IpAddr, RangeInclusive<u16>)>,
    ) {
        let udp: Vec<_> = udp.collect();
        if !udp.is_empty() {
            self.pool.defer(FLOW_DELAY, Job::ForgetUdpToHost(udp));
        }
        // Where bridged packets pass the firewall (br_netfilter), a container that calls its own
        // published port is answered within the bridge, by the port it came from. Others do not
        // need it, so a failure only concerns that case.
        if let Ok(mut route) = Route::open() {
            route.set_hairpin(veth).ok();
        }
    }

    /// Takes back all ports of the container at `address`; that there are none is no error. The
    /// ports are free afterwards even if the kernel refuses, which rebuilding the table repairs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unpublish(&self, address: Ipv4Addr) -> Result<(), PublishError> {
        let mut publisher = self.publisher();
        let ports = &mut publisher.ports;
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
        let outcome = self.change(Change::removing(table::of_ports(&forwards)));
        if forwards.iter().any(|forward| is_udp(&forward.port)) {
            self.pool
                .defer(FLOW_DELAY, Job::ForgetFlows(address.into()));
        }
        outcome.map_err(|source| PublishError::Kernel {
            table: self.config.firewall.name().to_owned(),
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
        self.leave6(address);
        let mut members = self.core.members();
        if let Some(veth) = members.attached.remove(&address) {
            members.veths.remove(&veth);
            members.addresses.release(address);
            drop(members);
            self.pool.defer(LINK_GRACE, Job::DeleteLink(veth));
        }
        outcome
    }

    /// The table that it shares with others.
    pub fn firewall(&self) -> &Arc<Firewall> {
        &self.config.firewall
    }

    /// The bridge's address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.core.factory.gateway
    }

    /// What the network looks like now.
    pub fn info(&self) -> NetworkInfo {
        NetworkInfo {
            bridge: self.config.bridge.clone(),
            table: self.config.firewall.name().to_owned(),
            subnet: self.core.factory.subnet,
            gateway: self.core.factory.gateway,
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
        let subnet = self.core.factory.subnet;
        let ready = self.pool.ready();
        let members = self.core.members();
        let prefix = self.core.factory.veth_prefix.as_str();
        let known = members.attached.len() + ready + members.unfinished + members.joining;
        let taken = members.addresses.taken();
        Ok(Leaks {
            veths: links
                .into_iter()
                .map(|link| link.name)
                .filter(|name| name.starts_with(prefix) && !members.veths.contains(name))
                .collect(),
            addresses: taken.saturating_sub(known),
            ports: ports
                .into_iter()
                .filter(|(_, owner)| {
                    subnet.contains(*owner) && !members.attached.contains_key(owner)
                })
                .map(|(port, _)| port)
                .collect(),
        })
    }

    /// Ends the network for good: removes its elements and its bridge, and lets nobody join any more.
    /// That it is in use it tells by how many containers are in it, and does nothing then.
    ///
    /// # Errors
    /// The kernel refuses; what could be removed was.
    pub fn destroy(&self) -> Result<usize, NetlinkError> {
        {
            let mut members = self.core.members();
            let users = members.attached.len() + members.joining;
            if users > 0 {
                return Ok(users);
            }
            members.closed = true;
        }
        self.pool.drain();
        let subnet = self.core.factory.subnet;
        let policy = self.config.policy;
        let mut elements = table::of_network(&self.config.bridge, subnet, policy);
        elements.extend(self.name_server_elements());
        let six = self.six.iter();
        elements.extend(six.flat_map(|six| six.elements(policy)));
        let rules = self.change(Change::removing(elements));
        let bridge = Route::open()?.delete_link(&self.config.bridge);
        rules.and(bridge).map(|()| 0)
    }

    /// Has questions to the bridge's address answered by whoever listens there on `port`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_name_server(&self, port: u16) -> Result<(), NetlinkError> {
        let remove = self.name_server_elements();
        self.name_server.store(port, Ordering::Relaxed);
        let add = self.name_server_elements();
        self.change(Change { remove, add })
    }

    fn name_server_elements(&self) -> Vec<(&'static str, Entry)> {
        match self.name_server.load(Ordering::Relaxed) {
            0 => Vec::new(),
            port if !self.config.ipv4 => self.info6().map_or(Vec::new(), |six| {
                table6::of_name_server(&self.config.bridge, six.gateway, port)
            }),
            port => table::of_name_server(&self.config.bridge, self.gateway(), port),
        }
    }

    pub(crate) fn change(&self, change: Change) -> Result<(), NetlinkError> {
        self.config.firewall.change(change)
    }

    pub(crate) fn publisher(&self) -> MutexGuard<'_, Publisher> {
        self.config.firewall.publisher()
    }
}

fn is_udp(port: &PublishedPort) -> bool {
    port.container.protocol == Protocol::Udp
}
