//! Hears of changes that others make to what the networks need: an administrator who flushes the
//! firewall, deletes a link, takes an address away.
//!
//! The kernel tells by netlink. Filters in the kernel let through only what may concern us, so that
//! neither a start nor a publication wakes anybody: of links those that go or are set down, of
//! nf_tables what did not come from our own socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use hull_sys::netns::{self, FilterStep};

use crate::egress::Egress;
use crate::firewall::Firewall;
use crate::netlink::{self, Attributes, Message, Messages, NetlinkError};

const GROUP_LINK: u32 = 0x1;
const GROUP_IPV4_ADDRESS: u32 = 0x10;
const GROUP_IPV6_ADDRESS: u32 = 0x100;
/// NFNLGRP_NFTABLES.
const GROUP_NFTABLES: u32 = 1 << 6;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_DELADDR: u16 = 21;
const IFLA_IFNAME: u16 = 3;
const IFINFOMSG_LEN: usize = 16;
const IFF_UP: u32 = 1;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// Messages of nf_tables that something went.
const DELETIONS: [u16; 10] = [2, 5, 8, 11, 14, 26, 27, 28, 29, 30];
const NFT_MSG_NEWGEN: u16 = 15;
/// The table's name is the first attribute of each.
const NFTA_TABLE: u16 = 1;
const NFGENMSG_LEN: usize = 4;

/// Where the fields of a message stand.
const TYPE_AT: u32 = 4;
const PORT_AT: u32 = 12;
const FLAGS_AT: u32 = 24;
const CHANGE_AT: u32 = 28;

const LOAD_HALF: u16 = 0x28;
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_SET: u16 = 0x45;
const RETURN: u16 = 0x06;
const WHOLE: u32 = u32::MAX;

/// A notice is larger only where much has happened at once, and is then not read.
const RECEIVE_BYTES: usize = 16 << 10;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Something of our tables was deleted, or all of one.
    Table,
    /// A link of this name went, or was set down.
    Link(String),
    /// An address was taken from the interface with this index.
    Address(u32),
    /// More than could be told.
    Much,
}

/// The two subscriptions. They belong to the network namespace of the thread that started them.
#[derive(Debug)]
pub struct Watch {
    tables: [String; 3],
    route: AsyncFd<OwnedFd>,
    nft: AsyncFd<OwnedFd>,
}

/// A constant as the filter's loads read it, which take every field for big-endian.
fn word(value: u32) -> u32 {
    u32::from_be_bytes(value.to_ne_bytes())
}

fn half(value: u16) -> u32 {
    u32::from(u16::from_be_bytes(value.to_ne_bytes()))
}

/// Links that go, addresses that go, links that somebody sets down. Those of a container that ends
/// are closed together with it, and those of one that starts are new: in both cases more than the
/// one flag has changed.
fn route_filter() -> Vec<FilterStep> {
    vec![
        (LOAD_HALF, 0, 0, TYPE_AT),
        (JUMP_IF_EQUAL, 6, 0, half(RTM_DELLINK)),
        (JUMP_IF_EQUAL, 5, 0, half(RTM_DELADDR)),
        (JUMP_IF_EQUAL, 0, 5, half(RTM_NEWLINK)),
        (LOAD_WORD, 0, 0, CHANGE_AT),
        (JUMP_IF_EQUAL, 0, 3, word(IFF_UP)),
        (LOAD_WORD, 0, 0, FLAGS_AT),
        (JUMP_IF_SET, 1, 0, word(IFF_UP)),
        (RETURN, 0, 0, WHOLE),
        (RETURN, 0, 0, 0),
    ]
}

