//! Sockets of the host's processes, asked for by sock_diag(7): one question tells who has any of
//! thousands of ports, and one ends a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use hull_model::spec::Protocol;

use crate::admission::number;
use crate::netlink::{
    Attributes, Batch, Family, Message, NLM_F_ACK, NLM_F_DUMP, NetlinkError, Socket,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Length of `inet_diag_msg`.
const MESSAGE_LEN: usize = 72;

const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
/// Bound, no more; kernels before 6.8 do not list those.
const TCP_BOUND_INACTIVE: u32 = 13;
const ALL_STATES: u32 = u32::MAX;
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// A socket's place: local address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// `None` is every address of both versions of IP.
    address: Option<IpAddr>,
    port: u16,
}

/// The lowest port from `first` to `last` at which a process of the host listens so that
/// `host_ip` is concerned. SCTP's sockets are not asked for.
pub(crate) fn lowest_taken(
    protocol: Protocol,
    host_ip: IpAddr,
    first: u16,
    last: u16,
) -> Result<Option<u16>, NetlinkError> {
    let states = match protocol {
        Protocol::Tcp => 1 << TCP_LISTEN | 1 << TCP_BOUND_INACTIVE,
        // Unconnected ones.
        Protocol::Udp => 1 << TCP_CLOSE,
        Protocol::Sctp => return Ok(None),
    };
    let mut socket = Socket::open(Family::SockDiag)?;
    let mut lowest: Option<u16> = None;
    for family in [AF_INET, AF_INET6] {
        let mut batch = Batch::new();
        let body = request(family, number(protocol), states, &[0; 48]);
        batch.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &body);
        let asked = socket.query(&mut batch, true, |message| {
            let Some(place) = read_place(message) else {
                return;
            };
            let concerned = place.address.is_none_or(|address| {
                let same = address.is_ipv4() == host_ip.is_ipv4();
                let any = address.is_unspecified() || host_ip.is_unspecified();
                address == host_ip || same && any
            });
            if concerned && (first..=last).contains(&place.port) {
                lowest = Some(lowest.map_or(place.port, |low| low.min(place.port)));
            }
        });
        match asked {
            // A kernel without IPv6 has no such sockets.
            Err(error) if family == AF_INET6 && error.errno() == Some(libc::ENOENT) => {}
            outcome => outcome?,
        }
    }
    Ok(lowest)
}

/// A TCP connection as one of its ends sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) local: (IpAddr, u16),
    pub(crate) remote: (IpAddr, u16),
}

impl Connection {
    /// A socket of IPv6 that serves both is found by either.
    fn family(&self) -> u8 {
        match self.local.0 {
            IpAddr::V4(_) => AF_INET,
            IpAddr::V6(_) => AF_INET6,
        }
    }
}

