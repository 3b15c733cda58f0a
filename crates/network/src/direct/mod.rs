//! Networks whose wire is not ours: containers sit on an interface of the host (macvlan, ipvlan) or
//! on a bridge on which Hull has no address.
//!
//! ```text
//! host's eth0 ──┬── macvlan in container A      the LAN sees each container as a host of its own;
//!               └── macvlan in container B      the host itself does not reach them by eth0
//! ```
//!
//! No packet of theirs passes a rule of Hull's: there is no masquerade, no published port, no name
//! server. What a container's interface leaves behind goes with its namespace.

mod parent;
mod six;
mod upper;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr::{AddressError, AddressPool};
use crate::addr6::AddressPool6;
use crate::config::AttachError;
use crate::config6::Config6;
use crate::endpoint::EndpointError;
use crate::netlink::NetlinkError;
use crate::plug::Plug;
use crate::route::{Route, Veth};
use crate::types::{MacAddress, Subnet};

pub use parent::{DirectError, remove_parent};
pub use upper::{IpvlanFlag, IpvlanMode, MacvlanMode, Upper};

/// What the wire is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// Links on an interface of the host.
    Upper {
        /// Their kind.
        upper: Upper,
        /// The interface; it may be a VLAN that is not there yet, `eth0.10`.
        parent: String,
        /// The parent is a dummy of ours, which leads nowhere.
        dummy: bool,
    },
    /// A bridge on which the host's end of each container's veth is a port.
    Bridge {
        /// Its name.
        bridge: String,
        /// What the veths' names begin with.
        veth_prefix: String,
    },
}

/// What a network is to be.
#[derive(Debug, Clone)]
pub struct DirectConfig {
    /// The wire.
    pub wire: Wire,
    /// Addresses that Hull gives; `None` leaves them to others, such as a DHCP server.
    pub subnet: Option<Subnet>,
    /// Where the default route leads; the first of the subnet if none.
    pub gateway: Option<Ipv4Addr>,
    /// Where addresses that nobody asked for come from; `None` is the whole subnet.
    pub range: Option<Subnet>,
    /// Addresses that no container is given.
    pub reserved: Vec<Ipv4Addr>,
    /// Its IPv6 half.
    pub v6: Option<Config6>,
    /// Largest packet in bytes; `None` takes the parent's.
    pub mtu: Option<u32>,
}

/// A container's place on such a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectPlace {
    /// Address, if Hull gave one.
    pub address: Option<Ipv4Addr>,
    /// Length of its prefix.
    pub prefix: u8,
    /// Where the default route may lead; `None` with an address means by the interface itself.
    pub gateway: Option<Ipv4Addr>,
    /// MAC address.
    pub mac: MacAddress,
    /// Tells this place from a later one with its address.
    pub mark: String,
}

#[derive(Debug)]
struct Members {
    addresses: Option<AddressPool>,
    /// Who is there: the mark, and the address if there is one.
    places: HashMap<String, Option<Ipv4Addr>>,
    addresses6: Option<AddressPool6>,
    places6: HashMap<String, Ipv6Addr>,
    joining: usize,
    closed: bool,
}

/// An open network. Dropping it leaves all as it is.
#[derive(Debug)]
pub struct DirectNetwork {
    config: DirectConfig,
    members: Mutex<Members>,
    counter: AtomicU32,
}

