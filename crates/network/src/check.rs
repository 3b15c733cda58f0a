//! Compares what a network should be with what the kernel has, and puts it right.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

use crate::config::{AttachError, OpenError};
use crate::endpoint::EndpointError;
use crate::fault::{Fault, Part};
use crate::host;
use crate::netlink::NetlinkError;
use crate::network::Network;
use crate::plug::{Plug, Plugged};
use crate::route::Route;
use crate::types::MacAddress;

/// What was put right, and what is left to the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mended {
    /// The bridge was made anew: whoever listens at its address must do so again.
    pub bridge_made: bool,
    /// Attached containers whose links are gone: see [`Network::replug`].
    pub unplugged: Vec<Ipv4Addr>,
}

/// What is asked of a container's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sound,
    Gone,
    /// Not a port of the bridge, or down.
    Loose,
}

impl Network {
    /// What is not as it should be, but for the firewall's table, which is all networks'
    /// ([`crate::Firewall::examine`]).
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn examine(&self) -> Result<Vec<Fault>, NetlinkError> {
        let bridge = self.config.bridge.as_str();
        let mut route = Route::open()?;
        let mut faults = Vec::new();
        let link = route.link(bridge)?;
        match &link {
            None => faults.push(Fault::new(Part::Link, format!("{bridge} is missing"))),
            Some(link) if link.kind != "bridge" => {
                let text = format!("{bridge} is no bridge but {}", link.kind);
                faults.push(Fault::new(Part::Link, text));
            }
            Some(link) => {
                if !link.up {
                    faults.push(Fault::new(Part::Link, format!("{bridge} is down")));
                }
                faults.extend(self.missing_addresses(&mut route, link.index)?);
                faults.extend(self.wrong_settings());
            }
        }
        let index = link.map_or(0, |link| link.index);
        for (address, veth) in self.attached() {
            let who = format!("{} (link {veth})", self.shown(address));
            let text = match state(&mut route, &veth, index)? {
                State::Sound => continue,
                State::Gone => format!("the link of {who} is gone"),
                State::Loose => format!("the link of {who} is not connected to {bridge}"),
            };
            faults.push(Fault::new(Part::Endpoint, text));
        }
        faults.sort();
        Ok(faults)
    }

    fn missing_addresses(&self, route: &mut Route, index: u32) -> Result<Vec<Fault>, NetlinkError> {
        let bridge = self.config.bridge.as_str();
        let mut wanted: Vec<IpAddr> = Vec::new();
        if self.config.ipv4 {
            wanted.push(self.gateway().into());
        }
        wanted.extend(self.info6().map(|v6| IpAddr::from(v6.gateway)));
        let mut found: HashSet<IpAddr> = HashSet::new();
        let addresses = route.addresses()?.into_iter();
        found.extend(
            addresses
                .filter(|(owner, ..)| *owner == index)
                .map(|(.., address)| IpAddr::from(address)),
        );
        if self.six.is_some() {
            let addresses = route.addresses6()?.into_iter();
            found.extend(
                addresses
                    .filter(|(owner, ..)| *owner == index)
                    .map(|(.., address)| IpAddr::from(address)),
            );
        }
        let missing = wanted.into_iter().filter(|a| !found.contains(a));
        let fault = |a| Fault::new(Part::Address, format!("{bridge} lacks its address {a}"));
        Ok(missing.map(fault).collect())
    }

    /// Switches that were set when the network was opened; one that the kernel does not have is no
    /// fault.
    fn wrong_settings(&self) -> Vec<Fault> {
        let bridge = self.config.bridge.as_str();
        let mut wanted = vec![
            (format!("ipv4/conf/{bridge}/route_localnet"), "1"),
            ("ipv4/ip_forward".to_owned(), "1"),
        ];
        match self.six {
            None => wanted.push((format!("ipv6/conf/{bridge}/disable_ipv6"), "1")),
            Some(_) => {
                wanted.push((format!("ipv6/conf/{bridge}/disable_ipv6"), "0"));
                wanted.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
            }
        }
        let wrong = wanted.into_iter().filter_map(|(path, value)| {
            let found = host::get(&path).ok().filter(|found| found != value)?;
            let name = format!("net.{}", path.replace('/', "."));
            Some(format!("{name} is {found} and should be {value}"))
        });
        wrong.map(|text| Fault::new(Part::Setting, text)).collect()
    }

    /// Makes the bridge what it should be and connects the containers to it again. What is right is
    /// left alone; flows go on.
    ///
    /// # Errors
    /// The kernel refuses; what could be put right was.
    pub fn mend(&self) -> Result<Mended, OpenError> {
        let bridge = self.config.bridge.as_str();
        let kernel = |step| {
            move |source: NetlinkError| OpenError::Kernel {
                step,
                bridge: bridge.to_owned(),
                source,
            }
        };
        let mut mended = Mended::default();
        if self.core.members().closed {
            return Ok(mended);
        }
        let factory = &self.core.factory;
        let mut route = Route::open().map_err(kernel("open a socket"))?;
        let mut link = route.link(bridge).map_err(kernel("find the link"))?;
        if link.is_none() {
            let mac = MacAddress::from_ipv4(factory.gateway);
            route
                .create_bridge(bridge, mac, self.config.mtu)
                .map_err(kernel("create the link"))?;
            link = route.link(bridge).map_err(kernel("find the link"))?;
            mended.bridge_made = true;
        }
        let index = match link {
            Some(link) if link.kind == "bridge" => link.index,
            other => {
                return Err(OpenError::NotABridge {
                    bridge: bridge.to_owned(),
                    kind: other.map_or_else(String::new, |link| link.kind),
                });
            }
        };
        if factory.bridge_index.swap(index, Ordering::Relaxed) != index {
            mended.bridge_made = true;
        }
        let up = if self.config.ipv4 {
            route.set_address_and_up(index, factory.gateway, factory.subnet.prefix())
        } else {
            route.up(index)
        };
        up.map_err(kernel("set the address"))?;
        // What cannot be set is found again by the next examination.
        host::prepare_bridge(bridge, self.six.is_some());
        host::enable_forwarding().ok();
        self.repair6()?;
        mended.unplugged = self
            .reconnect(&mut route, index)
            .map_err(kernel("connect the containers"))?;
        Ok(mended)
    }

