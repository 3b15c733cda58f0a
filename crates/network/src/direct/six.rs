//! IPv6 addresses on wires that are not ours.

use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;

use super::upper::{IpvlanMode, Upper};
use super::{DirectConfig, DirectError, DirectNetwork, Wire};
use crate::addr6::{Address6Error, AddressPool6};
use crate::config::AttachError;
use crate::config6::Place6;
use crate::endpoint::EndpointError;
use crate::netlink::NetlinkError;
use crate::route::Route;
use crate::types::MacAddress;
use crate::types6::link_local;

/// Who has which address.
pub(super) fn pool(config: &DirectConfig) -> Result<Option<AddressPool6>, DirectError> {
    let Some(v6) = &config.v6 else {
        return Ok(None);
    };
    if let Wire::Upper {
        upper: Upper::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _),
        ..
    } = config.wire
    {
        return Err(DirectError::Unroutable);
    }
    if let Some((what, address)) = v6.outside() {
        return Err(DirectError::Outside6 {
            what,
            address,
            subnet: v6.subnet,
        });
    }
    AddressPool6::new(v6)
        .map(Some)
        .map_err(DirectError::Subnet6)
}

impl DirectNetwork {
    /// Gives the container at the place `mark` an IPv6 address on its interface; `None` if the
    /// network has none. It goes with the place. No default route leads there yet.
    ///
    /// # Errors
    /// The address is taken or none is free, or the kernel refuses; nothing is left then.
    pub fn plug6(
        &self,
        mark: &str,
        netns: BorrowedFd<'_>,
        interface: &str,
        mac: MacAddress,
        wanted: Option<Ipv6Addr>,
    ) -> Result<Option<Place6>, AttachError> {
        let Some(config) = &self.config.v6 else {
            return match wanted {
                Some(_) => Err(Address6Error::None.into()),
                None => Ok(None),
            };
        };
        let address = {
            let mut members = self.members();
            let Some(pool) = &mut members.addresses6 else {
                return Ok(None);
            };
            let address = match wanted {
                Some(address) => {
                    pool.reserve(address)?;
                    address
                }
                None => pool.allocate()?,
            };
            members.places6.insert(mark.to_owned(), address);
            address
        };
        let failed = |step| move |source: NetlinkError| EndpointError::Link { step, source };
        let prefix = config.subnet.prefix();
        let set = || {
            let mut inside =
                Route::within6(netns, interface).map_err(failed("switch IPv6 on inside"))?;
            let link = inside
                .link(interface)
                .map_err(failed("find the interface"))?
                .ok_or(EndpointError::Vanished)?;
            inside
                .add_addresses6(link.index, address, prefix, link_local(mac))
                .map_err(failed("set the IPv6 address"))
        };
        match set() {
            Ok(()) => Ok(Some(Place6 {
                address,
                prefix,
                gateway: config.gateway,
            })),
            Err(error) => {
                self.leave6(mark);
                Err(error.into())
            }
        }
    }

    /// Takes in the IPv6 address of a place that was made before this network was opened.
    pub fn adopt6(&self, mark: &str, address: Ipv6Addr) {
        let mut members = self.members();
        if members.places6.contains_key(mark) {
            return;
        }
        if let Some(pool) = &mut members.addresses6 {
            // Two with one address cannot be helped while they run.
            pool.reserve(address).ok();
        }
        members.places6.insert(mark.to_owned(), address);
    }

    pub(super) fn leave6(&self, mark: &str) {
        let mut members = self.members();
        if let Some(address) = members.places6.remove(mark)
            && let Some(pool) = &mut members.addresses6
        {
            pool.release(address);
        }
    }
}
