//! The parent of a network's links: found, or made where it is a VLAN, a dummy or a bridge of ours.

use std::net::Ipv4Addr;

use crate::addr::{self, AddressError};
use crate::addr6::Address6Error;
use crate::netlink::NetlinkError;
use crate::route::{Link, Route};
use crate::types::{MacAddress, Subnet};
use crate::types6::Subnet6;

use super::upper::{self, Upper};
use super::{DirectConfig, Wire};

/// Highest number of a VLAN (IEEE 802.1Q).
const LAST_VLAN: u16 = 4094;

/// Why a network could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// There is no such interface.
    #[error("there is no interface {0} on this host: choose another parent, with -o parent=NAME")]
    NoParent(String),
    /// The kernel was built without this kind of link.
    #[error("this host's kernel has no {kind} links: {hint}")]
    Unsupported {
        /// The kind.
        kind: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The interface cannot be a parent.
    #[error("{parent} cannot carry {kind} links: it is used as {used}")]
    Unsuitable {
        /// The interface.
        parent: String,
        /// The kind.
        kind: &'static str,
        /// What it is.
        used: String,
    },
    /// Something is not in the subnet.
    #[error("{what} {address} is not usable in {subnet}")]
    Outside {
        /// Which.
        what: &'static str,
        /// The address.
        address: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// Something is not in the IPv6 subnet.
    #[error("{what} {address} is not usable in {subnet}")]
    Outside6 {
        /// Which.
        what: &'static str,
        /// The address.
        address: String,
        /// The subnet.
        subnet: Subnet6,
    },
    /// The IPv6 subnet cannot be used.
    #[error("choose an IPv6 subnet")]
    Subnet6(#[source] Address6Error),
    /// The parent would route for IPv6 addresses.
    #[error(
        "networks of ipvlan's modes l3 and l3s have no IPv6 addresses here: use mode l2, or leave --ipv6 out"
    )]
    Unroutable,
    /// The subnet cannot be used.
    #[error("choose a subnet")]
    Subnet(#[source] AddressError),
    /// A request to the kernel failed.
    #[error("{step} of interface {parent}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The interface.
        parent: String,
        /// The kernel's answer.
        #[source]
        source: NetlinkError,
    },
}

/// The kernel's answer to a kind of link that it lacks.
fn is_unsupported(error: &NetlinkError) -> bool {
    error.errno() == Some(libc::EOPNOTSUPP)
}

/// A VLAN's parent and number, `eth0.10`.
fn vlan(name: &str) -> Option<(&str, u16)> {
    let (parent, number) = name.rsplit_once('.')?;
    let number = number.parse().ok()?;
    (!parent.is_empty() && (1..=LAST_VLAN).contains(&number)).then_some((parent, number))
}

/// Finds the parent, or makes it.
pub(super) fn prepare(config: &DirectConfig) -> Result<(), DirectError> {
    let name = match &config.wire {
        Wire::Upper { parent, .. } => parent,
        Wire::Bridge { bridge, .. } => bridge,
    };
    let kernel = |step| {
        move |source: NetlinkError| DirectError::Kernel {
            step,
            parent: name.clone(),
            source,
        }
    };
    let mut route = Route::open().map_err(kernel("open a socket for the link"))?;
    let found = route.link(name).map_err(kernel("find the link"))?;
    match &config.wire {
        Wire::Bridge { bridge, .. } => match found {
            Some(link) if link.kind == "bridge" => {
                upper::up(&mut route, link.index).map_err(kernel("bring up the link"))
            }
            Some(link) => Err(DirectError::Unsuitable {
                parent: bridge.clone(),
                kind: "bridged",
                used: link.kind,
            }),
            None => {
                let mut bytes = [0; 4];
                let flags = rustix::rand::GetRandomFlags::empty();
                rustix::rand::getrandom(&mut bytes, flags).ok();
                let [a, b, c, d] = bytes;
                let mac = MacAddress([0x02, 0x42, a, b, c, d]);
                route
                    .create_bridge(bridge, mac, config.mtu.unwrap_or(1500))
                    .map_err(kernel("create the link"))?;
                let link = route.link(bridge).map_err(kernel("find the link"))?;
                let index = link.map_or(0, |link| link.index);
                upper::up(&mut route, index).map_err(kernel("bring up the link"))
            }
        },
        Wire::Upper {
            upper,
            parent,
            dummy,
        } => {
            let link = match found {
                Some(link) => link,
                None => make(&mut route, parent, *dummy)?,
            };
            // As Docker: a parent that is down is brought up only if it is ours.
            try_kind(&mut route, *upper, &link)
        }
    }
}

