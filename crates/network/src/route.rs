//! Links, addresses and routes by rtnetlink(7): the requests that Hull makes, and no more.

mod six;
mod way_back;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::netlink::{
    self, Attributes, Batch, Family, MAX_ACKNOWLEDGED, Message, NLM_F_ACK, NLM_F_CREATE,
    NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NetlinkError, Socket,
};
use crate::types::{MacAddress, Subnet};

pub(crate) use six::learn6;
pub(crate) use way_back::WayBack;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const AF_INET: u8 = 2;
const AF_INET6: u16 = 10;
const IFF_UP: u32 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IF_OPER_UP: u8 = 6;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const STACK_BYTES: usize = 256 << 10;
const IFINFOMSG_LEN: usize = 16;
const IFADDRMSG_LEN: usize = 8;
const RTMSG_LEN: usize = 12;

/// `lo` is the first interface of every namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// A network interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Index of the bridge it is a port of; zero for none.
    pub(crate) master: u32,
    /// `bridge`, `veth` and so on; empty for hardware.
    pub(crate) kind: String,
    /// It is switched on.
    pub(crate) up: bool,
    /// Packets pass: it is up, and the kernel has finished with what follows from that.
    pub(crate) operational: bool,
    /// Its MAC address, if it has one.
    pub(crate) mac: Option<MacAddress>,
}

/// The two ends of a veth pair.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) master: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: MacAddress,
    pub(crate) peer_namespace: BorrowedFd<'a>,
}

/// `struct ifinfomsg`.
pub(crate) fn link_header(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG_LEN] {
    let mut header = [0; IFINFOMSG_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A synchronous rtnetlink connection to the namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) socket: Socket,
}

