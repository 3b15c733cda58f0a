//! Links that sit on another interface, spoken over rtnetlink: macvlan, ipvlan, VLANs; and dummies.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{Batch, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NetlinkError};
use crate::route::{self, LOOPBACK_INDEX, Route};
use crate::types::MacAddress;

const RTM_NEWLINK: u16 = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// What macvlan links of one parent are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacvlanMode {
    /// They reach each other at once.
    Bridge,
    /// They do not reach each other.
    Private,
    /// They reach each other by a switch that sends back what it got.
    Vepa,
    /// There is one alone, which has the parent for itself.
    Passthru,
}

/// What ipvlan links of one parent do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanMode {
    /// They are on the parent's wire.
    L2,
    /// The parent routes for them.
    L3,
    /// As [`IpvlanMode::L3`], and the host's connection tracking sees it.
    L3s,
}

/// Who of an ipvlan parent's links reaches whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanFlag {
    /// All reach each other.
    Bridge,
    /// None does.
    Private,
    /// By way of a switch.
    Vepa,
}

/// A kind of link that sits on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// With a MAC address of its own.
    Macvlan(MacvlanMode),
    /// With the parent's MAC address.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

impl Upper {
    /// The kernel's name of the kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan(..) => "ipvlan",
        }
    }

    fn describe(self, data: &mut Batch) {
        match self {
            Self::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Private => 1,
                    MacvlanMode::Vepa => 2,
                    MacvlanMode::Bridge => 4,
                    MacvlanMode::Passthru => 8,
                };
                data.u32(IFLA_MACVLAN_MODE, mode);
            }
            Self::Ipvlan(mode, flag) => {
                let mode: u16 = match mode {
                    IpvlanMode::L2 => 0,
                    IpvlanMode::L3 => 1,
                    IpvlanMode::L3s => 2,
                };
                let flag: u16 = match flag {
                    IpvlanFlag::Bridge => 0,
                    IpvlanFlag::Private => 1,
                    IpvlanFlag::Vepa => 2,
                };
                data.attr(IFLA_IPVLAN_MODE, &mode.to_ne_bytes())
                    .attr(IFLA_IPVLAN_FLAGS, &flag.to_ne_bytes());
            }
        }
    }
}

/// A link on another that is to be born in a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewUpper<'a> {
    pub(super) upper: Upper,
    /// Index of the parent.
    pub(super) parent: u32,
    pub(super) name: &'a str,
    pub(super) mac: Option<MacAddress>,
    pub(super) mtu: Option<u32>,
    pub(super) netns: Option<BorrowedFd<'a>>,
}

fn create<'a>(batch: &'a mut Batch, name: &str) -> &'a mut Batch {
    batch
        .request(
            RTM_NEWLINK,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            &route::link_header(0, 0, 0),
        )
        .text(IFLA_IFNAME, name)
}

/// Makes a macvlan or ipvlan link.
pub(super) fn create_upper(route: &mut Route, new: &NewUpper<'_>) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let request = create(&mut batch, new.name).u32(IFLA_LINK, new.parent);
    if let Some(netns) = new.netns {
        request.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    }
    if let Some(mac) = new.mac {
        request.attr(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = new.mtu {
        request.u32(IFLA_MTU, mtu);
    }
    request.nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, new.upper.kind())
            .nest(IFLA_INFO_DATA, |data| new.upper.describe(data));
    });
    route.socket.execute(&mut batch)
}

/// Makes a VLAN `id` of the interface `parent`.
pub(super) fn create_vlan(
    route: &mut Route,
    name: &str,
    parent: u32,
    id: u16,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    create(&mut batch, name)
        .u32(IFLA_LINK, parent)
        .nest(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "vlan")
                .nest(IFLA_INFO_DATA, |data| {
                    data.attr(IFLA_VLAN_ID, &id.to_ne_bytes());
                });
        });
    route.socket.execute(&mut batch)
}

/// Makes an interface that leads nowhere.
pub(super) fn create_dummy(route: &mut Route, name: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    create(&mut batch, name).nest(IFLA_LINKINFO, |info| {
        info.text(IFLA_INFO_KIND, "dummy");
    });
    route.socket.execute(&mut batch)
}

/// Brings an interface up.
pub(super) fn up(route: &mut Route, index: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    route::set_up(&mut batch, index);
    route.socket.execute(&mut batch)
}

/// Inside a namespace: `lo` and `index` up, with the address if there is one. Without one all that
/// the interface gets is its user's affair, by IPv6 as well.
pub(super) fn configure(
    inside: &mut Route,
    index: u32,
    address: Option<(Ipv4Addr, u8)>,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let mut may_fail = None;
    if address.is_some() {
        may_fail = Some(0);
        route::without_ipv6(&mut batch, index);
    }
    route::set_up(&mut batch, LOOPBACK_INDEX);
    if let Some((address, prefix)) = address {
        route::add_address(&mut batch, index, address, prefix);
    }
    route::set_up(&mut batch, index);
    let results = inside.socket.exchange(&mut batch)?;
    let counted = results.into_iter().enumerate();
    counted
        .filter(|(number, _)| Some(*number) != may_fail)
        .try_for_each(|(_, outcome)| outcome)
}