/// Makes a parent: a dummy, or the VLAN that its name says.
fn make(route: &mut Route, parent: &str, dummy: bool) -> Result<Link, DirectError> {
    let kernel = |step| {
        move |source: NetlinkError| DirectError::Kernel {
            step,
            parent: parent.to_owned(),
            source,
        }
    };
    let made = if dummy {
        upper::create_dummy(route, parent).map_err(|source| {
            if is_unsupported(&source) {
                return DirectError::Unsupported {
                    kind: "dummy",
                    hint: "name a parent, with -o parent=NAME, or load its module (modprobe dummy)",
                };
            }
            kernel("create the link")(source)
        })
    } else {
        let missing = || DirectError::NoParent(parent.to_owned());
        let (below, number) = vlan(parent).ok_or_else(missing)?;
        let below = route.link(below).map_err(kernel("find the parent"))?;
        let below = below.ok_or_else(missing)?;
        upper::create_vlan(route, parent, below.index, number).map_err(|source| {
            if is_unsupported(&source) {
                return DirectError::Unsupported {
                    kind: "VLAN",
                    hint: "load its module (modprobe 8021q), or name a parent that exists",
                };
            }
            kernel("create the link")(source)
        })
    };
    made?;
    let link = route.link(parent).map_err(kernel("find the link"))?;
    let link = link.ok_or_else(|| DirectError::NoParent(parent.to_owned()))?;
    upper::up(route, link.index).map_err(kernel("bring up the link"))?;
    Ok(link)
}

/// Makes a link on the parent and deletes it: what the kernel lacks, or the parent does not bear,
/// is told when the network is made and not at a container's start.
fn try_kind(route: &mut Route, kind: Upper, parent: &Link) -> Result<(), DirectError> {
    let mut bytes = [0; 4];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut bytes, flags).ok();
    let name = format!("hx{:08x}", u32::from_ne_bytes(bytes));
    let new = upper::NewUpper {
        // A passthru link would change the parent.
        upper: match kind {
            Upper::Macvlan(_) => Upper::Macvlan(super::MacvlanMode::Bridge),
            other => other,
        },
        parent: parent.index,
        name: &name,
        mac: None,
        mtu: None,
        netns: None,
    };
    match upper::create_upper(route, &new) {
        Ok(()) => {
            route.delete_link(&name).ok();
            Ok(())
        }
        Err(source) if is_unsupported(&source) => Err(DirectError::Unsupported {
            kind: kind.kind(),
            hint: "load the module of that name (modprobe), or use another driver",
        }),
        // In use already, by a container of this network or by another kind, which starts show.
        Err(source) if source.errno() == Some(libc::EINVAL) && parent.master == 0 => Ok(()),
        Err(source) if matches!(source.errno(), Some(libc::EBUSY | libc::EINVAL)) => {
            Err(DirectError::Unsuitable {
                parent: parent.name.clone(),
                kind: kind.kind(),
                used: if parent.master == 0 {
                    "the parent of another kind".to_owned()
                } else {
                    "a port of a bridge or the like".to_owned()
                },
            })
        }
        Err(source) => Err(DirectError::Kernel {
            step: "create a link on top",
            parent: parent.name.clone(),
            source,
        }),
    }
}

/// Deletes the link that was made for a network; that there is none is no error.
///
/// # Errors
/// The kernel refuses.
pub fn remove_parent(name: &str) -> Result<(), NetlinkError> {
    Route::open()?.delete_link(name)
}

/// What the user chose must lie in the subnet.
pub(super) fn check_inside(
    config: &DirectConfig,
    subnet: Subnet,
    gateway: Ipv4Addr,
) -> Result<(), DirectError> {
    addr::check_inside(subnet, gateway, config.range, &config.reserved).map_err(
        |(what, address)| DirectError::Outside {
            what,
            address,
            subnet,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_is_told_by_its_name() {
        assert_eq!(vlan("eth0.10"), Some(("eth0", 10)));
        assert_eq!(vlan("a.b.4094"), Some(("a.b", 4094)));
        for name in ["eth0", "eth0.", ".10", "eth0.0", "eth0.4095", "eth0.x"] {
            assert_eq!(vlan(name), None, "{name}");
        }
    }
}
