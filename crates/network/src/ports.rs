//! Host ports: who has which, and the sockets that keep the host's own processes off them.
//!
//! Traffic never reaches these sockets: the table rewrites its destination before. They are bound
//! so that a port which a process of the host uses is refused, and that none takes it later. Of a
//! wide range no more than the first port is bound: one question to the kernel tells whether the
//! others are free, and a process that takes one of them later hears nothing there as long as the
//! range is published.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

use hull_model::spec::{Port, Protocol, PublishSpec, PublishedPort};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::host_address::{self, HostAddress};
use crate::sockets;

/// Random ports come from here, the dynamic range of RFC 6335, as Docker's do.
const RANDOM_PORTS: std::ops::RangeInclusive<u16> = 49153..=65535;
/// Each port of a range is held by a socket if it is no wider than this.
const MOST_HELD: u16 = 64;

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("bind for {} failed: port is already allocated", at(*host_ip, *port))]
    Allocated {
        /// Host address asked for.
        host_ip: IpAddr,
        /// Host port.
        port: u16,
    },
    /// The host refuses it: a process has it, or the address is not the host's.
    #[error("failed to bind host port {}/{}: {}", at(*host_ip, *port), protocol.as_str(), reason(*errno))]
    Refused {
        /// Host address asked for.
        host_ip: IpAddr,
        /// Host port.
        port: u16,
        /// Protocol.
        protocol: Protocol,
        /// The host's answer.
        errno: Errno,
    },
    /// No port of the range is free.
    #[error("no free host port for {host_ip} between {first} and {last}: all ports are allocated")]
    Exhausted {
        /// Host address asked for.
        host_ip: IpAddr,
        /// Lowest port tried.
        first: u16,
        /// Highest port tried.
        last: u16,
    },
    /// The container does not publish it.
    #[error("{}/{} is not published by the container", at(*host_ip, *port), protocol.as_str())]
    NotPublished {
        /// Host address.
        host_ip: IpAddr,
        /// Host port.
        port: u16,
        /// Protocol.
        protocol: Protocol,
    },
    /// The range ends before it begins, leads beyond the last port, or the container's port is zero.
    #[error("invalid port mapping {first}-{last} to {container}")]
    Invalid {
        /// Lowest host port.
        first: u16,
        /// Highest host port.
        last: u16,
        /// Container port.
        container: u16,
    },
}

/// An address of IPv6 is written in brackets before a port.
fn at(host_ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(host_ip, port)
}

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::ADDRINUSE => "address already in use",
        Errno::ADDRNOTAVAIL => "cannot assign requested address",
        Errno::ACCESS => "permission denied",
        Errno::MFILE | Errno::NFILE => "too many open files",
        _ => "the host refuses the address",
    }
}

/// A published port or range as the allocator keeps it.
#[derive(Debug)]
struct Holding<A> {
    port: PublishedPort<A>,
    owner: Ipv4Addr,
    /// One for each port, for the first alone, or none if the host refused when the daemon came
    /// back.
    sockets: Vec<OwnedFd>,
}

/// All published ports.
#[derive(Debug)]
pub(crate) struct PortTable<A = Ipv4Addr> {
    holdings: BTreeMap<(Protocol, u16), Vec<Holding<A>>>,
    /// No range had ever more ports after its first.
    widest: u16,
    next_random: u16,
}

impl<A: HostAddress> PortTable<A> {
    pub(crate) fn new() -> Self {
        Self {
            holdings: BTreeMap::new(),
            widest: 0,
            next_random: *RANDOM_PORTS.start(),
        }
    }

