//! IPv6 addresses and routes.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::os::fd::BorrowedFd;

use super::{
    IFA_ADDRESS, IFA_LOCAL, IFADDRMSG_LEN, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTA_DST, RTA_GATEWAY,
    RTA_OIF, RTM_DELADDR, RTM_GETADDR, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWROUTE, RTMSG_LEN,
    RTN_UNICAST, RTPROT_BOOT, Route, STACK_BYTES, without_ipv6,
};
use crate::host6;
use crate::netlink::{
    self, Attributes, Batch, Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE,
    NetlinkError,
};
use crate::types6::Subnet6;

const FAMILY: u8 = 10;
/// Nobody is asked whether he has the address: whoever gives addresses here knows, and asking
/// takes a second.
const IFA_F_NODAD: u8 = 2;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_LOCAL: u8 = 255;
const RTN_LOCAL: u8 = 2;
/// Of routes for which none was said.
const USUAL_METRIC: u32 = 1024;
/// Higher than that of the kernel's own route to ::1, which counts for the host's own packets.
const LAST_METRIC: u32 = 0x7fff_ffff;
const LINK_LOCAL_PREFIX: u8 = 64;
/// The bridge's link-local address, as Docker's have it.
const BRIDGE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl Route {
    /// As [`Route::within`], once IPv6 is on for the interface `name` there, and nobody on its link
    /// can give it other routes.
    pub(crate) fn within6(netns: BorrowedFd<'_>, name: &str) -> Result<Self, NetlinkError> {
        inside(netns, || {
            host6::prepare_interface(name).map_err(|source| NetlinkError::Socket {
                step: "switch IPv6 on",
                source,
            })?;
            Self::open()
        })
    }

    /// Gives interface `index` an address and its link-local one.
    pub(crate) fn add_addresses6(
        &mut self,
        index: u32,
        address: Ipv6Addr,
        prefix: u8,
        link_local: Ipv6Addr,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        add_address(&mut batch, index, link_local, LINK_LOCAL_PREFIX);
        add_address(&mut batch, index, address, prefix);
        self.socket.execute(&mut batch)
    }

    /// Gives the bridge its address and no other; IPv6 must be on there. Answers why its published
    /// ports cannot be reached by ::1, if so.
    pub(crate) fn set_bridge6(
        &mut self,
        index: u32,
        address: Ipv6Addr,
        prefix: u8,
    ) -> Result<Option<NetlinkError>, NetlinkError> {
        let wanted = [(address, prefix), (BRIDGE_LINK_LOCAL, LINK_LOCAL_PREFIX)];
        let mut batch = Batch::new();
        for (owner, subnet, old) in self.addresses6()? {
            if owner == index && !wanted.contains(&(old, subnet.prefix())) {
                batch
                    .request(RTM_DELADDR, NLM_F_ACK, &header(index, subnet.prefix()))
                    .attr(IFA_LOCAL, &old.octets());
            }
        }
        for (address, prefix) in wanted {
            add_address(&mut batch, index, address, prefix);
        }
        self.socket.execute(&mut batch)?;
        let mut batch = Batch::new();
        add_loopback_route(&mut batch, index);
        Ok(self.socket.execute(&mut batch).err())
    }

    /// Has interface `index` make no link-local address of its own.
    pub(crate) fn without_own_address6(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        without_ipv6(&mut batch, index);
        self.socket.execute(&mut batch)
    }

    /// Inside a namespace: has the IPv6 default route lead to `gateway` by interface `index`.
    pub(crate) fn set_default_route6(
        &mut self,
        index: u32,
        gateway: Ipv6Addr,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(
                RTM_NEWROUTE,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
                &route_header(RT_TABLE_MAIN, RTN_UNICAST, 0),
            )
            .attr(RTA_GATEWAY, &gateway.octets())
            .u32(RTA_PRIORITY, USUAL_METRIC)
            .u32(RTA_OIF, index);
        self.socket.execute(&mut batch)
    }

    /// The interfaces by which the host learnt an IPv6 route from a router's announcements.
    pub(crate) fn learning_interfaces6(&mut self) -> Result<HashSet<u32>, NetlinkError> {
        const RTPROT_RA: u8 = 9;
        let mut header = [0; RTMSG_LEN];
        header[0] = FAMILY;
        let mut batch = Batch::new();
        batch.request(RTM_GETROUTE, NLM_F_DUMP, &header);
        let mut learning = HashSet::new();
        self.socket.query(&mut batch, true, |message| {
            let (found, _) = read_route(message).unzip();
            learning.extend(found.filter(|_| message.body.get(5) == Some(&RTPROT_RA)));
        })?;
        Ok(learning)
    }

    /// Every IPv6 address with the index of its interface.
    pub(crate) fn addresses6(&mut self) -> Result<Vec<(u32, Subnet6, Ipv6Addr)>, NetlinkError> {
        let mut batch = Batch::new();
        let mut header = [0; IFADDRMSG_LEN];
        header[0] = FAMILY;
        batch.request(RTM_GETADDR, NLM_F_DUMP, &header);
        let mut addresses = Vec::new();
        match self.socket.query(&mut batch, true, |message| {
            addresses.extend(read_address(message));
        }) {
            // A kernel without IPv6 has none.
            Err(error) if without_family(&error) => Ok(Vec::new()),
            outcome => outcome.map(|()| addresses),
        }
    }

    /// The destination of every IPv6 route of every table, with the index of its interface.
    pub(crate) fn routes6(&mut self) -> Result<Vec<(u32, Subnet6)>, NetlinkError> {
        let mut header = [0; RTMSG_LEN];
        header[0] = FAMILY;
        let mut batch = Batch::new();
        batch.request(RTM_GETROUTE, NLM_F_DUMP, &header);
        let mut routes = Vec::new();
        match self.socket.query(&mut batch, true, |message| {
            routes.extend(read_route(message));
        }) {
            Err(error) if without_family(&error) => Ok(Vec::new()),
            outcome => outcome.map(|()| routes),
        }
    }
}

