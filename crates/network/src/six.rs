//! The IPv6 half of a network: the bridge's addresses, and those of the containers.
//!
//! It stands beside the IPv4 half. A container's place on a network is known by its IPv4 address;
//! on networks without IPv4 that is a number of 0.0.0.0/8, on no link.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::addr6::{self, Address6Error, AddressPool6};
use crate::config::{AttachError, LiveEndpoint, NetworkConfig, OpenError};
use crate::config6::{Config6, Info6, Place6};
use crate::endpoint::EndpointError;
use crate::host6;
use crate::netlink::NetlinkError;
use crate::network::Network;
use crate::route::Route;
use crate::types::MacAddress;
use crate::types6::{Subnet6, link_local};

/// Who has which address.
#[derive(Debug)]
pub(crate) struct Members6 {
    pool: AddressPool6,
    given: HashMap<Ipv4Addr, Ipv6Addr>,
}

/// The IPv6 half of an open network.
#[derive(Debug)]
pub(crate) struct Six {
    pub(crate) config: Config6,
    members: Mutex<Members6>,
}

impl Six {
    pub(crate) fn members(&self) -> MutexGuard<'_, Members6> {
        // Each change leaves both halves consistent; a panic within none of them is possible.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the addresses on the bridge, and takes over those of `live`. Answers warnings too.
    pub(crate) fn open(
        network: &NetworkConfig,
        config: &Config6,
        live: &[LiveEndpoint],
    ) -> Result<(Self, Vec<String>), OpenError> {
        let mut pool = AddressPool6::new(config).map_err(OpenError::Subnet6)?;
        let mut warnings = set_up(network, config)?;
        let mut given = HashMap::new();
        for endpoint in live {
            let Some(address) = endpoint.address6 else {
                continue;
            };
            if let Err(error) = pool.reserve(address) {
                warnings.push(format!("a running container's {error}"));
            }
            given.insert(endpoint.address, address);
        }
        let six = Self {
            config: config.clone(),
            members: Mutex::new(Members6 { pool, given }),
        };
        Ok((six, warnings))
    }

    fn place(&self, address: Ipv6Addr) -> Place6 {
        Place6 {
            address,
            prefix: self.config.subnet.prefix(),
            gateway: self.config.gateway,
        }
    }
}

/// Checks the configuration and puts the addresses on the bridge, which exists; doing so again
/// changes nothing.
fn set_up(network: &NetworkConfig, config: &Config6) -> Result<Vec<String>, OpenError> {
    let bridge = network.bridge.as_str();
    let kernel = |step| {
        move |source: NetlinkError| OpenError::Kernel {
            step,
            bridge: bridge.to_owned(),
            source,
        }
    };
    if let Some((what, address)) = config.outside() {
        return Err(OpenError::Outside6 {
            what,
            address,
            subnet: config.subnet,
        });
    }
    let mut warnings = Vec::new();
    if host6::bridged_packets_are_filtered() {
        warnings.push(format!(
            "ports published by containers on {bridge} are not reachable by ::1: bridged packets \
             pass the firewall (net.bridge.bridge-nf-call-ip6tables)"
        ));
    }
    let mut route = Route::open().map_err(kernel("open a socket"))?;
    let link = route.link(bridge).map_err(kernel("find the link"))?;
    let index = link.map_or(0, |link| link.index);
    let others = occupied(&mut route, index).map_err(kernel("list IPv6 routes"))?;
    if let Some(other) = addr6::first_overlap(config.subnet, &others) {
        return Err(OpenError::Overlap6 {
            subnet: config.subnet,
            other,
        });
    }
    // Where IPv6 is off for the whole kernel there is nothing to switch.
    host6::prepare_bridge(bridge).map_err(|source| {
        kernel("switch IPv6 on")(NetlinkError::Socket {
            step: "write its switches",
            source,
        })
    })?;
    route
        .without_own_address6(index)
        .map_err(kernel("set the IPv6 mode"))?;
    let loopback = route
        .set_bridge6(index, config.gateway, config.subnet.prefix())
        .map_err(kernel("set the IPv6 address"))?;
    if let Some(error) = loopback {
        warnings.push(format!("published ports are not reachable by ::1: {error}"));
    }
    if let Err(error) = host6::enable_forwarding(&mut route) {
        warnings.push(format!(
            "containers cannot reach other hosts by IPv6: the host does not forward packets \
             (net.ipv6.conf.all.forwarding): {error}"
        ));
    }
    Ok(warnings)
}

/// Every IPv6 subnet that the host uses but by the interface `except`.
fn occupied(route: &mut Route, except: u32) -> Result<Vec<Subnet6>, NetlinkError> {
    let addresses = route.addresses6()?.into_iter();
    let mut all: Vec<(u32, Subnet6)> = addresses
        .map(|(index, subnet, _)| (index, subnet))
        .collect();
    all.extend(route.routes6()?);
    let foreign = all.into_iter().filter(|(index, subnet)| {
        // What is on every link, or leads nowhere, is in nobody's way.
        (except == 0 || *index != except) && subnet.is_usable()
    });
    Ok(foreign.map(|(_, subnet)| subnet).collect())
}

fn survey() -> Result<Vec<Subnet6>, OpenError> {
    let listed = Route::open().and_then(|mut route| occupied(&mut route, 0));
    listed.map_err(|source| OpenError::Kernel {
        step: "list the host's IPv6 subnets for the sake",
        bridge: "to be made".to_owned(),
        source,
    })
}