impl DirectNetwork {
    /// Opens the network: finds its parent, or makes it where it is ours to make.
    ///
    /// # Errors
    /// There is no such parent, the kernel lacks the kind of link, or what was chosen is not in the
    /// subnet.
    pub fn open(config: DirectConfig) -> Result<Self, DirectError> {
        let addresses6 = six::pool(&config)?;
        parent::prepare(&config)?;
        let addresses = match config.subnet {
            None => None,
            Some(subnet) => {
                let gateway = config.gateway.unwrap_or(subnet.gateway());
                parent::check_inside(&config, subnet, gateway)?;
                let pool = AddressPool::new(subnet, gateway, config.range, &config.reserved);
                Some(pool.map_err(DirectError::Subnet)?)
            }
        };
        let start = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.subsec_nanos().rotate_left(8));
        Ok(Self {
            members: Mutex::new(Members {
                addresses,
                places: HashMap::new(),
                addresses6,
                places6: HashMap::new(),
                joining: 0,
                closed: false,
            }),
            config,
            counter: AtomicU32::new(start),
        })
    }

    /// What it is.
    pub fn config(&self) -> &DirectConfig {
        &self.config
    }

    /// The address to which default routes lead; `None` if there is none.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let subnet = self.config.subnet?;
        match self.config.wire {
            Wire::Upper {
                upper: Upper::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _),
                ..
            } => None,
            _ => Some(self.config.gateway.unwrap_or(subnet.gateway())),
        }
    }

    /// Adds an interface on this network to a namespace. No default route leads there yet.
    ///
    /// # Errors
    /// The address is taken or none is free, the parent is gone, the interface exists, or the
    /// kernel refuses; nothing is left then.
    pub fn plug(&self, plug: &Plug<'_>) -> Result<DirectPlace, AttachError> {
        let address = self.reserve(plug.address)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let outcome = self.plug_at(plug, address, number);
        let mut members = self.members();
        members.joining -= 1;
        match outcome {
            Ok((mac, mark)) => {
                members.places.insert(mark.clone(), address);
                Ok(DirectPlace {
                    address,
                    prefix: self.config.subnet.map_or(0, Subnet::prefix),
                    gateway: self.gateway(),
                    mac,
                    mark,
                })
            }
            Err(error) => {
                if let (Some(address), Some(pool)) = (address, &mut members.addresses) {
                    pool.release(address);
                }
                Err(error.into())
            }
        }
    }

    fn reserve(&self, wanted: Option<Ipv4Addr>) -> Result<Option<Ipv4Addr>, AttachError> {
        let mut members = self.members();
        let passthru = matches!(
            self.config.wire,
            Wire::Upper {
                upper: Upper::Macvlan(MacvlanMode::Passthru),
                ..
            }
        );
        if members.closed {
            return Err(AttachError::Closed);
        }
        if passthru && members.places.len() + members.joining > 0 {
            return Err(EndpointError::ParentTaken.into());
        }
        let address = match (&mut members.addresses, wanted) {
            (None, None) => None,
            (None, Some(address)) => {
                return Err(AddressError::NotManaged(address).into());
            }
            (Some(pool), Some(address)) => {
                pool.reserve(address)?;
                Some(address)
            }
            (Some(pool), None) => Some(pool.allocate()?),
        };
        members.joining += 1;
        Ok(address)
    }

    fn plug_at(
        &self,
        plug: &Plug<'_>,
        address: Option<Ipv4Addr>,
        number: u32,
    ) -> Result<(MacAddress, String), EndpointError> {
        let failed = |step| move |source: NetlinkError| EndpointError::Link { step, source };
        let mut host = Route::open().map_err(failed("open a socket"))?;
        let mut inside = Route::within(plug.netns).map_err(failed("open a socket inside"))?;
        let existing = inside.link(plug.interface);
        if existing.map_err(failed("find the interface"))?.is_some() {
            return Err(EndpointError::InterfaceExists(plug.interface.to_owned()));
        }
        let (mac, mark) = match &self.config.wire {
            Wire::Upper { upper, parent, .. } => {
                let own = self.mac(plug.mac, address, number);
                let mac = (!matches!(upper, Upper::Ipvlan(..))
                    && *upper != Upper::Macvlan(MacvlanMode::Passthru))
                .then_some(own);
                let link = host.link(parent).map_err(failed("find the parent"))?;
                let link = link.ok_or_else(|| EndpointError::NoParent(parent.clone()))?;
                let new = upper::NewUpper {
                    upper: *upper,
                    parent: link.index,
                    name: plug.interface,
                    mac,
                    mtu: self.config.mtu,
                    netns: Some(plug.netns),
                };
                upper::create_upper(&mut host, &new).map_err(|source| {
                    // Each interface takes links of one kind alone.
                    if source.errno() == Some(libc::EBUSY) {
                        return EndpointError::ParentTaken;
                    }
                    failed("create a link on the parent")(source)
                })?;
                (own, format!("on-{number:08x}"))
            }
            Wire::Bridge {
                bridge,
                veth_prefix,
            } => {
                let mac = self.mac(plug.mac, address, number);
                let link = host.link(bridge).map_err(failed("find the bridge"))?;
                let link = link.ok_or_else(|| EndpointError::NoParent(bridge.clone()))?;
                let name = format!("{veth_prefix}{:06x}", number & 0xff_ffff);
                let veth = Veth {
                    host_name: &name,
                    master: link.index,
                    mtu: self.config.mtu.unwrap_or(1500),
                    peer_name: plug.interface,
                    peer_mac: mac,
                    peer_namespace: plug.netns,
                };
                host.create_veth(&veth)
                    .map_err(failed("create a veth pair"))?;
                (mac, name)
            }
        };
        if address.is_none() {
            crate::route::learn6(plug.netns, plug.interface);
        }
        let configured = self.configure(&mut inside, plug.interface, address);
        if configured.is_err() {
            // The address may be given to another at once.
            inside.delete_link(plug.interface).ok();
        }
        Ok((configured?.unwrap_or(mac), mark))
    }

    /// Brings the interface up, with its address; answers the MAC address that it has where it
    /// chose none.
    fn configure(
        &self,
        inside: &mut Route,
        interface: &str,
        address: Option<Ipv4Addr>,
    ) -> Result<Option<MacAddress>, EndpointError> {
        let failed = |step| move |source: NetlinkError| EndpointError::Link { step, source };
        let link = inside
            .link(interface)
            .map_err(failed("find the interface"))?
            .ok_or(EndpointError::Vanished)?;
        let prefix = self.config.subnet.map_or(32, Subnet::prefix);
        let address = address.map(|address| (address, prefix));
        upper::configure(inside, link.index, address).map_err(failed("set the address"))?;
        Ok(link.mac)
    }

    fn mac(&self, asked: Option<MacAddress>, address: Option<Ipv4Addr>, number: u32) -> MacAddress {
        let derived = || match address {
            Some(address) => MacAddress::from_ipv4(address),
            None => {
                // Whoever gives addresses knows hosts by these.
                let mut bytes = [0; 4];
                let flags = rustix::rand::GetRandomFlags::empty();
                if rustix::rand::getrandom(&mut bytes, flags).is_err() {
                    bytes = number.to_be_bytes();
                }
                let [a, b, c, d] = bytes;
                MacAddress([0x02, 0x42, a, b, c, d])
            }
        };
        asked.unwrap_or_else(derived)
    }

    /// Takes in a place that was made before this network was opened; an unspecified address is
    /// none.
    pub fn adopt(&self, mark: &str, address: Ipv4Addr) {
        let address = Some(address).filter(|address| !address.is_unspecified());
        let mut members = self.members();
        if members.places.contains_key(mark) {
            return;
        }
        if let (Some(address), Some(pool)) = (address, &mut members.addresses) {
            // Two with one address cannot be helped while they run.
            pool.reserve(address).ok();
        }
        members.places.insert(mark.to_owned(), address);
    }

    /// Gives a place back whose interface goes with its namespace. That nobody has it is no error.
    pub fn release(&self, mark: &str) {
        self.leave6(mark);
        let mut members = self.members();
        if let Some(Some(address)) = members.places.remove(mark)
            && let Some(pool) = &mut members.addresses
        {
            pool.release(address);
        }
    }

    /// Takes the interface out of a namespace that goes on, and gives the place back.
    ///
    /// # Errors
    /// The kernel refuses; the place is given back nevertheless.
    pub fn unplug(
        &self,
        mark: &str,
        netns: std::os::fd::BorrowedFd<'_>,
        interface: &str,
    ) -> Result<(), NetlinkError> {
        let outcome = Route::within(netns).and_then(|mut inside| inside.delete_link(interface));
        self.release(mark);
        outcome
    }

    /// Ends the network: nobody joins any more. That it is in use it tells by how many are there,
    /// and does nothing then.
    pub fn close(&self) -> usize {
        let mut members = self.members();
        let users = members.places.len() + members.joining;
        members.closed |= users == 0;
        users
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