    /// Takes host ports for each wish; all or none.
    pub(crate) fn allocate(
        &mut self,
        owner: Ipv4Addr,
        wishes: &[PublishSpec<A>],
    ) -> Result<Vec<PublishedPort<A>>, PortError> {
        let mut taken = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match self.allocate_one(owner, wish) {
                Ok(port) => taken.push(port),
                Err(error) => {
                    for port in &taken {
                        self.release(port);
                    }
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Gives back the ports `remove`, which may be parts of ranges, and takes new ones; all of it or
    /// nothing.
    pub(crate) fn exchange(
        &mut self,
        owner: Ipv4Addr,
        remove: &[PublishedPort<A>],
        add: &[PublishSpec<A>],
    ) -> Result<(), PortError> {
        let before = self.of(Some(owner));
        let outcome = remove
            .iter()
            .try_for_each(|piece| self.cut(owner, piece))
            .and_then(|()| self.allocate(owner, add));
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => {
                self.restore(owner, &before);
                Err(error)
            }
        }
    }

    /// Has the container hold again what [`PortTable::of`] said.
    pub(crate) fn restore(&mut self, owner: Ipv4Addr, before: &[(PublishedPort<A>, Ipv4Addr)]) {
        let now = self.of(Some(owner));
        for gone in now.iter().filter(|held| !before.contains(held)) {
            self.release(&gone.0);
        }
        for back in before.iter().filter(|held| !now.contains(held)) {
            // Whoever took it in between has it; the container keeps it all the same.
            self.adopt(owner, back.0).ok();
        }
    }

    /// Takes back a port that a container had before the daemon was restarted. The container
    /// keeps it whatever happens; the error only says why no socket holds it.
    pub(crate) fn adopt(
        &mut self,
        owner: Ipv4Addr,
        port: PublishedPort<A>,
    ) -> Result<(), PortError> {
        match hold(&port) {
            Ok(sockets) => {
                self.insert(port, owner, sockets);
                Ok(())
            }
            Err((taken, errno)) => {
                self.insert(port, owner, Vec::new());
                Err(refused(&port, taken, errno))
            }
        }
    }

    /// Gives a port or a whole range back.
    pub(crate) fn release(&mut self, port: &PublishedPort<A>) {
        let key = (port.container.protocol, port.host_port);
        if let Some(holdings) = self.holdings.get_mut(&key) {
            holdings.retain(|holding| holding.port != *port);
            if holdings.is_empty() {
                self.holdings.remove(&key);
            }
        }
    }

    /// The ports of one container, or with `None` of all.
    pub(crate) fn of(&self, owner: Option<Ipv4Addr>) -> Vec<(PublishedPort<A>, Ipv4Addr)> {
        self.holdings
            .values()
            .flatten()
            .filter(|holding| owner.is_none_or(|owner| owner == holding.owner))
            .map(|holding| (holding.port, holding.owner))
            .collect()
    }

    /// Takes a piece out of what a container holds; what is left of its range on either side stays.
    fn cut(&mut self, owner: Ipv4Addr, piece: &PublishedPort<A>) -> Result<(), PortError> {
        let missing = PortError::NotPublished {
            host_ip: piece.host_ip.into(),
            port: piece.host_port,
            protocol: piece.container.protocol,
        };
        let protocol = piece.container.protocol;
        let lowest = piece.host_port.saturating_sub(self.widest);
        let near = self
            .holdings
            .range((protocol, lowest)..=(protocol, piece.host_port));
        let whole = near
            .flat_map(|(_, holdings)| holdings)
            .find(|h| h.owner == owner && contains(&h.port, piece))
            .map(|holding| holding.port);
        let Some(whole) = whole else {
            return Err(missing);
        };
        let key = (protocol, whole.host_port);
        let holdings = self.holdings.entry(key).or_default();
        let at = holdings.iter().position(|holding| holding.port == whole);
        let mut sockets = at.map_or(Vec::new(), |at| holdings.swap_remove(at).sockets);
        if holdings.is_empty() {
            self.holdings.remove(&key);
        }
        let each_held = sockets.len() == usize::from(whole.more) + 1;
        let before = piece.host_port - whole.host_port;
        let until = before + piece.more;
        let right = if each_held {
            sockets.split_off(usize::from(until) + 1)
        } else {
            Vec::new()
        };
        if before == 0 {
            sockets.clear();
        } else if each_held {
            sockets.truncate(usize::from(before));
        }
        let [left, rest] = around(&whole, piece);
        if let Some(port) = left {
            self.insert(port, owner, sockets);
        }
        if let Some(port) = rest {
            self.insert(port, owner, right);
        }
        Ok(())
    }

    fn allocate_one(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec<A>,
    ) -> Result<PublishedPort<A>, PortError> {
        let (first, last) = (wish.host_port, wish.host_port_end.max(wish.host_port));
        let backwards = wish.host_port_end != 0 && wish.host_port_end < wish.host_port;
        let fits = |port: u16| port.checked_add(wish.more).is_some();
        if wish.container.number == 0
            || backwards
            || !fits(wish.container.number)
            || !fits(wish.host_port)
        {
            return Err(PortError::Invalid {
                first,
                last: wish.host_port_end,
                container: wish.container.number,
            });
        }
        if first == 0 {
            return self.allocate_random(owner, wish);
        }
        if first == last {
            return self.take(owner, wish, first);
        }
        for port in first..=last {
            match self.take(owner, wish, port) {
                Err(error) if taken(&error).is_some() => {}
                outcome => return outcome,
            }
        }
        Err(PortError::Exhausted {
            host_ip: wish.host_ip.into(),
            first,
            last,
        })
    }

    fn allocate_random(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec<A>,
    ) -> Result<PublishedPort<A>, PortError> {
        let start = *RANDOM_PORTS.start();
        for _ in RANDOM_PORTS {
            let port = self.next_random;
            let beyond = |port: u16| port.checked_add(wish.more)?.checked_add(1);
            let outcome = if port.checked_add(wish.more).is_none() {
                self.next_random = start;
                continue;
            } else {
                self.take(owner, wish, port)
            };
            match outcome {
                Err(error) => match taken(&error) {
                    Some(taken) => {
                        self.next_random = taken.checked_add(1).unwrap_or(start);
                    }
                    None => return Err(error),
                },
                Ok(port) => {
                    self.next_random = beyond(port.host_port).unwrap_or(start);
                    return Ok(port);
                }
            }
        }
        Err(PortError::Exhausted {
            host_ip: wish.host_ip.into(),
            first: start,
            last: *RANDOM_PORTS.end(),
        })
    }

    fn take(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec<A>,
        host_port: u16,
    ) -> Result<PublishedPort<A>, PortError> {
        let port = PublishedPort {
            container: wish.container,
            host_ip: wish.host_ip,
            host_port,
            more: wish.more,
        };
        if let Some(taken) = self.conflict(&port) {
            return Err(PortError::Allocated {
                host_ip: port.host_ip.into(),
                port: taken,
            });
        }
        let sockets = hold(&port).map_err(|(taken, errno)| refused(&port, taken, errno))?;
        self.insert(port, owner, sockets);
        Ok(port)
    }

    /// The lowest of these host ports that somebody holds.
    fn conflict(&self, wanted: &PublishedPort<A>) -> Option<u16> {
        let protocol = wanted.container.protocol;
        let lowest = wanted.host_port.saturating_sub(self.widest);
        let near = (protocol, lowest)..=(protocol, wanted.host_port_end());
        let overlaps = |other: A| host_address::overlap(other, wanted.host_ip);
        let others = self.holdings.range(near).flat_map(|(_, holdings)| holdings);
        others
            .filter(|h| overlaps(h.port.host_ip) && h.port.host_port_end() >= wanted.host_port)
            .map(|h| h.port.host_port.max(wanted.host_port))
            .min()
    }

    fn insert(&mut self, port: PublishedPort<A>, owner: Ipv4Addr, sockets: Vec<OwnedFd>) {
        self.widest = self.widest.max(port.more);
        self.holdings
            .entry((port.container.protocol, port.host_port))
            .or_default()
            .push(Holding {
                port,
                owner,
                sockets,
            });
    }
}

/// Whether `piece` is `whole` or a part of it.
fn contains<A: HostAddress>(whole: &PublishedPort<A>, piece: &PublishedPort<A>) -> bool {
    let offset = piece.host_port.checked_sub(whole.host_port);
    whole.host_ip == piece.host_ip
        && whole.container.protocol == piece.container.protocol
        && offset.is_some_and(|offset| {
            whole.container.number.checked_add(offset) == Some(piece.container.number)
                && u32::from(offset) + u32::from(piece.more) <= u32::from(whole.more)
        })
}

/// What is left of `whole` before and after `piece`, which is a part of it.
fn around<A: HostAddress>(
    whole: &PublishedPort<A>,
    piece: &PublishedPort<A>,
) -> [Option<PublishedPort<A>>; 2] {
    let before = piece.host_port.saturating_sub(whole.host_port);
    let until = before.saturating_add(piece.more);
    let left = before
        .checked_sub(1)
        .map(|more| PublishedPort { more, ..*whole });
    let after = whole.more.saturating_sub(until);
    let right = after.checked_sub(1).map(|more| PublishedPort {
        container: Port {
            number: whole
                .container
                .number
                .saturating_add(until)
                .saturating_add(1),
            ..whole.container
        },
        host_port: whole.host_port.saturating_add(until).saturating_add(1),
        more,
        ..*whole
    });
    [left, right]
}

/// The port that another has, if that is what is wrong.
fn taken(error: &PortError) -> Option<u16> {
    match error {
        PortError::Allocated { port, .. } => Some(*port),
        PortError::Refused { errno, port, .. } => (*errno == Errno::ADDRINUSE).then_some(*port),
        _ => None,
    }
}

fn refused<A: HostAddress>(port: &PublishedPort<A>, taken: u16, errno: Errno) -> PortError {
    PortError::Refused {
        host_ip: port.host_ip.into(),
        port: taken,
        protocol: port.container.protocol,
        errno,
    }
}

/// Holds a port, or a range; the error says at which port it failed.
fn hold<A: HostAddress>(port: &PublishedPort<A>) -> Result<Vec<OwnedFd>, (u16, Errno)> {
    let Port { protocol, .. } = port.container;
    let bind = |number: u16| match bind(port.host_ip.into(), number, protocol) {
        // A kernel without SCTP has no process that could take the port.
        Err(Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) if protocol == Protocol::Sctp => {
            Ok(None)
        }
        outcome => outcome.map(Some).map_err(|errno| (number, errno)),
    };
    if port.more < MOST_HELD {
        let sockets = (port.host_port..=port.host_port_end()).map(bind);
        let sockets: Result<Vec<_>, _> = sockets.collect();
        return sockets.map(|sockets| sockets.into_iter().flatten().collect());
    }
    let first = bind(port.host_port)?;
    let (next, last) = (port.host_port.saturating_add(1), port.host_port_end());
    match sockets::lowest_taken(protocol, port.host_ip.into(), next, last) {
        Ok(None) => Ok(first.into_iter().collect()),
        Ok(Some(taken)) => Err((taken, Errno::ADDRINUSE)),
        Err(error) => {
            let errno = error.errno().map_or(Errno::IO, Errno::from_raw_os_error);
            Err((port.host_port, errno))
        }
    }
}

/// Binds the port for as long as the socket lives.
fn bind(host_ip: IpAddr, port: u16, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let address = SocketAddr::new(host_ip, port);
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let family = if host_ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let open = || {
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, number)?;
        if host_ip.is_ipv6() {
            // The same port of IPv4 is held by another socket.
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok::<_, Errno>(socket)
    };
    let socket = open()?;
    match (rustix::net::bind(&socket, &address), protocol) {
        (Ok(()), Protocol::Tcp | Protocol::Sctp) => Ok(socket),
        (Ok(()), Protocol::Udp) => {
            // Nothing is read here, so nothing should be kept.
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 0).ok();
            Ok(socket)
        }
        // Connections that a server of the host left in TIME_WAIT also answer so; with
        // SO_REUSEADDR they do not count. Only listening then keeps others off: among sockets that
        // all have SO_REUSEADDR and merely are bound, the kernel sees no conflict.
        (Err(Errno::ADDRINUSE), Protocol::Tcp) => {
            let socket = open()?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &address)?;
            rustix::net::listen(&socket, 1)?;
            Ok(socket)
        }
        (Err(errno), _) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn wish(host_ip: Ipv4Addr, first: u16, last: u16, protocol: Protocol) -> PublishSpec {
        PublishSpec {
            container: Port {
                number: 80,
                protocol,
            },
            host_ip,
            host_port: first,
            host_port_end: last,
            more: 0,
        }
    }

    /// A range of `more` and one ports, the same on both sides.
    fn range(host_ip: Ipv4Addr, first: u16, more: u16) -> PublishSpec {
        let mut wish = wish(host_ip, first, first, Protocol::Tcp);
        wish.container.number = first;
        wish.more = more;
        wish
    }

    /// The first and the last port of each range.
    fn spans(table: &PortTable) -> Vec<(u16, u16)> {
        let all = table.of(None).into_iter();
        all.map(|(port, _)| (port.host_port, port.host_port_end()))
            .collect()
    }

    #[test]
    fn ranges_that_touch_are_no_conflict_and_those_that_overlap_are() {
        let mut table = PortTable::new();
        let take = |table: &mut PortTable, wish| table.allocate(OWNER, &[wish]).map(|_| ());
        take(&mut table, range(LOOPBACK, 20_000, 4_999)).expect("a range");
        take(&mut table, range(LOOPBACK, 25_000, 9)).expect("the next");
        take(&mut table, range(LOOPBACK, 19_999, 0)).expect("the one before");
        for (first, more, taken) in [
            (24_990, 100, 24_990),
            (19_000, 5_000, 19_999),
            (25_005, 0, 25_005),
        ] {
            let error = take(&mut table, range(LOOPBACK, first, more)).expect_err("a conflict");
            let text = error.to_string();
            assert!(text.contains(&format!(":{taken} failed")), "{text}");
        }
        let other = Ipv4Addr::new(127, 0, 0, 2);
        take(&mut table, range(other, 20_000, 4_999)).expect("another address");
        take(&mut table, range(Ipv4Addr::UNSPECIFIED, 24_999, 0)).expect_err("every address");
        let error = take(&mut table, range(LOOPBACK, 65_000, 600)).expect_err("beyond the last");
        assert!(matches!(error, PortError::Invalid { .. }), "{error}");
    }

    #[test]
    fn wide_range_with_a_port_of_a_host_process_fails() {
        let server = std::net::TcpListener::bind((LOOPBACK, 0)).expect("a listener");
        let port = server.local_addr().expect("its address").port();
        let first = port.saturating_sub(200);
        let wish = range(LOOPBACK, first, 300_u16.min(u16::MAX - first));
        let error = PortTable::new()
            .allocate(OWNER, &[wish])
            .expect_err("a conflict");
        assert!(
            error.to_string().contains("address already in use"),
            "{error}"
        );
    }

    #[test]
    fn random_range_lies_together_and_passes_over_what_is_taken() {
        let mut table = PortTable::new();
        let held = range(LOOPBACK, 49_200, 0);
        table.allocate(OWNER, &[held]).expect("a port");
        let mut wish = range(LOOPBACK, 0, 99);
        wish.container.number = 1_000;
        let ports = table.allocate(OWNER, &[wish]).expect("a hundred ports");
        assert!(ports[0].host_port > 49_200, "{ports:?}");
        assert_eq!(ports[0].more, 99);
    }

    #[test]
    fn exchange_cuts_a_piece_out_of_a_range_or_changes_nothing() {
        let mut table = PortTable::new();
        table
            .allocate(OWNER, &[range(LOOPBACK, 20_000, 9)])
            .expect("a range");
        let piece = |first, more| PublishedPort {
            container: Port {
                number: first,
                protocol: Protocol::Tcp,
            },
            host_ip: LOOPBACK,
            host_port: first,
            more,
        };
        let taken = [range(LOOPBACK, 20_009, 0)];
        assert!(table.exchange(OWNER, &[piece(20_003, 1)], &taken).is_err());
        assert_eq!(spans(&table), [(20_000, 20_009)]);
        assert!(table.exchange(OWNER, &[piece(20_008, 5)], &[]).is_err());
        assert_eq!(spans(&table), [(20_000, 20_009)]);

        let moved = [range(LOOPBACK, 20_004, 0)];
        table
            .exchange(OWNER, &[piece(20_003, 1)], &moved)
            .expect("the change");
        assert_eq!(
            spans(&table),
            [(20_000, 20_002), (20_004, 20_004), (20_005, 20_009)]
        );
        assert!(std::net::TcpListener::bind((LOOPBACK, 20_003)).is_ok());
        for held in [20_002, 20_004, 20_005, 20_009] {
            assert!(
                std::net::TcpListener::bind((LOOPBACK, held)).is_err(),
                "{held}"
            );
        }
    }

    #[test]
    fn port_of_sctp_is_given_with_or_without_the_kernels_help() {
        let mut table = PortTable::new();
        let wish = wish(LOOPBACK, 3868, 3868, Protocol::Sctp);
        table.allocate(OWNER, &[wish]).expect("a port");
        let error = table.allocate(OWNER, &[wish]).expect_err("a conflict");
        assert!(error.to_string().contains("already allocated"), "{error}");
    }

    #[test]
    fn allocate_random_gives_different_dynamic_ports() {
        let mut table = PortTable::new();
        let any = wish(LOOPBACK, 0, 0, Protocol::Tcp);
        let ports = table
            .allocate(OWNER, &[any, any, any])
            .expect("three ports");
        let mut numbers: Vec<_> = ports.iter().map(|port| port.host_port).collect();
        assert!(numbers.iter().all(|port| RANDOM_PORTS.contains(port)));
        numbers.dedup();
        assert_eq!(numbers.len(), 3);
        assert_eq!(table.of(Some(OWNER)).len(), 3);
        assert!(table.of(Some(LOOPBACK)).is_empty());
    }

    #[test]
    fn allocate_a_port_of_another_container_fails_and_takes_nothing() {
        let mut table = PortTable::new();
        let free = table
            .allocate(OWNER, &[wish(LOOPBACK, 0, 0, Protocol::Tcp)])
            .expect("a port");
        let port = free[0].host_port;
        let wishes = [
            wish(LOOPBACK, 0, 0, Protocol::Udp),
            wish(LOOPBACK, port, port, Protocol::Tcp),
        ];
        let error = table.allocate(OWNER, &wishes).expect_err("a conflict");
        assert!(error.to_string().contains("port is already allocated"));
        assert_eq!(table.of(None).len(), 1);
        table.release(&free[0]);
        assert!(table.allocate(OWNER, &wishes).is_ok());
    }

    #[test]
    fn allocate_a_port_of_a_host_process_fails_and_a_range_passes_over_it() {
        let mut table = PortTable::new();
        let server = std::net::TcpListener::bind((LOOPBACK, 0)).expect("a listener");
        let port = server.local_addr().expect("its address").port();
        let error = table
            .allocate(OWNER, &[wish(LOOPBACK, port, port, Protocol::Tcp)])
            .expect_err("a conflict");
        assert!(
            error.to_string().contains("address already in use"),
            "{error}"
        );
        let end = port.saturating_add(20);
        let ports = table
            .allocate(OWNER, &[wish(LOOPBACK, port, end, Protocol::Tcp)])
            .expect("a port of the range");
        assert!(ports[0].host_port > port);
    }

    #[test]
    fn host_process_cannot_take_an_allocated_port() {
        let mut table = PortTable::new();
        let wishes = [Protocol::Tcp, Protocol::Udp].map(|p| wish(LOOPBACK, 0, 0, p));
        let ports = table.allocate(OWNER, &wishes).expect("two ports");
        assert!(std::net::TcpListener::bind((LOOPBACK, ports[0].host_port)).is_err());
        assert!(std::net::UdpSocket::bind((LOOPBACK, ports[1].host_port)).is_err());
        for port in &ports {
            table.release(port);
        }
        assert!(std::net::TcpListener::bind((LOOPBACK, ports[0].host_port)).is_ok());
    }

    #[test]
    fn allocate_a_port_with_closed_connections_succeeds_and_holds_it() {
        let server = std::net::TcpListener::bind((LOOPBACK, 0)).expect("a listener");
        let port = server.local_addr().expect("its address").port();
        let client = std::net::TcpStream::connect((LOOPBACK, port)).expect("a connection");
        // The side that closes first, here the server's, keeps the port in TIME_WAIT.
        drop(server.accept().expect("a connection"));
        drop(client);
        drop(server);
        let mut table = PortTable::new();
        table
            .allocate(OWNER, &[wish(LOOPBACK, port, port, Protocol::Tcp)])
            .expect("the port");
        assert!(std::net::TcpListener::bind((LOOPBACK, port)).is_err());
    }

    #[test]
    fn allocate_on_a_foreign_address_or_backwards_range_is_refused() {
        let mut table = PortTable::new();
        let foreign = wish(Ipv4Addr::new(203, 0, 113, 7), 8080, 8080, Protocol::Tcp);
        let error = table.allocate(OWNER, &[foreign]).expect_err("not ours");
        assert!(
            error
                .to_string()
                .contains("cannot assign requested address")
        );
        let backwards = wish(LOOPBACK, 8080, 8079, Protocol::Tcp);
        assert!(table.allocate(OWNER, &[backwards]).is_err());
    }
}
