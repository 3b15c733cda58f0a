//! Networks whose wire is not ours: macvlan and ipvlan links on an interface of the host, and
//! bridges on which others give the addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use hull_model::{Error, ErrorKind, Result};
use hull_network::{
    DirectConfig, DirectError, DirectNetwork, IpvlanFlag, IpvlanMode, MacvlanMode, Plug, Subnet,
    Subnet6, Upper, Wire,
};
use hull_state::{Endpoint, Endpoint6, Join, NetworkRecord, Place};

use super::make::{Created, NewNetwork};
use super::own::{self, OwnNetwork, option};
use crate::Engine;

/// Options of macvlan and ipvlan by Docker's names.
const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
/// IFNAMSIZ less the zero byte.
const LONGEST_INTERFACE: usize = 15;
/// What a dummy's name begins with, as Docker's.
const DUMMY_PREFIX: &str = "dm-";

/// Whether a record is of such a network.
pub(super) fn applies(record: &NetworkRecord) -> bool {
    is_direct(&record.driver, &record.ipam)
}

/// Whether such a network is asked for.
pub(super) fn asked(wanted: &NewNetwork) -> bool {
    is_direct(&wanted.driver, &wanted.ipam)
}

fn is_direct(driver: &str, ipam: &str) -> bool {
    matches!(driver, "macvlan" | "ipvlan") || unmanaged(ipam)
}

fn unmanaged(ipam: &str) -> bool {
    ipam == "null"
}

fn upper(record: &NetworkRecord) -> Result<Option<Upper>> {
    let said = |name: &str| record.options.get(name).map_or("", String::as_str);
    let unknown = |name: &str, known: &str| {
        Err(Error::invalid(format!(
            "unknown {name} {:?}: use {known}",
            said(name)
        )))
    };
    let kind = match record.driver.as_str() {
        "macvlan" => Upper::Macvlan(match said(MACVLAN_MODE) {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "vepa" => MacvlanMode::Vepa,
            "passthru" => MacvlanMode::Passthru,
            _ => return unknown(MACVLAN_MODE, "bridge, private, vepa or passthru"),
        }),
        "ipvlan" => {
            let mode = match said(IPVLAN_MODE) {
                "" | "l2" => IpvlanMode::L2,
                "l3" => IpvlanMode::L3,
                "l3s" => IpvlanMode::L3s,
                _ => return unknown(IPVLAN_MODE, "l2, l3 or l3s"),
            };
            let flag = match said(IPVLAN_FLAG) {
                "" | "bridge" => IpvlanFlag::Bridge,
                "private" => IpvlanFlag::Private,
                "vepa" => IpvlanFlag::Vepa,
                _ => return unknown(IPVLAN_FLAG, "bridge, private or vepa"),
            };
            Upper::Ipvlan(mode, flag)
        }
        _ => return Ok(None),
    };
    Ok(Some(kind))
}

/// What a record asks for.
fn config(record: &NetworkRecord) -> Result<DirectConfig> {
    let subnet = |text: &str| -> Result<Option<Subnet>> {
        if text.is_empty() {
            return Ok(None);
        }
        let parsed = text.parse::<Subnet>();
        parsed.map(Some).map_err(|e| Error::invalid(e.to_string()))
    };
    let wire = match upper(record)? {
        Some(upper) => Wire::Upper {
            upper,
            dummy: !record.options.contains_key(PARENT),
            parent: record.bridge.clone(),
        },
        None => Wire::Bridge {
            veth_prefix: own::veth_prefix(&record.bridge),
            bridge: record.bridge.clone(),
        },
    };
    let mtu = [option::MTU, option::SHORT_MTU].map(|name| record.options.get(name));
    let mtu = match mtu.into_iter().flatten().next() {
        None => None,
        Some(text) => {
            let mtu = text.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
            Some(mtu.ok_or_else(|| {
                Error::invalid(format!(
                    "invalid MTU {text:?}: use a number from 68 to 65535"
                ))
            })?)
        }
    };
    Ok(DirectConfig {
        wire,
        subnet: subnet(&record.subnet)?,
        gateway: record.gateway,
        range: subnet(&record.ip_range)?,
        reserved: record.aux_addresses.values().copied().collect(),
        v6: super::six::config(record)?,
        mtu,
    })
}

