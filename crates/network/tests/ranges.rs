//! Published ranges, SCTP, and ports that come and go while a container runs.

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{
    HOST_ADDRESS, OTHER_ADDRESS, PATIENCE, World, ask_tcp, ask_udp, command, publish, refuse_tcp,
    refuse_udp, serve_tcp, serve_udp, within,
};
use hull_model::spec::{Protocol, PublishSpec, PublishedPort};
use hull_network::PortExchange;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn range(host_ip: Ipv4Addr, host: u16, container: u16, more: u16, kind: Protocol) -> PublishSpec {
    PublishSpec {
        more,
        ..publish(host_ip, host, container, kind)
    }
}

fn published(wish: PublishSpec) -> PublishedPort {
    PublishedPort {
        container: wish.container,
        host_ip: wish.host_ip,
        host_port: wish.host_port,
        more: wish.more,
    }
}

fn said(label: &str, client: Ipv4Addr) -> Option<String> {
    Some(format!("{label} {client}"))
}

#[test]
fn range_published_leads_each_port_to_its_own() {
    let world = World::new();
    let network = world.open();
    let web = world.attach(&network);
    let other = world.attach(&network);
    for (port, label) in [
        (20_000, "first"),
        (24_999, "last"),
        (80, "down"),
        (1_079, "end"),
        (9_001, "up"),
    ] {
        serve_tcp(&web.netns, ANY, port, label);
        serve_udp(&web.netns, port, label);
    }
    serve_tcp(&other.netns, ANY, 25_000, "neighbour");
    let wishes = [
        range(ANY, 20_000, 20_000, 4_999, Protocol::Tcp),
        range(ANY, 20_000, 20_000, 4_999, Protocol::Udp),
        range(ANY, 8_000, 80, 999, Protocol::Tcp),
        range(HOST_ADDRESS, 7_000, 9_000, 9, Protocol::Tcp),
        range(LOOPBACK, 6_000, 9_000, 9, Protocol::Udp),
    ];
    within(&world.host, || network.publish(web.address, &wishes)).expect("publish");
    let beside = [range(ANY, 25_000, 25_000, 9, Protocol::Tcp)];
    within(&world.host, || network.publish(other.address, &beside)).expect("publish beside");

    let client = &world.other;
    let from = |label| said(label, OTHER_ADDRESS);
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 20_000), from("first"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 24_999), from("last"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 25_000), from("neighbour"));
    assert_eq!(ask_udp(client, HOST_ADDRESS, 24_999), from("last"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 8_000), from("down"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 8_999), from("end"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 7_001), from("up"));
    refuse_tcp(client, HOST_ADDRESS, 7_002);
    refuse_tcp(client, HOST_ADDRESS, 19_999);
    let gateway = network.gateway();
    assert_eq!(
        ask_tcp(&world.host, LOOPBACK, 24_999),
        said("last", gateway)
    );
    assert_eq!(ask_udp(&world.host, LOOPBACK, 6_001), said("up", gateway));
    refuse_udp(&world.other, HOST_ADDRESS, 6_001);
    assert_eq!(ask_tcp(&web.netns, gateway, 24_999), said("last", gateway));

    // One element for each range, and nft can read them.
    let table = network.info().table;
    let listed = command(&world.host, "nft", &format!("list table inet {table}"));
    assert!(listed.contains("20000-24999"), "{listed}");
    assert!(listed.len() < 20_000, "{} bytes", listed.len());

    within(&world.host, || network.unpublish(web.address)).expect("unpublish");
    refuse_tcp(client, HOST_ADDRESS, 20_000);
    refuse_tcp(client, HOST_ADDRESS, 7_001);
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 25_000), from("neighbour"));
}

#[test]
fn port_of_sctp_leads_to_the_container() {
    let world = World::new();
    let network = world.open();
    let peer = world.attach(&network);
    let wishes = [
        publish(ANY, 3_868, 3_868, Protocol::Sctp),
        range(HOST_ADDRESS, 5_000, 6_000, 9, Protocol::Sctp),
    ];
    within(&world.host, || network.publish(peer.address, &wishes)).expect("publish");
    let gateway = network.gateway();
    for (to, arrives) in [(3_868, 3_868), (5_009, 6_009)] {
        let receiver = within(&peer.netns, sctp_socket);
        within(&world.other, || {
            let packet = sctp_init(40_000 + to, to);
            let target = std::net::SocketAddrV4::new(HOST_ADDRESS, 0);
            let flags = rustix::net::SendFlags::empty();
            rustix::net::sendto(sctp_socket(), &packet, flags, &target).expect("send");
        });
        let mut packet = [0_u8; 256];
        let flags = rustix::net::RecvFlags::empty();
        let (length, _) = rustix::net::recv(&receiver, &mut packet[..], flags).expect("an INIT");
        // After the IPv4 header of 20 bytes: ports of source and destination.
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!((port(20), port(22)), (40_000 + to, arrives));
        assert_eq!(
            packet[12..16],
            OTHER_ADDRESS.octets(),
            "the client's address"
        );
        assert!(length >= 52, "{length} bytes");
    }
    let table = network.info().table;
    let listed = command(&world.host, "nft", &format!("list table inet {table}"));
    assert!(listed.contains("3868 : "), "{gateway}: {listed}");
}