/// A subnet of the prefix `fd` and `global` that neither the host uses nor `taken` lists.
///
/// # Errors
/// There is none, or the kernel does not tell.
pub fn free_subnet6(global: [u8; 5], taken: &[Subnet6]) -> Result<Subnet6, OpenError> {
    let mut all = survey()?;
    all.extend(taken);
    addr6::choose(global, &all).map_err(OpenError::Subnet6)
}

/// What shares an address with `subnet`: something of the host's or in `taken`.
///
/// # Errors
/// The kernel does not tell.
pub fn overlap6(subnet: Subnet6, taken: &[Subnet6]) -> Result<Option<Subnet6>, OpenError> {
    let mut all = survey()?;
    all.extend(taken);
    Ok(addr6::first_overlap(subnet, &all))
}

/// Whether the host is part of the IPv6 internet: it has a global address and a default route.
pub fn host_has_ipv6() -> bool {
    let look = || {
        let mut route = Route::open()?;
        let global = route.addresses6()?.iter().any(|(.., address)| {
            // 2000::/3; 6to4, Teredo and documentation are not told apart.
            address.segments().first().is_some_and(|s| s >> 13 == 1)
        });
        let default = route
            .routes6()?
            .iter()
            .any(|(index, subnet)| subnet.prefix() == 0 && *index > crate::route::LOOPBACK_INDEX);
        Ok::<_, NetlinkError>(global && default)
    };
    look().unwrap_or(false)
}

impl Network {
    /// Gives the container at `key` an IPv6 address on the interface that it has on this network;
    /// `None` if the network has no IPv6. It goes with [`Network::release`] or
    /// [`Network::unplug`]. No default route leads there yet: see [`lead_out6`].
    ///
    /// # Errors
    /// The address is taken or none is free, or the kernel refuses; nothing is left then.
    pub fn plug6(
        &self,
        key: Ipv4Addr,
        netns: BorrowedFd<'_>,
        interface: &str,
        mac: MacAddress,
        wanted: Option<Ipv6Addr>,
    ) -> Result<Option<Place6>, AttachError> {
        let Some(six) = &self.six else {
            return match wanted {
                Some(_) => Err(Address6Error::None.into()),
                None => Ok(None),
            };
        };
        let (address, is_new) = {
            let mut members = six.members();
            let known = members.given.get(&key).copied();
            let address = match wanted {
                // Its interface was lost, and has been made anew.
                Some(address) if known == wanted => address,
                Some(address) => {
                    members.pool.reserve(address)?;
                    address
                }
                None => members.pool.allocate()?,
            };
            members.given.insert(key, address);
            (address, known != Some(address))
        };
        let failed = |step| move |source| EndpointError::Link { step, source };
        let set = || {
            let mut inside =
                Route::within6(netns, interface).map_err(failed("switch IPv6 on inside"))?;
            let link = inside
                .link(interface)
                .map_err(failed("find the interface"))?
                .ok_or(EndpointError::Vanished)?;
            let prefix = six.config.subnet.prefix();
            inside
                .add_addresses6(link.index, address, prefix, link_local(mac))
                .map_err(failed("set the IPv6 address"))
        };
        match set() {
            Ok(()) => Ok(Some(six.place(address))),
            Err(error) => {
                if is_new {
                    self.leave6(key);
                }
                Err(error.into())
            }
        }
    }

    /// Gives the IPv6 address of the container at `key` back, and its ports.
    pub(crate) fn leave6(&self, key: Ipv4Addr) {
        // The ports are free whatever happens; what is left in the table is repaired by the next
        // that fails.
        self.unpublish6(key).ok();
        if let Some(six) = &self.six {
            let mut members = six.members();
            if let Some(address) = members.given.remove(&key) {
                members.pool.release(address);
            }
        }
    }

    /// The IPv6 address of the container at `key`.
    pub(crate) fn address6_of(&self, key: Ipv4Addr) -> Option<Ipv6Addr> {
        let six = self.six.as_ref()?;
        six.members().given.get(&key).copied()
    }

    /// The IPv6 half, if there is one.
    pub fn info6(&self) -> Option<Info6> {
        self.six.as_ref().map(|six| Info6 {
            subnet: six.config.subnet,
            gateway: six.config.gateway,
        })
    }

    /// Puts back what the bridge must have for IPv6 after it was made anew.
    ///
    /// # Errors
    /// As [`Network::open`].
    pub fn repair6(&self) -> Result<(), OpenError> {
        match &self.six {
            Some(six) => set_up(&self.config, &six.config).map(|_| ()),
            None => Ok(()),
        }
    }
}

/// Inside the namespace `netns`, has the IPv6 default route lead to `gateway` by `interface`.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn lead_out6(
    netns: BorrowedFd<'_>,
    interface: &str,
    gateway: Ipv6Addr,
) -> Result<(), EndpointError> {
    let failed = |step| move |source: NetlinkError| EndpointError::Link { step, source };
    let mut inside = Route::within(netns).map_err(failed("open a socket inside"))?;
    let link = inside
        .link(interface)
        .map_err(failed("find the interface"))?
        .ok_or(EndpointError::Vanished)?;
    inside
        .set_default_route6(link.index, gateway)
        .map_err(failed("set the IPv6 default route"))
}