impl Route {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(Family::Route)?,
        })
    }

    /// As [`Route::open`], in the namespace behind `netns`.
    pub(crate) fn within(netns: BorrowedFd<'_>) -> Result<Self, NetlinkError> {
        let failed = |step| move |source| NetlinkError::Socket { step, source };
        let enter = || {
            hull_sys::netns::enter_network(netns).map_err(failed("enter the namespace"))?;
            Self::open()
        };
        // A thread of its own: the caller must stay in the host's namespace.
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

    /// The interface `name`, or `None`.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(RTM_GETLINK, 0, &link_header(0, 0, 0))
            .text(IFLA_IFNAME, name);
        let mut found = None;
        let outcome = self
            .socket
            .query(&mut batch, false, |message| found = read_link(message));
        match outcome {
            Ok(()) => Ok(found),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until packets pass the interface `name`, but not for long. Between carrier and queue
    /// the kernel leaves work to a thread of its own and drops what is sent until then, so that on
    /// a busy host a container's first connection would wait a second for its second attempt.
    /// Asking for the link makes kernels from 6.9 do that work at once.
    pub(crate) fn settle(&mut self, name: &str) -> Result<(), NetlinkError> {
        const ATTEMPTS: u32 = 20;
        const PAUSE: Duration = Duration::from_millis(1);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            if self.link(name)?.is_none_or(|link| link.operational) {
                break;
            }
        }
        Ok(())
    }

    /// Every interface.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut batch = Batch::new();
        batch.request(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0));
        let mut links = Vec::new();
        self.socket
            .query(&mut batch, true, |message| links.extend(read_link(message)))?;
        Ok(links)
    }

    /// The ports of the bridge `master`. Older kernels tell of other links too.
    pub(crate) fn ports(&mut self, master: u32) -> Result<Vec<Link>, NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0))
            .u32(IFLA_MASTER, master);
        let mut links = Vec::new();
        self.socket
            .query(&mut batch, true, |message| links.extend(read_link(message)))?;
        Ok(links)
    }

    /// Creates a bridge that neither learns IPv6 addresses nor waits before it forwards.
    pub(crate) fn create_bridge(
        &mut self,
        name: &str,
        mac: MacAddress,
        mtu: u32,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(
                RTM_NEWLINK,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                &link_header(0, 0, 0),
            )
            .text(IFLA_IFNAME, name)
            // Given, so that the bridge does not take over the address of its lowest port, and
            // change it when a container ends.
            .attr(IFLA_ADDRESS, &mac.0)
            .u32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "bridge")
                    .nest(IFLA_INFO_DATA, |data| {
                        data.u32(IFLA_BR_FORWARD_DELAY, 0)
                            .u32(IFLA_BR_STP_STATE, 0)
                            // No querier runs here: snooping would only cost time at each start.
                            .attr(IFLA_BR_MCAST_SNOOPING, &[0]);
                    });
            });
        self.socket.execute(&mut batch)
    }

    /// Gives interface `index` the address, and brings it up.
    pub(crate) fn set_address_and_up(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        add_address(&mut batch, index, address, prefix);
        set_up(&mut batch, index);
        self.socket.execute(&mut batch)
    }

    /// Brings interface `index` up.
    pub(crate) fn up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        set_up(&mut batch, index);
        self.socket.execute(&mut batch)
    }

    /// Takes an address from interface `index`.
    pub(crate) fn delete_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(RTM_DELADDR, NLM_F_ACK, &address_header(index, prefix))
            .attr(IFA_LOCAL, &address.octets());
        self.socket.execute(&mut batch)
    }

    /// Creates a veth pair whose peer is born in another namespace (down: the kernel cannot open an
    /// end before both are linked); the host's end is a port of the bridge, up, without IPv6. One
    /// system call.
    pub(crate) fn create_veth(&mut self, veth: &Veth<'_>) -> Result<(), NetlinkError> {
        let namespace = veth.peer_namespace.as_raw_fd().cast_unsigned();
        let mut batch = Batch::new();
        batch
            .request(
                RTM_NEWLINK,
                NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
                &link_header(0, 0, 0),
            )
            .text(IFLA_IFNAME, veth.host_name)
            .u32(IFLA_MTU, veth.mtu)
            .u32(IFLA_MASTER, veth.master)
            .nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_KIND, "veth")
                    .nest(IFLA_INFO_DATA, |data| {
                        data.nest_with_header(VETH_INFO_PEER, &link_header(0, 0, 0), |peer| {
                            peer.text(IFLA_IFNAME, veth.peer_name)
                                .attr(IFLA_ADDRESS, &veth.peer_mac.0)
                                .u32(IFLA_MTU, veth.mtu)
                                .u32(IFLA_NET_NS_FD, namespace);
                        });
                    });
            });
        without_ipv6(&mut batch, 0).text(IFLA_IFNAME, veth.host_name);
        batch
            .request(RTM_NEWLINK, NLM_F_ACK, &link_header(0, IFF_UP, IFF_UP))
            .text(IFLA_IFNAME, veth.host_name);
        let mut results = self.socket.exchange(&mut batch)?.into_iter();
        let created = results.next().unwrap_or(Ok(()));
        let _without_ipv6 = results.next();
        let up = results.next().unwrap_or(Ok(()));
        created.and(up)
    }

    /// Inside the container's namespace: `lo` and `index` up, the address, the default route.
    pub(crate) fn configure_inside(
        &mut self,
        index: u32,
        address: Option<Ipv4Addr>,
        subnet: Subnet,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        without_ipv6(&mut batch, index);
        set_up(&mut batch, LOOPBACK_INDEX);
        if let Some(address) = address {
            add_address(&mut batch, index, address, subnet.prefix());
        }
        set_up(&mut batch, index);
        if let Some(gateway) = gateway {
            add_default_route(&mut batch, NLM_F_EXCL, index, gateway);
        }
        let mut results = self.socket.exchange(&mut batch)?.into_iter();
        let _without_ipv6 = results.next();
        results.collect()
    }

    /// Inside a namespace: has the default route lead to `gateway` by interface `index`.
    pub(crate) fn set_default_route(
        &mut self,
        index: u32,
        gateway: Ipv4Addr,
    ) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        add_default_route(&mut batch, NLM_F_REPLACE, index, gateway);
        self.socket.execute(&mut batch)
    }

    /// Inside a namespace: brings `lo` up.
    pub(crate) fn loopback_up(&mut self) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        set_up(&mut batch, LOOPBACK_INDEX);
        self.socket.execute(&mut batch)
    }

    /// Makes each interface a port of the bridge `master` and brings it up.
    pub(crate) fn set_master(&mut self, ports: &[u32], master: u32) -> Result<(), NetlinkError> {
        for part in ports.chunks(MAX_ACKNOWLEDGED) {
            let mut batch = Batch::new();
            for port in part {
                batch
                    .request(RTM_NEWLINK, NLM_F_ACK, &link_header(*port, IFF_UP, IFF_UP))
                    .u32(IFLA_MASTER, master);
            }
            self.socket.execute(&mut batch)?;
        }
        Ok(())
    }

    /// Has the bridge pass nothing from the port `name` to others that are set likewise.
    pub(crate) fn set_isolated(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.set_port(name, IFLA_BRPORT_ISOLATED)
    }

    /// Lets the bridge send a frame back out of the port `name` by which it came in.
    pub(crate) fn set_hairpin(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.set_port(name, IFLA_BRPORT_MODE)
    }

    /// Switches a property of the bridge's port `name` on.
    fn set_port(&mut self, name: &str, property: u16) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(RTM_NEWLINK, NLM_F_ACK, &link_header(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .nest(IFLA_LINKINFO, |info| {
                info.text(IFLA_INFO_SLAVE_KIND, "bridge")
                    .nest(IFLA_INFO_SLAVE_DATA, |data| {
                        data.attr(property, &[1]);
                    });
            });
        self.socket.execute(&mut batch)
    }

    /// Deletes an interface; that there is none is no error. A veth takes its peer along. Slow:
    /// the kernel waits until no CPU can still see it.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut batch = Batch::new();
        batch
            .request(RTM_DELLINK, NLM_F_ACK, &link_header(0, 0, 0))
            .text(IFLA_IFNAME, name);
        match self.socket.execute(&mut batch) {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }

    /// Every IPv4 address with the index of its interface.
    pub(crate) fn addresses(&mut self) -> Result<Vec<(u32, Subnet, Ipv4Addr)>, NetlinkError> {
        let mut batch = Batch::new();
        batch.request(RTM_GETADDR, NLM_F_DUMP, &address_header(0, 0));
        let mut addresses = Vec::new();
        self.socket.query(&mut batch, true, |message| {
            addresses.extend(read_address(message));
        })?;
        Ok(addresses)
    }

    /// The destination of every IPv4 route of every table, with the index of its interface.
    pub(crate) fn routes(&mut self) -> Result<Vec<(u32, Subnet)>, NetlinkError> {
        let mut header = [0; RTMSG_LEN];
        header[0] = AF_INET;
        let mut batch = Batch::new();
        batch.request(RTM_GETROUTE, NLM_F_DUMP, &header);
        let mut routes = Vec::new();
        self.socket.query(&mut batch, true, |message| {
            routes.extend(read_route(message))
        })?;
        Ok(routes)
    }
}