/// Chooses an IPv6 subnet, or checks that none of our networks has the one that is asked for.
fn choose_range6(record: &mut NetworkRecord, all: &[Arc<OwnNetwork>]) -> Result<()> {
    let Some(range) = &mut record.v6 else {
        return Ok(());
    };
    if !range.chosen {
        tokio::task::block_in_place(|| super::six::settle(range, all)).map_err(|error| {
            let text = "could not find an available, non-overlapping IPv6 address pool";
            Error::with_source(ErrorKind::Unavailable, text, error)
        })?;
    }
    range.gateway = super::six::gateway6(range);
    let Ok(subnet) = range.subnet.parse::<Subnet6>() else {
        return Ok(());
    };
    let others = all.iter().filter_map(|own| own.record.v6.as_ref());
    let mut taken = others.filter_map(|other| other.subnet.parse::<Subnet6>().ok());
    match taken.find(|other| other.overlaps(subnet)) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other}"
            ),
        )),
    }
}

/// Opens what is on record; who is there is said by those that run.
pub(super) fn open(record: &NetworkRecord) -> Result<DirectNetwork> {
    DirectNetwork::open(config(record)?).map_err(refused)
}

fn refused(error: DirectError) -> Error {
    let kind = match error {
        DirectError::Unsupported { .. } => ErrorKind::NotImplemented,
        DirectError::Kernel { .. } => ErrorKind::Internal,
        _ => ErrorKind::InvalidArgument,
    };
    let text = error.to_string();
    match std::error::Error::source(&error) {
        Some(_) => Error::with_source(kind, "cannot set up the network", error),
        None => Error::new(kind, text),
    }
}

fn parent_name(options: &BTreeMap<String, String>, id: &str) -> Result<String> {
    match options.get(PARENT) {
        Some(name) => {
            let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
            if name.is_empty() || name.len() > LONGEST_INTERFACE || name.contains(bad) {
                return Err(Error::invalid(format!("invalid parent interface {name:?}")));
            }
            if name == "lo" {
                return Err(Error::invalid(
                    "loopback interface is not a valid parent link",
                ));
            }
            Ok(name.clone())
        }
        None => Ok(format!("{DUMMY_PREFIX}{}", id.get(..12).unwrap_or(id))),
    }
}

impl Engine {
    /// Makes such a network. The caller holds the turn and knows that the name is free.
    pub(super) async fn create_direct(
        &self,
        mut wanted: NewNetwork,
        id: &str,
        all: &[Arc<OwnNetwork>],
    ) -> Result<Created> {
        if wanted.without_ipv4 {
            return Err(Error::new(
                ErrorKind::NotImplemented,
                "networks of this driver without IPv4 are not built yet: leave --ipv4=false out, or give the network no address management (--ipam-driver null)",
            ));
        }
        // The wire has its own routers: addresses of ours are given only if they are asked for.
        let asked = wanted.v6 != super::NewRange6::default();
        wanted.ipv6.get_or_insert(asked);
        let bridge = wanted.options.remove(option::BRIDGE);
        let mut record = self.record_of(wanted, id)?;
        if upper(&record)?.is_some() {
            record.bridge = parent_name(&record.options, id)?;
            record.internal |= !record.options.contains_key(PARENT);
        } else if let Some(bridge) = bridge {
            record.bridge.clone_from(&bridge);
            record.options.insert(option::BRIDGE.to_owned(), bridge);
        }
        let others = all.iter().filter(|own| own.record.bridge == record.bridge);
        let others: Vec<&NetworkRecord> = others.map(|own| &own.record).collect();
        check_others(&record, &others)?;
        let there = hull_network::interface_exists(&record.bridge);
        let there = there.map_err(crate::internal("cannot list the host's interfaces"))?;
        // Whoever is last takes away what Hull made.
        record.made_link = !there || others.iter().any(|other| other.made_link);
        self.choose_addresses(&mut record, all)?;
        let config = config(&record)?;
        tokio::task::block_in_place(|| self.state.put_network(&record)).map_err(
            crate::internal("cannot record the network; is the disk full?"),
        )?;
        let opened = tokio::task::block_in_place(|| DirectNetwork::open(config));
        let network = match opened {
            Ok(network) => network,
            Err(error) => {
                if record.made_link && others.is_empty() {
                    hull_network::remove_parent(&record.bridge).ok();
                }
                self.state
                    .delete_network(id)
                    .map_err(crate::internal("cannot delete the network's record"))?;
                return Err(refused(error));
            }
        };
        let warning = match record.options.contains_key(PARENT) || record.driver.is_empty() {
            true => String::new(),
            false if record.driver == "bridge" => String::new(),
            false => "no parent was named: the network leads nowhere".to_owned(),
        };
        let (name, driver) = (record.name.clone(), record.driver.clone());
        self.own_networks.add_direct(record, Ok(network));
        self.network_event("create", id, &name, own::driver_name(&driver), None);
        Ok(Created {
            id: id.to_owned(),
            warning,
        })
    }