/// Ends connections of processes in a namespace: both ends are told. Kernels built without this
/// leave them, and those that ended by themselves are as good.
pub(crate) fn end(netns: BorrowedFd<'_>, connections: &[Connection]) -> Result<(), NetlinkError> {
    if connections.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::within(netns, Family::SockDiag)?;
    for connection in connections {
        let Some(cookie) = cookie_of(&mut socket, connection) else {
            continue;
        };
        let id = id_of(connection, cookie);
        let tcp = number(Protocol::Tcp);
        let body = request(connection.family(), tcp, ALL_STATES, &id);
        let mut batch = Batch::new();
        batch.request(SOCK_DESTROY, NLM_F_ACK, &body);
        match socket.execute(&mut batch) {
            // It ended meanwhile.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESTALE)) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// What tells the socket of a connection from all others, if there is one. Where there is none the
/// kernel answers with the one that listens, which must not be ended.
fn cookie_of(socket: &mut Socket, connection: &Connection) -> Option<[u8; 8]> {
    let id = id_of(connection, ANY_COOKIE);
    let tcp = number(Protocol::Tcp);
    let body = request(connection.family(), tcp, ALL_STATES, &id);
    let mut batch = Batch::new();
    batch.request(SOCK_DIAG_BY_FAMILY, 0, &body);
    let mut cookie = None;
    let asked = socket.query(&mut batch, false, |message| {
        cookie = read_cookie(message, connection);
    });
    asked.ok().and(cookie)
}

fn read_cookie(message: Message<'_>, connection: &Connection) -> Option<[u8; 8]> {
    let state = u32::from(*message.body.get(1)?);
    let remote = u16::from_be_bytes(message.body.get(6..8)?.try_into().ok()?);
    let cookie = message.body.get(44..52)?.try_into().ok()?;
    (state != TCP_LISTEN && remote == connection.remote.1).then_some(cookie)
}

/// `inet_diag_req_v2`.
fn request(family: u8, protocol: u8, states: u32, id: &[u8; 48]) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

/// `inet_diag_sockid`.
fn id_of(connection: &Connection, cookie: [u8; 8]) -> [u8; 48] {
    let mut id = Vec::with_capacity(48);
    id.extend(connection.local.1.to_be_bytes());
    id.extend(connection.remote.1.to_be_bytes());
    for address in [connection.local.0, connection.remote.0] {
        match address {
            IpAddr::V4(four) => {
                id.extend(four.octets());
                id.extend([0; 12]);
            }
            IpAddr::V6(six) => id.extend(six.octets()),
        }
    }
    id.extend([0; 4]);
    id.extend(cookie);
    let mut bytes = [0; 48];
    for (slot, byte) in bytes.iter_mut().zip(id) {
        *slot = byte;
    }
    bytes
}

fn read_place(message: Message<'_>) -> Option<Place> {
    let body = message.body;
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let source: [u8; 16] = body.get(8..24)?.try_into().ok()?;
    if *body.first()? == AF_INET {
        let [a, b, c, d, ..] = source;
        let address = Some(Ipv4Addr::new(a, b, c, d).into());
        return Some(Place { address, port });
    }
    let address = Ipv6Addr::from(source);
    if let Some(address) = address.to_ipv4_mapped() {
        let address = Some(address.into());
        return Some(Place { address, port });
    }
    let only = Attributes::after(body, MESSAGE_LEN).find(INET_DIAG_SKV6ONLY);
    let both = only.and_then(|value| value.first()) != Some(&1);
    let everything = address.is_unspecified() && both;
    let address = (!everything).then_some(address.into());
    Some(Place { address, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_listened_at_is_found_where_it_concerns() {
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = tcp.local_addr().expect("its address").port();
        let found =
            |protocol, ip| lowest_taken(protocol, IpAddr::V4(ip), port, port).expect("an answer");
        assert_eq!(found(Protocol::Tcp, Ipv4Addr::LOCALHOST), Some(port));
        assert_eq!(found(Protocol::Tcp, Ipv4Addr::UNSPECIFIED), Some(port));
        assert_eq!(found(Protocol::Tcp, Ipv4Addr::new(127, 9, 9, 9)), None);
        assert_eq!(found(Protocol::Sctp, Ipv4Addr::UNSPECIFIED), None);
        let udp = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        let port = udp.local_addr().expect("its address").port();
        let found = lowest_taken(Protocol::Udp, IpAddr::V4(Ipv4Addr::LOCALHOST), port, port);
        assert_eq!(found.expect("an answer"), Some(port));
    }

    #[test]
    fn socket_of_ipv6_for_both_concerns_ipv4_too() {
        let Ok(both) = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) else {
            return;
        };
        let port = both.local_addr().expect("its address").port();
        let found = lowest_taken(Protocol::Tcp, IpAddr::V4(Ipv4Addr::LOCALHOST), port, port);
        assert_eq!(found.expect("an answer"), Some(port));
    }

    #[test]
    fn message_cut_short_is_passed_over() {
        for length in 0..24 {
            let bytes = vec![2; length];
            let message = Message {
                kind: SOCK_DIAG_BY_FAMILY,
                flags: 0,
                sequence: 0,
                body: &bytes,
            };
            assert_eq!(read_place(message), None);
            let connection = Connection {
                local: (Ipv4Addr::LOCALHOST.into(), 80),
                remote: (Ipv4Addr::LOCALHOST.into(), 0x0202),
            };
            assert_eq!(read_cookie(message, &connection), None);
        }
    }
}
