//! Host ports: who has which, and the sockets that keep the host's own processes off them.
//!
//! Traffic never reaches these sockets: the table rewrites its destination before. They are bound
//! so that a port which a process of the host uses is refused, and that none takes it later.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use hull_model::spec::{Port, Protocol, PublishSpec, PublishedPort};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Random ports come from here, the dynamic range of RFC 6335, as Docker's do.
const RANDOM_PORTS: std::ops::RangeInclusive<u16> = 49153..=65535;

/// Why a port could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another container has it.
    #[error("bind for {host_ip}:{port} failed: port is already allocated")]
    Allocated {
        /// Host address asked for.
        host_ip: Ipv4Addr,
        /// Host port.
        port: u16,
    },
    /// The host refuses it: a process has it, or the address is not the host's.
    #[error("failed to bind host port {host_ip}:{port}/{}: {}", protocol.as_str(), reason(*errno))]
    Refused {
        /// Host address asked for.
        host_ip: Ipv4Addr,
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
        host_ip: Ipv4Addr,
        /// Lowest port tried.
        first: u16,
        /// Highest port tried.
        last: u16,
    },
    /// The range ends before it begins, or the container's port is zero.
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

fn reason(errno: Errno) -> &'static str {
    match errno {
        Errno::ADDRINUSE => "address already in use",
        Errno::ADDRNOTAVAIL => "cannot assign requested address",
        Errno::ACCESS => "permission denied",
        Errno::MFILE | Errno::NFILE => "too many open files",
        _ => "the host refuses the address",
    }
}

/// A published port as the allocator keeps it.
#[derive(Debug)]
struct Holding {
    port: PublishedPort,
    owner: Ipv4Addr,
    /// `None` if the host refused when the daemon came back.
    _socket: Option<OwnedFd>,
}

/// All published ports of a network.
#[derive(Debug)]
pub(crate) struct PortTable {
    holdings: BTreeMap<(Protocol, u16), Vec<Holding>>,
    next_random: u16,
}

impl PortTable {
    pub(crate) fn new() -> Self {
        Self {
            holdings: BTreeMap::new(),
            next_random: *RANDOM_PORTS.start(),
        }
    }

    /// Takes a host port for each wish; all or none.
    pub(crate) fn allocate(
        &mut self,
        owner: Ipv4Addr,
        wishes: &[PublishSpec],
    ) -> Result<Vec<PublishedPort>, PortError> {
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

    /// Takes back a port that a container had before the daemon was restarted. The container
    /// keeps it whatever happens; the error only says why no socket holds it.
    pub(crate) fn adopt(&mut self, owner: Ipv4Addr, port: PublishedPort) -> Result<(), PortError> {
        let bound = bind(port.host_ip, port.host_port, port.container.protocol);
        let outcome = bound.as_ref().err().map(|errno| PortError::Refused {
            host_ip: port.host_ip,
            port: port.host_port,
            protocol: port.container.protocol,
            errno: *errno,
        });
        self.insert(port, owner, bound.ok());
        outcome.map_or(Ok(()), Err)
    }

    /// Gives one port back.
    pub(crate) fn release(&mut self, port: &PublishedPort) {
        let key = (port.container.protocol, port.host_port);
        if let Some(holdings) = self.holdings.get_mut(&key) {
            holdings.retain(|holding| holding.port != *port);
            if holdings.is_empty() {
                self.holdings.remove(&key);
            }
        }
    }

    /// The ports of one container, or with `None` of all.
    pub(crate) fn of(&self, owner: Option<Ipv4Addr>) -> Vec<(PublishedPort, Ipv4Addr)> {
        self.holdings
            .values()
            .flatten()
            .filter(|holding| owner.is_none_or(|owner| owner == holding.owner))
            .map(|holding| (holding.port, holding.owner))
            .collect()
    }

    fn allocate_one(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec,
    ) -> Result<PublishedPort, PortError> {
        let (first, last) = (wish.host_port, wish.host_port_end.max(wish.host_port));
        let backwards = wish.host_port_end != 0 && wish.host_port_end < wish.host_port;
        if wish.container.number == 0 || backwards {
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
                Err(error) if is_taken(&error) => {}
                outcome => return outcome,
            }
        }
        Err(PortError::Exhausted {
            host_ip: wish.host_ip,
            first,
            last,
        })
    }

    fn allocate_random(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec,
    ) -> Result<PublishedPort, PortError> {
        for _ in RANDOM_PORTS {
            let port = self.next_random;
            self.next_random = port.checked_add(1).unwrap_or(*RANDOM_PORTS.start());
            match self.take(owner, wish, port) {
                Err(error) if is_taken(&error) => {}
                outcome => return outcome,
            }
        }
        Err(PortError::Exhausted {
            host_ip: wish.host_ip,
            first: *RANDOM_PORTS.start(),
            last: *RANDOM_PORTS.end(),
        })
    }

    fn take(
        &mut self,
        owner: Ipv4Addr,
        wish: &PublishSpec,
        host_port: u16,
    ) -> Result<PublishedPort, PortError> {
        let Port { protocol, .. } = wish.container;
        let host_ip = wish.host_ip;
        let overlaps = |other: Ipv4Addr| {
            other == host_ip || other.is_unspecified() || host_ip.is_unspecified()
        };
        let holdings = self.holdings.get(&(protocol, host_port));
        if holdings.is_some_and(|all| all.iter().any(|h| overlaps(h.port.host_ip))) {
            return Err(PortError::Allocated {
                host_ip,
                port: host_port,
            });
        }
        let socket = bind(host_ip, host_port, protocol).map_err(|errno| PortError::Refused {
            host_ip,
            port: host_port,
            protocol,
            errno,
        })?;
        let port = PublishedPort {
            container: wish.container,
            host_ip,
            host_port,
        };
        self.insert(port, owner, Some(socket));
        Ok(port)
    }

    fn insert(&mut self, port: PublishedPort, owner: Ipv4Addr, socket: Option<OwnedFd>) {
        self.holdings
            .entry((port.container.protocol, port.host_port))
            .or_default()
            .push(Holding {
                port,
                owner,
                _socket: socket,
            });
    }
}

fn is_taken(error: &PortError) -> bool {
    match error {
        PortError::Allocated { .. } => true,
        PortError::Refused { errno, .. } => *errno == Errno::ADDRINUSE,
        _ => false,
    }
}

/// Binds the port for as long as the socket lives.
fn bind(host_ip: Ipv4Addr, port: u16, protocol: Protocol) -> Result<OwnedFd, Errno> {
    let address = SocketAddrV4::new(host_ip, port);
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let open = || rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None);
    let socket = open()?;
    match (rustix::net::bind(&socket, &address), protocol) {
        (Ok(()), Protocol::Tcp) => Ok(socket),
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
        }
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
