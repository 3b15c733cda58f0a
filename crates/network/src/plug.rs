//! Joining a network from a namespace that exists: of a container that runs, or that joins several
//! networks or wants a particular address.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use crate::config::{AttachError, PublishError};
use crate::endpoint::EndpointError;
use crate::netlink::NetlinkError;
use crate::network::Network;
use crate::route::Route;
use crate::types::MacAddress;

/// How a container joins.
#[derive(Debug, Clone, Copy)]
pub struct Plug<'a> {
    /// Its namespace.
    pub netns: BorrowedFd<'a>,
    /// The interface as it is to see it.
    pub interface: &'a str,
    /// The address asked for; `None` takes the next.
    pub address: Option<Ipv4Addr>,
    /// The MAC address asked for; `None` derives it from the address.
    pub mac: Option<MacAddress>,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// Address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// MAC address.
    pub mac: MacAddress,
    /// The host's end of the veth pair.
    pub host_veth: String,
}

impl Network {
    /// Adds an interface on this network to a namespace. No default route leads there yet: see
    /// [`lead_out`]. Give it back with [`Network::release`] or [`Network::unplug`].
    ///
    /// # Errors
    /// The address is taken or none is free, the interface exists, or the kernel refuses; nothing
    /// is left then.
    pub fn plug(&self, plug: &Plug<'_>) -> Result<Plugged, AttachError> {
        self.plug_announced(plug, &|_| ())
    }

    /// As [`Network::plug`]; `before` hears the name of the host's end before there is such a link,
    /// and each further one if the kernel has one already.
    ///
    /// # Errors
    /// As [`Network::plug`].
    pub fn plug_announced(
        &self,
        plug: &Plug<'_>,
        before: &dyn Fn(&str),
    ) -> Result<Plugged, AttachError> {
        let core = &self.core;
        let address = {
            let mut members = core.members();
            if members.closed {
                return Err(AttachError::Closed);
            }
            let address = match plug.address {
                Some(address) => {
                    members.addresses.reserve(address)?;
                    address
                }
                None => members.addresses.allocate()?,
            };
            members.joining += 1;
            address
        };
        let names = Mutex::new(Vec::new());
        let outcome = self.plug_at(plug, address, &|name| {
            before(name);
            core.members().veths.insert(name.to_owned());
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            names.push(name.to_owned());
        });
        let names = names.into_inner().unwrap_or_else(PoisonError::into_inner);
        if outcome.is_err()
            && let Some(name) = names.last()
            && let Ok(mut route) = Route::open()
        {
            // Before the address is given to another. The last name alone can be ours: those
            // before were taken.
            route.delete_link(name).ok();
        }
        let mut members = core.members();
        members.joining -= 1;
        let kept = outcome.as_ref().ok().map(|made| made.host_veth.as_str());
        for name in &names {
            if Some(name.as_str()) != kept {
                members.veths.remove(name);
            }
        }
        match &outcome {
            Ok(made) => {
                members.attached.insert(address, made.host_veth.clone());
            }
            Err(_) => members.addresses.release(address),
        }
        Ok(outcome?)
    }

    pub(crate) fn plug_at(
        &self,
        plug: &Plug<'_>,
        address: Ipv4Addr,
        on_name: &dyn Fn(&str),
    ) -> Result<Plugged, EndpointError> {
        let failed = |step| move |source| EndpointError::Link { step, source };
        let factory = &self.core.factory;
        let mut host = Route::open().map_err(failed("open a socket"))?;
        let mut inside = Route::within(plug.netns).map_err(failed("open a socket inside"))?;
        let existing = inside.link(plug.interface);
        if existing.map_err(failed("find the interface"))?.is_some() {
            return Err(EndpointError::InterfaceExists(plug.interface.to_owned()));
        }
        let mac = plug.mac.unwrap_or(MacAddress::from_ipv4(address));
        let host_veth = factory.plug_in(&mut host, plug.netns, plug.interface, mac, on_name)?;
        let link = inside
            .link(plug.interface)
            .map_err(failed("find the interface"))?
            .ok_or(EndpointError::Vanished)?;
        let shown = factory.ipv4.then_some(address);
        inside
            .configure_inside(link.index, shown, factory.subnet, None)
            .map_err(failed("set the address"))?;
        for name in [host_veth.as_str(), factory.bridge.as_str()] {
            host.settle(name).map_err(failed("wait for the link"))?;
        }
        Ok(Plugged {
            address,
            prefix: factory.subnet.prefix(),
            gateway: factory.gateway,
            mac,
            host_veth,
        })
    }

    /// Whether the endpoint with this address is the one with this link, not a later one.
    pub fn holds(&self, address: Ipv4Addr, host_veth: &str) -> bool {
        let members = self.core.members();
        members
            .attached
            .get(&address)
            .is_some_and(|veth| veth == host_veth)
    }

    /// As [`Network::release`], but the link is gone on return. Takes some 20 ms.
    ///
    /// # Errors
    /// The kernel refuses to take back ports; the rest was done.
    pub fn unplug(&self, address: Ipv4Addr) -> Result<(), PublishError> {
        let outcome = self.unpublish(address);
        self.leave6(address);
        let veth = self.core.members().attached.get(&address).cloned();
        if let Some(veth) = veth {
            if let Ok(mut route) = Route::open() {
                // What stays is found again by the next start's reconciliation.
                route.delete_link(&veth).ok();
            }
            let mut members = self.core.members();
            members.attached.remove(&address);
            members.veths.remove(&veth);
            members.addresses.release(address);
        }
        outcome
    }
}

/// Inside the namespace `netns`, has the default route lead to `gateway` by `interface`.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn lead_out(
    netns: BorrowedFd<'_>,
    interface: &str,
    gateway: Ipv4Addr,
) -> Result<(), EndpointError> {
    let failed = |step| move |source: NetlinkError| EndpointError::Link { step, source };
    let mut inside = Route::within(netns).map_err(failed("open a socket inside"))?;
    let link = inside
        .link(interface)
        .map_err(failed("find the interface"))?
        .ok_or(EndpointError::Vanished)?;
    inside
        .set_default_route(link.index, gateway)
        .map_err(failed("set the default route"))
}