/// All but what our `own` sockets brought about, and the number of the transaction.
fn nft_filter(own: &[u32]) -> Vec<FilterStep> {
    let generation = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN;
    let mut steps = vec![
        (LOAD_HALF, 0, 0, TYPE_AT),
        (JUMP_IF_EQUAL, 0, 1, half(generation)),
        (RETURN, 0, 0, 0),
        (LOAD_WORD, 0, 0, PORT_AT),
    ];
    for port in own {
        steps.push((JUMP_IF_EQUAL, 0, 1, word(*port)));
        steps.push((RETURN, 0, 0, 0));
    }
    steps.push((RETURN, 0, 0, WHOLE));
    steps
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> NetlinkError {
    move |source| NetlinkError::Socket { step, source }
}

fn subscribe(
    protocol: Option<rustix::net::Protocol>,
    groups: u32,
    filter: &[FilterStep],
) -> Result<AsyncFd<OwnedFd>, NetlinkError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)
        .map_err(|e| failed("open")(e.into()))?;
    netns::attach_filter(&fd, filter).map_err(failed("filter"))?;
    rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))
        .map_err(|e| failed("subscribe")(e.into()))?;
    #[expect(
        deprecated,
        reason = "its successor is unsafe for types whose descriptor may change; an OwnedFd keeps its own"
    )]
    AsyncFd::new(fd).map_err(failed("watch"))
}

impl Watch {
    /// Subscribes. Needs a runtime of tokio.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn start(firewall: &Firewall, egress: Option<&Egress>) -> Result<Self, NetlinkError> {
        let groups = GROUP_LINK | GROUP_IPV4_ADDRESS | GROUP_IPV6_ADDRESS;
        let mut own = vec![firewall.port_id()?];
        if let Some(egress) = egress {
            own.push(egress.port_id()?);
        }
        let netfilter = Some(rustix::net::netlink::NETFILTER);
        Ok(Self {
            tables: [
                firewall.name().to_owned(),
                crate::admission::second_table(firewall.name()),
                egress.map(Egress::table).unwrap_or_default().to_owned(),
            ],
            route: subscribe(None, groups, &route_filter())?,
            nft: subscribe(netfilter, GROUP_NFTABLES, &nft_filter(&own))?,
        })
    }

    /// Waits until something happened, and tells what: nothing if it was another's concern.
    ///
    /// # Errors
    /// The kernel gives the subscription up.
    pub async fn next(&mut self) -> io::Result<Vec<Notice>> {
        let tables = &self.tables;
        tokio::select! {
            heard = hear(&self.route, of_links) => heard,
            heard = hear(&self.nft, |message| of_table(message, tables)) => heard,
        }
    }
}

async fn hear(
    socket: &AsyncFd<OwnedFd>,
    mut read: impl FnMut(Message<'_>) -> Option<Notice>,
) -> io::Result<Vec<Notice>> {
    let mut buffer = vec![0; RECEIVE_BYTES];
    let received = socket
        .async_io(Interest::READABLE, |fd| {
            match rustix::net::recv(fd.as_fd(), buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Ok((_, received)) => Ok(Some(received)),
                // More happened than the socket's queue holds.
                Err(rustix::io::Errno::NOBUFS) => Ok(None),
                Err(errno) => Err(errno.into()),
            }
        })
        .await?;
    let datagram = received.and_then(|length| buffer.get(..length));
    let Some(datagram) = datagram else {
        return Ok(vec![Notice::Much]);
    };
    Ok(Messages::new(datagram)
        .map_while(Result::ok)
        .filter_map(&mut read)
        .collect())
}

fn of_links(message: Message<'_>) -> Option<Notice> {
    match message.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let attributes = Attributes::after(message.body, IFINFOMSG_LEN);
            let name = netlink::text(attributes.find(IFLA_IFNAME)?)?;
            Some(Notice::Link(name.to_owned()))
        }
        RTM_DELADDR => netlink::u32_at(message.body, 4).map(Notice::Address),
        _ => None,
    }
}

fn of_table(message: Message<'_>, tables: &[String; 3]) -> Option<Notice> {
    let [kind, subsystem] = message.kind.to_le_bytes();
    let deletes =
        u16::from(subsystem) == NFNL_SUBSYS_NFTABLES && DELETIONS.contains(&u16::from(kind));
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let name = attributes.find(NFTA_TABLE).and_then(netlink::text);
    (deletes && tables.iter().any(|table| name == Some(table.as_str()))).then_some(Notice::Table)
}