fn sctp_socket() -> std::os::fd::OwnedFd {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::RAW,
        Some(rustix::net::ipproto::SCTP),
    )
    .expect("a raw socket");
    let timeout = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE)).expect("a timeout");
    socket
}

/// An INIT chunk with its common header (RFC 9260, 3.1 and 3.3.2).
fn sctp_init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0; 4]); // verification tag
    packet.extend([0; 4]); // checksum
    packet.extend([1, 0, 0, 20]); // INIT, 20 bytes
    packet.extend(7_u32.to_be_bytes()); // initiate tag
    packet.extend(65_536_u32.to_be_bytes()); // window
    packet.extend([0, 1, 0, 1]); // streams
    packet.extend(1_u32.to_be_bytes()); // initial TSN
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    })
}

/// A connection over which the server sends a byte whenever it gets one.
fn echo(netns: &impl AsFd, port: u16) {
    let listener = within(&netns.as_fd(), || TcpListener::bind((ANY, port)));
    let listener = listener.expect("bind the server");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
}

fn connect(client: &impl AsFd, port: u16) -> TcpStream {
    let address = (HOST_ADDRESS, port).into();
    let stream = within(&client.as_fd(), || {
        TcpStream::connect_timeout(&address, PATIENCE)
    });
    let stream = stream.expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn answers(stream: &mut TcpStream) -> bool {
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

#[test]
fn port_removed_while_in_use_is_cut_and_others_go_on() {
    let world = World::new();
    let network = world.open();
    let web = world.attach(&network);
    echo(&web.netns, 8_080);
    serve_udp(&web.netns, 53, "dns");
    let wishes = [
        publish(ANY, 8_080, 8_080, Protocol::Tcp),
        publish(ANY, 9_090, 8_080, Protocol::Tcp),
        range(ANY, 50, 50, 9, Protocol::Udp),
    ];
    within(&world.host, || network.publish(web.address, &wishes)).expect("publish");
    let mut cut = connect(&world.other, 8_080);
    let mut kept = connect(&world.other, 9_090);
    assert!(answers(&mut cut) && answers(&mut kept));
    let socket = within(&world.other, || UdpSocket::bind((ANY, 0))).expect("a socket");
    let ask = || common::ask_udp_by(&socket, HOST_ADDRESS, 53, Duration::from_millis(800));
    assert!(ask().is_some());

    let remove = [
        published(wishes[0]),
        published(range(ANY, 53, 53, 0, Protocol::Udp)),
    ];
    let add = [publish(ANY, 8_081, 8_080, Protocol::Tcp)];
    let now = within(&world.host, || {
        let exchange = PortExchange {
            remove: &remove,
            add: &add,
            ..PortExchange::default()
        };
        network.republish(web.address, exchange, Some(web.netns.as_fd()))
    });
    assert_eq!(now.expect("republish").0.len(), 4, "two of TCP, two of UDP");
    // The client is told, without sending anything.
    cut.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let error = cut.read_exact(&mut [0]).expect_err("the connection is cut");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    assert!(answers(&mut kept), "another port's connection goes on");
    assert!(answers(&mut connect(&world.other, 8_081)), "the new port");
    refuse_tcp(&world.other, HOST_ADDRESS, 8_080);
    assert_eq!(ask(), None);

    // All or nothing.
    let holder = within(&world.host, || TcpListener::bind((ANY, 8_082))).expect("a listener");
    let taken = [
        publish(ANY, 8_083, 8_080, Protocol::Tcp),
        publish(ANY, 8_082, 8_080, Protocol::Tcp),
    ];
    let before = network.published(web.address);
    let error = within(&world.host, || {
        let exchange = PortExchange {
            remove: &[published(wishes[1])],
            add: &taken,
            ..PortExchange::default()
        };
        network.republish(web.address, exchange, None)
    });
    let error = error.expect_err("a port is taken").to_string();
    assert!(error.contains("address already in use"), "{error}");
    assert_eq!(network.published(web.address), before);
    assert!(answers(&mut kept));
    refuse_tcp(&world.other, HOST_ADDRESS, 8_083);
    drop(holder);
}

#[test]
fn range_of_one_network_is_not_given_to_another() {
    let world = World::new();
    let first = world.open();
    let mut config = world.config();
    config.bridge = "hull1".to_owned();
    config.firewall = std::sync::Arc::clone(first.firewall());
    let second = world.open_with(&config, &[]);
    let (one, two) = (world.attach(&first), world.attach(&second));
    let wide = [range(ANY, 20_000, 20_000, 999, Protocol::Tcp)];
    within(&world.host, || first.publish(one.address, &wide)).expect("publish");
    let inside = [publish(ANY, 20_500, 80, Protocol::Tcp)];
    let error = within(&world.host, || second.publish(two.address, &inside));
    let error = error.expect_err("a conflict").to_string();
    assert!(
        error.contains("0.0.0.0:20500 failed: port is already allocated"),
        "{error}"
    );
}
