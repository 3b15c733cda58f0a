//! Published ports that obey the rules which the host's administrator has for input.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;

use common::{
    HOST_ADDRESS, OTHER_ADDRESS, PATIENCE, World, ask_tcp, ask_udp, command, ip, publish,
    refuse_tcp, refuse_udp, serve_tcp, serve_udp, within,
};
use hull_model::spec::{Protocol, PublishSpec};
use hull_network::Network;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn open(world: &World, obey: bool) -> Network {
    let config = world.config();
    let firewall = Arc::clone(&config.firewall);
    within(&world.host, || firewall.obey_input(&config.bridge, obey)).expect("the switch");
    world.open_with(&config, &[])
}

fn nft(world: &World, arguments: &str) {
    command(&world.host, "nft", arguments);
}

/// An administrator's table whose rules for input can be added.
fn administrator(world: &World) {
    nft(world, "add table inet filter");
    nft(
        world,
        "add chain inet filter input { type filter hook input priority 0 ; }",
    );
}

fn said(label: &str, client: Ipv4Addr) -> Option<String> {
    Some(format!("{label} {client}"))
}

fn wishes() -> Vec<PublishSpec> {
    vec![
        publish(ANY, 8_080, 80, Protocol::Tcp),
        publish(HOST_ADDRESS, 5_353, 53, Protocol::Udp),
        PublishSpec {
            more: 999,
            ..publish(ANY, 20_000, 20_000, Protocol::Tcp)
        },
    ]
}

#[test]
fn published_port_obeys_the_hosts_rules_for_input() {
    let world = World::new();
    // The strictest check of where packets come from.
    command(&world.host, "sysctl", "-w net.ipv4.conf.all.rp_filter=1");
    let network = open(&world, true);
    let web = world.attach(&network);
    let peer = world.attach(&network);
    serve_tcp(&web.netns, ANY, 80, "web");
    serve_tcp(&web.netns, ANY, 20_500, "range");
    serve_udp(&web.netns, 53, "dns");
    within(&world.host, || network.publish(web.address, &wishes())).expect("publish");
    let client = &world.other;
    let from = |label| said(label, OTHER_ADDRESS);

    // The client's address is kept, and nothing else changes while no rule forbids it.
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 8_080), from("web"));
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 20_500), from("range"));
    assert_eq!(ask_udp(client, HOST_ADDRESS, 5_353), from("dns"));
    let gateway = network.gateway();
    assert_eq!(ask_tcp(&world.host, LOOPBACK, 8_080), said("web", gateway));
    for container in [&peer, &web] {
        let answer = ask_tcp(&container.netns, gateway, 8_080);
        assert_eq!(answer, said("web", gateway), "hairpin");
    }
    let large = within(client, || {
        let socket = UdpSocket::bind((ANY, 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
            .send_to(&[0; 20_000], (HOST_ADDRESS, 5_353))
            .expect("send");
        socket.recv_from(&mut [0; 64]).is_ok()
    });
    assert!(large, "a datagram in fragments");

    administrator(&world);
    nft(
        &world,
        "add rule inet filter input tcp dport { 8080, 20000-20999 } drop",
    );
    refuse_tcp(client, HOST_ADDRESS, 8_080);
    refuse_tcp(client, HOST_ADDRESS, 20_500);
    assert_eq!(ask_udp(client, HOST_ADDRESS, 5_353), from("dns"));
    // A rule that knows the client and where it comes from.
    nft(
        &world,
        &format!(
            "insert rule inet filter input iifname up0 ip saddr {OTHER_ADDRESS} tcp dport 8080 accept"
        ),
    );
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 8_080), from("web"));
    nft(&world, "flush chain inet filter input");
    nft(&world, "add rule inet filter input udp dport 5353 drop");
    refuse_udp(client, HOST_ADDRESS, 5_353);
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 20_500), from("range"));

    // Everything flushed, and an interface deleted: closed, and whole again when it is written.
    nft(&world, "flush ruleset");
    refuse_tcp(client, HOST_ADDRESS, 8_080);
    let listed = ip(&world.host, "-br link");
    let way = listed
        .split_whitespace()
        .find(|word| word.starts_with("hp"));
    let way = way
        .and_then(|name| name.split('@').next())
        .expect("the way back");
    ip(&world.host, &format!("link del {way}"));
    within(&world.host, || network.firewall().write()).expect("write");
    assert_eq!(ask_tcp(client, HOST_ADDRESS, 8_080), from("web"));
}

#[test]
fn hosts_own_connections_from_a_published_port_are_its_own() {
    let world = World::new();
    let network = open(&world, true);
    let web = world.attach(&network);
    serve_udp(&web.netns, 40_000, "container");
    serve_udp(&world.other, 7_000, "other");
    let range = PublishSpec {
        more: 999,
        ..publish(ANY, 40_000, 40_000, Protocol::Udp)
    };
    within(&world.host, || network.publish(web.address, &[range])).expect("publish");
    // Of a wide range a process may still use a port to ask others.
    let answer = within(&world.host, || {
        let socket = UdpSocket::bind((HOST_ADDRESS, 40_500)).expect("a socket");
        common::ask_udp_by(&socket, OTHER_ADDRESS, 7_000, PATIENCE)
    });
    assert_eq!(answer, said("other", HOST_ADDRESS));
}

#[test]
fn published_port_with_the_switch_off_is_as_in_docker() {
    let world = World::new();
    drop(open(&world, true));
    assert!(ip(&world.host, "-br link").contains("hp"));
    let network = open(&world, false);
    let web = world.attach(&network);
    serve_tcp(&web.netns, ANY, 80, "web");
    within(&world.host, || network.publish(web.address, &wishes())).expect("publish");
    administrator(&world);
    nft(&world, "add rule inet filter input tcp dport 8080 drop");
    let answer = ask_tcp(&world.other, HOST_ADDRESS, 8_080);
    assert_eq!(answer, said("web", OTHER_ADDRESS));
    // Nothing is left of what the switch needs.
    let links = ip(&world.host, "-br link");
    assert!(!links.contains("hp"), "{links}");
    let tables = command(&world.host, "nft", "list tables");
    assert!(!tables.contains("_input"), "{tables}");
}