    fn choose_addresses(&self, record: &mut NetworkRecord, all: &[Arc<OwnNetwork>]) -> Result<()> {
        if unmanaged(&record.ipam) {
            if record.subnet.is_empty() && record.aux_addresses.is_empty() && record.v6.is_none() {
                return Ok(());
            }
            return Err(Error::invalid(
                "a network without address management has no subnet: leave --subnet out",
            ));
        }
        choose_range6(record, all)?;
        let taken = all.iter().filter_map(|own| own.record.subnet.parse().ok());
        let mut taken: Vec<Subnet> = taken.collect();
        taken.extend(self.network_info().map(|info| info.subnet));
        if !record.subnet_chosen {
            let free = hull_network::free_subnet(&taken);
            let free = free.map_err(|error| {
                let text = "could not find an available, non-overlapping IPv4 address pool";
                Error::with_source(ErrorKind::Unavailable, text, error)
            })?;
            record.subnet = free.to_string();
            record.gateway.get_or_insert(free.gateway());
            return Ok(());
        }
        // That the host is on it, too, is what such networks are for: only ours must not overlap.
        let subnet: Subnet = record
            .subnet
            .parse()
            .map_err(|e: hull_network::InvalidSubnet| Error::invalid(e.to_string()))?;
        record.subnet = subnet.to_string();
        record.gateway.get_or_insert(subnet.gateway());
        match taken.iter().find(|other| other.overlaps(subnet)) {
            None => Ok(()),
            Some(other) => Err(Error::new(
                ErrorKind::Forbidden,
                format!(
                    "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other}"
                ),
            )),
        }
    }

    /// Opens a network that could not be opened when the daemon began, for its parent may have come
    /// since.
    pub(super) fn reopen_direct(&self, own: Arc<OwnNetwork>) -> Arc<OwnNetwork> {
        let Some(Err(_)) = &own.direct else {
            return own;
        };
        let Ok(opened) = open(&own.record) else {
            return own;
        };
        self.own_networks.add_direct(own.record.clone(), Ok(opened));
        for container in self.containers.all() {
            let record = container.record();
            if record.state.is_running() && record.places.iter().any(|p| p.network == own.record.id)
            {
                self.announce(&record);
            }
        }
        self.own_networks.get(&own.record.id).unwrap_or(own)
    }