/// `struct ifaddrmsg`.
fn address_header(index: u32, prefix: u8) -> [u8; IFADDRMSG_LEN] {
    let mut header = [0; IFADDRMSG_LEN];
    header[0] = AF_INET;
    header[1] = prefix;
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

pub(crate) fn add_address(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8) {
    batch
        .request(
            RTM_NEWADDR,
            NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
            &address_header(index, prefix),
        )
        .attr(IFA_LOCAL, &address.octets())
        .attr(IFA_ADDRESS, &address.octets());
    if let Ok(subnet) = Subnet::new(address, prefix) {
        batch.attr(IFA_BROADCAST, &subnet.last().octets());
    }
}

/// Has interface `index`, or the one named by an attribute that is added, make no link-local
/// address: without one the kernel sends nothing by IPv6. It must be said before the interface is
/// up, and is refused, which does no harm, where there is no IPv6 at all.
pub(crate) fn without_ipv6(batch: &mut Batch, index: u32) -> &mut Batch {
    batch
        .request(RTM_NEWLINK, NLM_F_ACK, &link_header(index, 0, 0))
        .nest(IFLA_AF_SPEC, |spec| {
            spec.nest(AF_INET6, |inet6| {
                inet6.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        })
}

fn add_default_route(batch: &mut Batch, mode: u16, index: u32, gateway: Ipv4Addr) {
    let mut header = [0; RTMSG_LEN];
    header[0] = AF_INET;
    header[4] = RT_TABLE_MAIN;
    header[5] = RTPROT_BOOT;
    header[6] = RT_SCOPE_UNIVERSE;
    header[7] = RTN_UNICAST;
    if gateway.is_unspecified() {
        // By the interface itself: whatever is behind it answers for all.
        header[6] = RT_SCOPE_LINK;
        batch
            .request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | mode, &header)
            .u32(RTA_OIF, index);
        return;
    }
    batch
        .request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | mode, &header)
        .attr(RTA_GATEWAY, &gateway.octets())
        .u32(RTA_OIF, index);
}

pub(crate) fn set_up(batch: &mut Batch, index: u32) {
    batch.request(RTM_NEWLINK, NLM_F_ACK, &link_header(index, IFF_UP, IFF_UP));
}

fn read_link(message: Message<'_>) -> Option<Link> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let index = netlink::u32_at(message.body, 4)?;
    let attributes = Attributes::after(message.body, IFINFOMSG_LEN);
    let number = |kind| attributes.find(kind).and_then(|v| netlink::u32_at(v, 0));
    let kind = attributes
        .find(IFLA_LINKINFO)
        .and_then(|info| Attributes::new(info).find(IFLA_INFO_KIND))
        .and_then(netlink::text);
    Some(Link {
        index,
        name: netlink::text(attributes.find(IFLA_IFNAME)?)?.to_owned(),
        master: number(IFLA_MASTER).unwrap_or(0),
        kind: kind.unwrap_or_default().to_owned(),
        up: netlink::u32_at(message.body, 8)? & IFF_UP != 0,
        operational: attributes.find(IFLA_OPERSTATE) == Some(&[IF_OPER_UP]),
        mac: attributes
            .find(IFLA_ADDRESS)
            .and_then(|bytes| bytes.try_into().ok())
            .map(MacAddress),
    })
}

fn read_address(message: Message<'_>) -> Option<(u32, Subnet, Ipv4Addr)> {
    if message.kind != RTM_NEWADDR || message.body.first() != Some(&AF_INET) {
        return None;
    }
    let prefix = *message.body.get(1)?;
    let index = netlink::u32_at(message.body, 4)?;
    let attributes = Attributes::after(message.body, IFADDRMSG_LEN);
    let address = attributes
        .find(IFA_LOCAL)
        .or_else(|| attributes.find(IFA_ADDRESS))
        .and_then(netlink::ipv4)?;
    Some((index, Subnet::new(address, prefix).ok()?, address))
}

fn read_route(message: Message<'_>) -> Option<(u32, Subnet)> {
    if message.kind != RTM_NEWROUTE || message.body.first() != Some(&AF_INET) {
        return None;
    }
    let prefix = *message.body.get(1)?;
    let attributes = Attributes::after(message.body, RTMSG_LEN);
    let destination = match attributes.find(RTA_DST) {
        Some(bytes) => netlink::ipv4(bytes)?,
        None => Ipv4Addr::UNSPECIFIED,
    };
    let index = attributes
        .find(RTA_OIF)
        .and_then(|value| netlink::u32_at(value, 0));
    Some((index.unwrap_or(0), Subnet::new(destination, prefix).ok()?))
}
