//! A host, another host beside it, and servers and clients in any of them: all in network
//! namespaces of the test's own, which vanish with their descriptors.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use hull_model::spec::{Port, Protocol, PublishSpec};
use hull_network::{Endpoint, LiveEndpoint, Network, NetworkConfig};
use hull_sys::netns;

pub(crate) const BRIDGE: &str = "hull0";
pub(crate) const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// On a busy machine a link that has just come up may lose the first packet; this is time for two
/// more.
pub(crate) const PATIENCE: Duration = Duration::from_millis(3200);
const DATAGRAMS: u32 = 4;
/// How long an answer that must not come is waited for.
const SUSPICION: Duration = Duration::from_millis(700);

/// Runs `work` on a thread of its own that has entered the namespace.
pub(crate) fn within<R: Send>(namespace: &impl AsFd, work: impl FnOnce() -> R + Send) -> R {
    let fd = namespace.as_fd();
    std::thread::scope(|scope| {
        let run = move || {
            netns::enter_network(fd).expect("enter the namespace");
            work()
        };
        match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A new namespace with loopback up.
pub(crate) fn namespace() -> OwnedFd {
    let fd = std::thread::spawn(|| {
        netns::unshare_network().expect("unshare");
        netns::current_network().expect("open the namespace")
    })
    .join()
    .expect("the thread");
    ip(&fd, "link set lo up");
    fd
}

/// Runs `program` in the namespace and answers its output.
pub(crate) fn command(namespace: &impl AsFd, program: &str, arguments: &str) -> String {
    within(&namespace.as_fd(), || {
        let output = Command::new(program)
            .args(arguments.split_whitespace())
            .output()
            .expect("run the program");
        assert!(
            output.status.success(),
            "{program} {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

pub(crate) fn ip(namespace: &impl AsFd, arguments: &str) -> String {
    command(namespace, "ip", arguments)
}

/// A host that runs the network, and a neighbour on its other link.
pub(crate) struct World {
    pub(crate) host: OwnedFd,
    pub(crate) other: OwnedFd,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            host: namespace(),
            other: namespace(),
        };
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            world.other.as_raw_fd()
        );
        ip(
            &world.host,
            &format!("link add up0 type veth peer name eth0 netns {path}"),
        );
        ip(
            &world.host,
            &format!("address add {HOST_ADDRESS}/24 dev up0"),
        );
        ip(&world.host, "link set up0 up");
        ip(
            &world.other,
            &format!("address add {OTHER_ADDRESS}/24 dev eth0"),
        );
        ip(&world.other, "link set eth0 up");
        world
    }

    pub(crate) fn config(&self) -> NetworkConfig {
        NetworkConfig {
            pool_size: 2,
            resolv_conf: "/nonexistent".into(),
            ..NetworkConfig::new(BRIDGE)
        }
    }

    pub(crate) fn open(&self) -> Network {
        self.open_with(&self.config(), &[])
    }

    pub(crate) fn open_with(&self, config: &NetworkConfig, live: &[LiveEndpoint]) -> Network {
        within(&self.host, || Network::open(config.clone(), live)).expect("open the network")
    }

    pub(crate) fn attach(&self, network: &Network) -> Endpoint {
        within(&self.host, || network.attach()).expect("attach")
    }

    /// Waits until `settled` holds.
    pub(crate) fn wait_until(&self, what: &str, mut settled: impl FnMut() -> bool + Send) {
        within(&self.host, || {
            let end = Instant::now() + Duration::from_secs(20);
            while !settled() {
                assert!(Instant::now() < end, "{what}: not within 20 s");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    }
}

pub(crate) fn publish(
    host_ip: Ipv4Addr,
    host_port: u16,
    container: u16,
    protocol: Protocol,
) -> PublishSpec {
    PublishSpec {
        container: Port {
            number: container,
            protocol,
        },
        host_ip,
        host_port,
        host_port_end: host_port,
        more: 0,
    }
}

/// Serves connections in the namespace until the test ends; answers `label` and the client's
/// address.
pub(crate) fn serve_tcp(namespace: &impl AsFd, address: Ipv4Addr, port: u16, label: &'static str) {
    let bind = || TcpListener::bind((address, port)).expect("bind the server");
    let listener = within(&namespace.as_fd(), bind);
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            write!(stream, "{label} {}", peer.ip()).ok();
        }
    });
}

/// As [`serve_tcp`], for datagrams.
pub(crate) fn serve_udp(namespace: &impl AsFd, port: u16, label: &'static str) {
    let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind the server");
    let socket = within(&namespace.as_fd(), bind);
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let answer = format!("{label} {}", peer.ip());
            socket.send_to(answer.as_bytes(), peer).ok();
        }
    });
}

/// What a server says to a client in the namespace; `None` if none is reached.
pub(crate) fn ask_tcp(namespace: &impl AsFd, address: Ipv4Addr, port: u16) -> Option<String> {
    within(&namespace.as_fd(), || talk_tcp(address, port, PATIENCE))
}

/// Asserts that a client in the namespace reaches no server.
pub(crate) fn refuse_tcp(namespace: &impl AsFd, address: Ipv4Addr, port: u16) {
    let answer = within(&namespace.as_fd(), || talk_tcp(address, port, SUSPICION));
    assert_eq!(answer, None, "{address}:{port}/tcp");
}

fn talk_tcp(address: Ipv4Addr, port: u16, patience: Duration) -> Option<String> {
    let target = SocketAddr::V4(SocketAddrV4::new(address, port));
    let mut stream = TcpStream::connect_timeout(&target, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// As [`ask_tcp`], by datagram.
pub(crate) fn ask_udp(namespace: &impl AsFd, address: Ipv4Addr, port: u16) -> Option<String> {
    within(&namespace.as_fd(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        ask_udp_by(&socket, address, port, PATIENCE)
    })
}

/// As [`refuse_tcp`], by datagram.
pub(crate) fn refuse_udp(namespace: &impl AsFd, address: Ipv4Addr, port: u16) {
    let answer = within(&namespace.as_fd(), || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        ask_udp_by(&socket, address, port, SUSPICION)
    });
    assert_eq!(answer, None, "{address}:{port}/udp");
}

/// As [`ask_udp`], from a given socket.
pub(crate) fn ask_udp_by(
    socket: &UdpSocket,
    address: Ipv4Addr,
    port: u16,
    patience: Duration,
) -> Option<String> {
    socket.set_read_timeout(Some(patience / DATAGRAMS)).ok()?;
    socket.connect((address, port)).ok()?;
    for _ in 0..DATAGRAMS {
        let mut buffer = [0; 64];
        match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) => return Some(String::from_utf8_lossy(buffer.get(..length)?).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return None,
            Err(_) => {}
        }
    }
    None
}
