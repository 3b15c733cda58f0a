//! Cuts the connections that came in by ports which are published no more.
//!
//! The kernel translates the packets of a known flow whatever the table says by then. First the
//! container's sockets are ended, so that both sides hear of it while the flow is still translated,
//! then the flows are forgotten. Without the first step a container that goes on sending would
//! make a flow anew, the other way round, where both ports have the same number.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use hull_model::spec::Protocol;

use crate::admission::number;
use crate::conntrack::{self, AF_INET, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, Handle, NFGENMSG_LEN};
use crate::netlink::{self, Attributes, Message, NetlinkError};
use crate::sockets::{self, Connection};
use crate::table::Forward;

const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    protocol: u8,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
}

/// Cuts what came in by `pieces` to the container whose namespace is `netns`.
pub(crate) fn cut(pieces: &[Forward], netns: Option<BorrowedFd<'_>>) -> Result<(), NetlinkError> {
    if pieces.is_empty() {
        return Ok(());
    }
    let connections = RefCell::new(Vec::new());
    let flows = conntrack::dump(AF_INET, |message| {
        let (handle, original, reply) = read(message)?;
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
    })?;
    // Whether or not the sockets could be ended, nothing is translated any more.
    let ended = netns.map_or(Ok(()), |netns| sockets::end(netns, &connections.take()));
    conntrack::delete(&flows)?;
    ended
}

fn came_by(piece: &Forward, original: Direction, reply: Direction) -> bool {
    let Forward { port, address } = piece;
    let offset = original.destination.1.checked_sub(port.host_port);
    original.protocol == number(port.container.protocol)
        && reply.source.0 == *address
        && (port.host_ip.is_unspecified() || port.host_ip == original.destination.0)
        && offset.is_some_and(|offset| {
            offset <= port.more && port.container.number.checked_add(offset) == Some(reply.source.1)
        })
}

fn read(message: Message<'_>) -> Option<(Handle, Direction, Direction)> {
    let attributes = Attributes::after(message.body, NFGENMSG_LEN);
    let tuple = attributes.find(CTA_TUPLE_ORIG)?;
    let original = direction(tuple)?;
    let reply = direction(attributes.find(CTA_TUPLE_REPLY)?)?;
    let handle = Handle {
        family: AF_INET,
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
    Some(Direction {
        protocol: *protocol.find(CTA_PROTO_NUM)?.first()?,
        source: (
            netlink::ipv4(ip.find(CTA_IP_V4_SRC)?)?,
            port(CTA_PROTO_SRC_PORT)?,
        ),
        destination: (
            netlink::ipv4(ip.find(CTA_IP_V4_DST)?)?,
            port(CTA_PROTO_DST_PORT)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use hull_model::spec::{Port, PublishedPort};

    use super::*;

    #[test]
    fn flow_by_another_port_or_to_another_container_is_left() {
        let container = Ipv4Addr::new(172, 17, 0, 2);
        let client = (Ipv4Addr::new(198, 51, 100, 2), 4000);
        let host = Ipv4Addr::new(198, 51, 100, 1);
        let piece = Forward {
            port: PublishedPort {
                container: Port {
                    number: 80,
                    protocol: Protocol::Tcp,
                },
                host_ip: Ipv4Addr::UNSPECIFIED,
                host_port: 8080,
                more: 9,
            },
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
        assert!(!flow(8080, 80, 6, Ipv4Addr::new(172, 17, 0, 3)));
    }
}