    /// Connects links to the bridge that are not; answers whose are gone.
    fn reconnect(&self, route: &mut Route, index: u32) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let mut gone = HashSet::new();
        let all: Vec<String> = self.core.members().veths.iter().cloned().collect();
        for veth in all {
            match state(route, &veth, index)? {
                State::Sound => {}
                State::Gone => {
                    gone.insert(veth);
                }
                State::Loose => {
                    let Some(link) = route.link(&veth)? else {
                        continue;
                    };
                    route.set_master(&[link.index], index)?;
                    if !self.core.factory.icc {
                        route.set_isolated(&veth)?;
                    }
                }
            }
        }
        for endpoint in self.pool.extract(|ready| gone.contains(&ready.host_veth)) {
            let mut members = self.core.members();
            members.veths.remove(&endpoint.host_veth);
            members.addresses.release(endpoint.address);
        }
        let attached = self.attached().into_iter();
        let lost = attached.filter(|(_, veth)| gone.contains(veth));
        Ok(lost.map(|(address, _)| address).collect())
    }

    /// Makes a new interface for an attached container whose link is gone, with the address it has.
    /// No default route leads there yet. `None` if it is attached no more, or its link is there.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left then.
    pub fn replug(
        &self,
        address: Ipv4Addr,
        plug: &Plug<'_>,
    ) -> Result<Option<Plugged>, EndpointError> {
        self.replug_announced(address, plug, &|_| ())
    }

    /// As [`Network::replug`]; `before` hears the name of the host's end before there is such a
    /// link.
    ///
    /// # Errors
    /// As [`Network::replug`].
    pub fn replug_announced(
        &self,
        address: Ipv4Addr,
        plug: &Plug<'_>,
        before: &dyn Fn(&str),
    ) -> Result<Option<Plugged>, EndpointError> {
        let core = &self.core;
        let failed = |step| move |source| EndpointError::Link { step, source };
        let mut host = Route::open().map_err(failed("open a socket"))?;
        let old = core.members().attached.get(&address).cloned();
        let Some(old) = old else { return Ok(None) };
        let link = host.link(&old);
        if link.map_err(failed("find the interface"))?.is_some() {
            return Ok(None);
        }
        let names = std::sync::Mutex::new(Vec::new());
        let outcome = self.plug_at(plug, address, &|name| {
            before(name);
            core.members().veths.insert(name.to_owned());
            let mut names = names
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            names.push(name.to_owned());
        });
        let names = names
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let kept = outcome.as_ref().ok().map(|made| made.host_veth.clone());
        if kept.is_none()
            && let Some(name) = names.last()
        {
            host.delete_link(name).ok();
        }
        let mut members = core.members();
        members
            .veths
            .retain(|name| Some(name) == kept.as_ref() || !names.contains(name));
        if let Some(kept) = kept {
            members.veths.remove(&old);
            if let Some(veth) = members.attached.get_mut(&address) {
                *veth = kept;
            }
        }
        drop(members);
        let made = outcome?;
        if !self.published(address).is_empty() {
            // As when they were published.
            host.set_hairpin(&made.host_veth).ok();
        }
        if let Some(address6) = self.address6_of(address) {
            let given = self.plug6(
                address,
                plug.netns,
                plug.interface,
                made.mac,
                Some(address6),
            );
            if let Err(AttachError::Endpoint(error)) = given {
                return Err(error);
            }
        }
        Ok(Some(made))
    }

    /// Whether the network is concerned when the link `name` goes: it is its bridge, or the link of
    /// a container that is attached or will be.
    pub fn has_link(&self, name: &str) -> bool {
        let prefix = self.core.factory.veth_prefix.as_str();
        name == self.config.bridge
            || name.starts_with(prefix) && self.core.members().veths.contains(name)
    }

    /// Whether its bridge has this index.
    pub fn has_index(&self, index: u32) -> bool {
        self.core.factory.bridge_index.load(Ordering::Relaxed) == index
    }

    fn attached(&self) -> Vec<(Ipv4Addr, String)> {
        let members = self.core.members();
        let attached = members.attached.iter();
        attached.map(|(a, veth)| (*a, veth.clone())).collect()
    }

    /// A container's address as its user knows it.
    fn shown(&self, address: Ipv4Addr) -> String {
        if self.config.ipv4 {
            address.to_string()
        } else {
            "a container".to_owned()
        }
    }
}

fn state(route: &mut Route, veth: &str, bridge: u32) -> Result<State, NetlinkError> {
    Ok(match route.link(veth)? {
        None => State::Gone,
        Some(link) if link.master == bridge && link.up => State::Sound,
        Some(_) => State::Loose,
    })
}