/// Has the interface `name` in the namespace `netns` take addresses and routes from the routers on
/// its wire, which is not ours. A kernel without IPv6 has none to take.
pub(crate) fn learn6(netns: BorrowedFd<'_>, name: &str) {
    inside(netns, || Ok(host6::learn(name).ok())).ok();
}

/// Does something in the namespace `netns`, in a thread of its own: the caller must stay in the
/// host's.
fn inside<T: Send>(
    netns: BorrowedFd<'_>,
    act: impl FnOnce() -> Result<T, NetlinkError> + Send,
) -> Result<T, NetlinkError> {
    let failed = |step| move |source| NetlinkError::Socket { step, source };
    let enter = || {
        hull_sys::netns::enter_network(netns).map_err(failed("enter the namespace"))?;
        act()
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("hull-netns".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, enter)
            .map_err(failed("start a thread"))?
            .join()
            .map_err(|_| failed("run a thread")(std::io::Error::other("it panicked")))?
    })
}

fn without_family(error: &NetlinkError) -> bool {
    matches!(
        error.errno(),
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPFNOSUPPORT)
    )
}

/// `struct ifaddrmsg`.
fn header(index: u32, prefix: u8) -> [u8; IFADDRMSG_LEN] {
    let mut header = [0; IFADDRMSG_LEN];
    header[0] = FAMILY;
    header[1] = prefix;
    header[2] = IFA_F_NODAD;
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

fn route_header(table: u8, kind: u8, prefix: u8) -> [u8; RTMSG_LEN] {
    let mut header = [0; RTMSG_LEN];
    header[0] = FAMILY;
    header[1] = prefix;
    header[4] = table;
    header[5] = RTPROT_BOOT;
    header[6] = RT_SCOPE_UNIVERSE;
    header[7] = kind;
    header
}

fn add_address(batch: &mut Batch, index: u32, address: Ipv6Addr, prefix: u8) {
    batch
        .request(
            RTM_NEWADDR,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            &header(index, prefix),
        )
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets());
}

/// What IPv4 has a switch for (`route_localnet`): answers to ::1 are taken from the bridge too.
/// The kernel takes packets for ::1 by a route of the very interface they came in by; those that
/// bear it on the wire it drops before it looks.
fn add_loopback_route(batch: &mut Batch, index: u32) {
    batch
        .request(
            RTM_NEWROUTE,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            &route_header(RT_TABLE_LOCAL, RTN_LOCAL, 128),
        )
        .attr(RTA_DST, &Ipv6Addr::LOCALHOST.octets())
        .u32(RTA_PRIORITY, LAST_METRIC - index)
        .u32(RTA_OIF, index);
}

fn address_of(bytes: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(octets.into())
}

fn read_address(message: Message<'_>) -> Option<(u32, Subnet6, Ipv6Addr)> {
    if message.kind != RTM_NEWADDR || message.body.first() != Some(&FAMILY) {
        return None;
    }
    let prefix = *message.body.get(1)?;
    let index = netlink::u32_at(message.body, 4)?;
    let attributes = Attributes::after(message.body, IFADDRMSG_LEN);
    let address = attributes
        .find(IFA_LOCAL)
        .or_else(|| attributes.find(IFA_ADDRESS))
        .and_then(address_of)?;
    Some((index, Subnet6::new(address, prefix).ok()?, address))
}

fn read_route(message: Message<'_>) -> Option<(u32, Subnet6)> {
    if message.kind != RTM_NEWROUTE || message.body.first() != Some(&FAMILY) {
        return None;
    }
    let prefix = *message.body.get(1)?;
    let attributes = Attributes::after(message.body, RTMSG_LEN);
    let destination = match attributes.find(RTA_DST) {
        Some(bytes) => address_of(bytes)?,
        None => Ipv6Addr::UNSPECIFIED,
    };
    let index = attributes
        .find(RTA_OIF)
        .and_then(|value| netlink::u32_at(value, 0));
    Some((index.unwrap_or(0), Subnet6::new(destination, prefix).ok()?))
}