    /// Makes an interface on such a network.
    pub(super) fn plug_direct(
        &self,
        direct: &DirectNetwork,
        join: &Join,
        netns: BorrowedFd<'_>,
    ) -> Result<Place> {
        let plug = Plug {
            netns,
            interface: &join.interface,
            address: join.address,
            mac: join.mac.parse().ok(),
        };
        let made = direct.plug(&plug).map_err(super::join::refused)?;
        let six = direct.plug6(&made.mark, netns, &join.interface, made.mac, join.address6);
        let v6 = match six {
            Ok(v6) => v6,
            Err(error) => {
                // What stays goes with the container's namespace.
                direct.unplug(&made.mark, netns, &join.interface).ok();
                return Err(super::join::refused(error));
            }
        };
        Ok(Place {
            network: join.network.clone(),
            interface: join.interface.clone(),
            endpoint: Endpoint {
                address: made.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
                prefix: made.prefix,
                gateway: made.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED),
                mac: made.mac.to_string(),
                veth: made.mark,
                ports: Vec::new(),
                v6: v6.map(|v6| Endpoint6 {
                    address: v6.address,
                    prefix: v6.prefix,
                    gateway: v6.gateway,
                    ports: Vec::new(),
                }),
            },
        })
    }

    /// Takes the interface of a running container out of such a network.
    pub(super) fn unplug_direct(
        &self,
        direct: &DirectNetwork,
        container: &str,
        place: &Place,
    ) -> Result<()> {
        let netns = self.namespace_of(container, "net")?;
        let unplug = || direct.unplug(&place.endpoint.veth, netns.as_fd(), &place.interface);
        tokio::task::block_in_place(unplug)
            .map_err(crate::internal("cannot take the interface away"))
    }

    /// Ends such a network: nobody joins any more, and what Hull made for it goes.
    pub(super) fn destroy_direct(&self, own: &OwnNetwork) -> Result<usize> {
        if let Some(Ok(direct)) = &own.direct {
            let users = direct.close();
            if users > 0 {
                return Ok(users);
            }
        }
        let all = self.own_networks.all();
        let shared = |other: &&Arc<OwnNetwork>| {
            other.record.id != own.record.id && other.record.bridge == own.record.bridge
        };
        if own.record.made_link && !all.iter().any(|other| shared(&other)) {
            tokio::task::block_in_place(|| hull_network::remove_parent(&own.record.bridge))
                .map_err(crate::internal("cannot remove the network's interface"))?;
        }
        Ok(0)
    }
}

/// A parent bears links of one kind, and a link that has it for itself bears no other.
fn check_others(record: &NetworkRecord, others: &[&NetworkRecord]) -> Result<()> {
    let passthru = |record: &NetworkRecord| {
        record.options.get(MACVLAN_MODE).map(String::as_str) == Some("passthru")
    };
    for other in others {
        let text = if other.driver != record.driver {
            format!("which is of driver {}", own::driver_name(&other.driver))
        } else if passthru(record) || passthru(other) {
            "and mode passthru needs it for itself".to_owned()
        } else {
            continue;
        };
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "interface {} is used by network {}, {text}",
                record.bridge, other.name
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(driver: &str, options: &[(&str, &str)]) -> NetworkRecord {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        NetworkRecord {
            driver: driver.to_owned(),
            bridge: "lan0".to_owned(),
            options: options.iter().map(owned).collect(),
            ..NetworkRecord::default()
        }
    }

    #[test]
    fn modes_are_read_and_unknown_ones_refused() {
        let mode = |options: &[(&str, &str)]| upper(&record("macvlan", options));
        assert_eq!(
            mode(&[]).unwrap(),
            Some(Upper::Macvlan(MacvlanMode::Bridge))
        );
        assert_eq!(
            mode(&[(MACVLAN_MODE, "vepa")]).unwrap(),
            Some(Upper::Macvlan(MacvlanMode::Vepa))
        );
        assert!(mode(&[(MACVLAN_MODE, "x")]).is_err());
        let three = upper(&record("ipvlan", &[(IPVLAN_MODE, "l3")])).unwrap();
        assert_eq!(
            three,
            Some(Upper::Ipvlan(IpvlanMode::L3, IpvlanFlag::Bridge))
        );
        assert!(upper(&record("ipvlan", &[(IPVLAN_FLAG, "x")])).is_err());
        assert_eq!(upper(&record("bridge", &[])).unwrap(), None);
    }

    #[test]
    fn parent_is_shared_by_like_networks_alone() {
        let plain = record("macvlan", &[]);
        let alone = record("macvlan", &[(MACVLAN_MODE, "passthru")]);
        let other = record("ipvlan", &[]);
        assert!(check_others(&plain, &[&plain]).is_ok());
        assert!(check_others(&alone, &[&plain]).is_err());
        assert!(check_others(&plain, &[&alone]).is_err());
        assert!(check_others(&plain, &[&other]).is_err());
    }
}
