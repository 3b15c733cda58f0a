//! Cuts the connections that came in by ports which are published no more.
//!
//! The kernel translates the packets of a known flow whatever the table says by then. First the
//! container's sockets are ended, so that both sides hear of it while the flow is still translated,
//! then the flows are forgotten. Without the first step a container that goes on sending would
//! make a flow anew, the other way round, where both ports have the same number.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use hull_model::spec::{Port, Protocol};

use crate::admission::number;
use crate::conntrack::{
    self, AF_INET, AF_INET6, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, Handle, NFGENMSG_LEN,
};
use crate::netlink::{self, Attributes, Message, NetlinkError};
use crate::sockets::{self, Connection};

const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// A port or range that is published no more, with the container it led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) container: Port,
    /// `None` is every address of the host.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) more: u16,
    pub(crate) address: IpAddr,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    protocol: u8,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

/// Cuts what came in by `pieces` to the container whose namespace is `netns`.
pub(crate) fn cut(pieces: &[Piece], netns: Option<BorrowedFd<'_>>) -> Result<(), NetlinkError> {
    let connections = RefCell::new(Vec::new());
    let mut flows = Vec::new();
    for (family, six) in [(AF_INET, false), (AF_INET6, true)] {
        if !pieces.iter().any(|piece| piece.address.is_ipv6() == six) {
            continue;
        }
        flows.extend(conntrack::dump(family, |message| {
            let (handle, original, reply) = read(message, family)?;
            if !pieces.iter().any(|piece| came_by(piece, original, reply)) {
                return None;
            }
            if original.protocol == number(Protocol::Tcp) {
                connections.borrow_mut().push(Connection {
                    local: reply.source,
                    remote: reply.destination,
                });
            }
            Some(handle)
        })?);
    }
    // Whether or not the sockets could be ended, nothing is translated any more.
    let ended = netns.map_or(Ok(()), |netns| sockets::end(netns, &connections.take()));
    conntrack::delete(&flows)?;
    ended
}

fn came_by(piece: &Piece, original: Direction, reply: Direction) -> bool {
    let offset = original.destination.1.checked_sub(piece.host_port);
    original.protocol == number(piece.container.protocol)
        && reply.source.0 == piece.address
        && piece.host_ip.is_none_or(|ip| ip == original.destination.0)
        && offset.is_some_and(|offset| {
            offset <= piece.more
                && piece.container.number.checked_add(offset) == Some(reply.source.1)
        })
}

fn read(message: Message<'_>, family: u8) -> Option<(Handle, Direction, Direction)> {
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let tuple = attributes.find(CTA_TUPLE_ORIG)?;
    let original = direction(tuple)?;
    let reply = direction(attributes.find(CTA_TUPLE_REPLY)?)?;
    let handle = Handle {
        family,
        tuple: tuple.to_vec(),
        id: attributes.find(CTA_ID).map(<[u8]>::to_vec),
    };
    Some((handle, original, reply))
}

fn direction(bytes: &[u8]) -> Option<Direction> {
    let tuple = Attributes::new(bytes);
    let ip = Attributes::new(tuple.find(CTA_TUPLE_IP)?);
    let protocol = Attributes::new(tuple.find(CTA_TUPLE_PROTO)?);
    let port = |kind| Some(u16::from_be_bytes(protocol.find(kind)?.try_into().ok()?));
    let address = |four, six| {
        if let Some(bytes) = ip.find(four) {
            return netlink::ipv4(bytes).map(IpAddr::V4);
        }
        let bytes: [u8; 16] = ip.find(six)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    Some(Direction {
        protocol: *protocol.find(CTA_PROTO_NUM)?.first()?,
        source: (
            address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
            port(CTA_PROTO_SRC_PORT)?,
        ),
        destination: (
            address(CTA_IP_V4_DST, CTA_IP_V6_DST)?,
            port(CTA_PROTO_DST_PORT)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_by_another_port_or_to_another_container_is_left() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let container = ip("172.17.0.2");
        let client = (ip("198.51.100.2"), 4000);
        let host = ip("198.51.100.1");
        let piece = Piece {
            container: Port {
                number: 80,
                protocol: Protocol::Tcp,
            },
            host_ip: None,
            host_port: 8080,
            more: 9,
            address: container,
        };
        let flow = |host_port, port, protocol, address| {
            let original = Direction {
                protocol,
                source: client,
                destination: (host, host_port),
            };
            let reply = Direction {
                protocol,
                source: (address, port),
                destination: client,
            };
            came_by(&piece, original, reply)
        };
        assert!(flow(8080, 80, 6, container) && flow(8089, 89, 6, container));
        assert!(!flow(8090, 90, 6, container), "beyond the range");
        assert!(!flow(9090, 80, 6, container), "by another port");
        assert!(!flow(8080, 80, 17, container), "another protocol");
        assert!(!flow(8080, 80, 6, ip("172.17.0.3")), "another container");
    }
}
