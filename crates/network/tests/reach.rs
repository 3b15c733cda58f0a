//! Who reaches a published port, from where, and seen as whom.

mod common;

use std::net::Ipv4Addr;

use common::{
    HOST_ADDRESS, OTHER_ADDRESS, World, ask_tcp, ask_udp, command, ip, publish, refuse_tcp,
    refuse_udp, serve_tcp, serve_udp, within,
};
use hull_model::spec::Protocol;
use hull_network::NetworkConfig;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn published_port_is_reached_from_everywhere_with_the_clients_address() {
    for bridged_packets_pass_firewall in ["0", "1"] {
        let world = World::new();
        within(&world.host, || {
            // Only there where br_netfilter is.
            let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            std::fs::write(path, bridged_packets_pass_firewall).ok();
            let path = "/proc/sys/net/ipv4/conf/all/rp_filter";
            std::fs::write(path, "1").expect("set rp_filter");
        });
        check_reach_from_everywhere(&world);
    }
}

fn check_reach_from_everywhere(world: &World) {
    let network = world.open();
    let (web, peer) = (world.attach(&network), world.attach(&network));
    serve_tcp(&web.netns, ANY, 80, "web");
    serve_udp(&web.netns, 53, "dns");
    let wishes = [
        publish(ANY, 8080, 80, Protocol::Tcp),
        publish(ANY, 5353, 53, Protocol::Udp),
    ];
    within(&world.host, || network.publish(web.address, &wishes)).expect("publish");
    let gateway = web.gateway;
    let from = |label: &str, client: Ipv4Addr| Some(format!("{label} {client}"));

    // Another host: its own address is seen.
    assert_eq!(
        ask_tcp(&world.other, HOST_ADDRESS, 8080),
        from("web", OTHER_ADDRESS)
    );
    assert_eq!(
        ask_udp(&world.other, HOST_ADDRESS, 5353),
        from("dns", OTHER_ADDRESS)
    );
    // The host by its own address, by the bridge's, and by loopback.
    assert_eq!(
        ask_tcp(&world.host, HOST_ADDRESS, 8080),
        from("web", HOST_ADDRESS)
    );
    assert_eq!(
        ask_udp(&world.host, HOST_ADDRESS, 5353),
        from("dns", HOST_ADDRESS)
    );
    assert_eq!(ask_tcp(&world.host, gateway, 8080), from("web", gateway));
    assert_eq!(ask_tcp(&world.host, LOOPBACK, 8080), from("web", gateway));
    assert_eq!(ask_udp(&world.host, LOOPBACK, 5353), from("dns", gateway));
    // Another container, and the container itself (hairpin), by either address of the host.
    for (who, client) in [("peer", &peer), ("itself", &web)] {
        for address in [HOST_ADDRESS, gateway] {
            let answer = ask_tcp(&client.netns, address, 8080);
            assert_eq!(answer, from("web", gateway), "{who} by {address}");
            let answer = ask_udp(&client.netns, address, 5353);
            assert_eq!(answer, from("dns", gateway), "{who} by {address}");
        }
    }
    // Containers among themselves need no publishing.
    assert_eq!(
        ask_tcp(&peer.netns, web.address, 80),
        from("web", peer.address)
    );
    // A protocol that was not published is not.
    refuse_tcp(&world.other, HOST_ADDRESS, 5353);

    within(&world.host, || network.unpublish(web.address)).expect("unpublish");
    refuse_tcp(&world.other, HOST_ADDRESS, 8080);
    refuse_udp(&world.other, HOST_ADDRESS, 5353);
    refuse_tcp(&world.host, LOOPBACK, 8080);
}

#[test]
fn port_published_on_one_address_is_not_reached_by_another() {
    let world = World::new();
    ip(&world.host, "address add 198.51.100.3/24 dev up0");
    let second = Ipv4Addr::new(198, 51, 100, 3);
    let network = world.open();
    let web = world.attach(&network);
    serve_tcp(&web.netns, ANY, 80, "web");
    serve_udp(&web.netns, 80, "dns");
    let wishes = [
        publish(LOOPBACK, 8080, 80, Protocol::Tcp),
        publish(LOOPBACK, 8080, 80, Protocol::Udp),
        publish(second, 8081, 80, Protocol::Tcp),
    ];
    within(&world.host, || network.publish(web.address, &wishes)).expect("publish");

    assert!(ask_tcp(&world.host, LOOPBACK, 8080).is_some());
    assert!(ask_udp(&world.host, LOOPBACK, 8080).is_some());
    refuse_tcp(&world.host, HOST_ADDRESS, 8080);
    refuse_tcp(&world.other, HOST_ADDRESS, 8080);
    assert!(ask_tcp(&world.other, second, 8081).is_some());
    refuse_tcp(&world.other, HOST_ADDRESS, 8081);
    refuse_tcp(&world.host, LOOPBACK, 8081);

    // A neighbour that sends packets for 127.0.0.1 over the link does not get in.
    route_loopback_over(&world.other, "eth0", HOST_ADDRESS);
    refuse_tcp(&world.other, LOOPBACK, 8080);
    refuse_udp(&world.other, LOOPBACK, 8080);
}

/// Has the namespace send packets for 127.0.0.1 to `gateway`, as a hostile machine can.
fn route_loopback_over(namespace: &impl std::os::fd::AsFd, interface: &str, gateway: Ipv4Addr) {
    within(&namespace.as_fd(), || {
        let path = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
        std::fs::write(path, "1").expect("set route_localnet");
    });
    ip(namespace, "address del 127.0.0.1/8 dev lo");
    ip(
        namespace,
        &format!("route add 127.0.0.1/32 via {gateway} dev {interface}"),
    );
}

#[test]
fn container_cannot_reach_loopback_servers_of_the_host() {
    let world = World::new();
    let network = world.open();
    let container = world.attach(&network);
    serve_tcp(&world.host, LOOPBACK, 6379, "secret");
    serve_tcp(&world.host, ANY, 6380, "open");
    assert!(ask_tcp(&world.host, LOOPBACK, 6379).is_some());

    route_loopback_over(&container.netns, "eth0", container.gateway);
    refuse_tcp(&container.netns, LOOPBACK, 6379);
    // What listens on every address is reached by the host's real addresses, as with Docker.
    assert!(ask_tcp(&container.netns, container.gateway, 6380).is_some());
}

#[test]
fn container_reaches_other_hosts_by_masquerade_and_is_not_routed_to() {
    let world = World::new();
    let network = world.open();
    let container = world.attach(&network);
    serve_tcp(&world.other, ANY, 9000, "outside");
    serve_udp(&world.other, 9000, "outside");
    serve_tcp(&container.netns, ANY, 80, "web");
    let as_host = Some(format!("outside {HOST_ADDRESS}"));
    assert_eq!(ask_tcp(&container.netns, OTHER_ADDRESS, 9000), as_host);
    assert_eq!(ask_udp(&container.netns, OTHER_ADDRESS, 9000), as_host);

    // A neighbour with a route to the subnet reaches only what is published.
    let subnet = within(&world.host, || network.info()).subnet;
    ip(
        &world.other,
        &format!("route add {subnet} via {HOST_ADDRESS}"),
    );
    refuse_tcp(&world.other, container.address, 80);
    // The host itself does reach it.
    assert!(ask_tcp(&world.host, container.address, 80).is_some());
}

#[test]
fn two_networks_of_a_host_meet_only_by_published_ports() {
    let world = World::new();
    let first = world.open();
    let config = NetworkConfig {
        pool_size: 1,
        ..NetworkConfig::new("hull1")
    };
    let second = world.open_with(&config, &[]);
    let subnets = within(&world.host, || [first.info().subnet, second.info().subnet]);
    assert!(!subnets[0].overlaps(subnets[1]), "{subnets:?}");
    let (web, client) = (world.attach(&first), world.attach(&second));
    serve_tcp(&web.netns, ANY, 80, "web");
    let wish = publish(ANY, 8080, 80, Protocol::Tcp);
    within(&world.host, || first.publish(web.address, &[wish])).expect("publish");

    refuse_tcp(&client.netns, web.address, 80);
    assert!(ask_tcp(&client.netns, HOST_ADDRESS, 8080).is_some());
    assert!(ask_tcp(&client.netns, client.gateway, 8080).is_some());
    assert!(ask_tcp(&client.netns, web.gateway, 8080).is_some());
    let error = within(&world.host, || second.publish(client.address, &[wish]));
    assert!(error.is_err(), "the port is the first network's");
    assert!(
        within(&world.host, || first.check())
            .expect("check")
            .is_empty()
    );
    assert!(
        within(&world.host, || second.check())
            .expect("check")
            .is_empty()
    );
}

#[test]
fn namespace_without_a_network_has_loopback_alone() {
    let world = World::new();
    let namespace = within(&world.host, hull_network::isolated).expect("a namespace");
    serve_tcp(&namespace, LOOPBACK, 80, "self");
    assert!(ask_tcp(&namespace, LOOPBACK, 80).is_some());
    assert_eq!(ip(&namespace, "-o link").lines().count(), 1);
    assert_eq!(ip(&namespace, "route"), "");
}

#[test]
fn container_sees_loopback_address_route_and_mac_as_promised() {
    let world = World::new();
    let network = world.open();
    let container = world.attach(&network);
    let addresses = ip(&container.netns, "-o address");
    assert!(addresses.contains("127.0.0.1/8"), "{addresses}");
    let wanted = format!("{}/{}", container.address, container.prefix);
    assert!(addresses.contains(&wanted), "{addresses}");
    assert!(!addresses.contains("fe80:"), "{addresses}");
    let link = ip(&container.netns, "-o link show eth0");
    assert!(
        link.contains(&container.mac.to_string()) && link.contains("mtu 1500"),
        "{link}"
    );
    let routes = ip(&container.netns, "route");
    assert!(
        routes.contains(&format!("default via {} dev eth0", container.gateway)),
        "{routes}"
    );
    let bridge = ip(&world.host, "-o address show hull0");
    assert!(!bridge.contains("inet6"), "{bridge}");
    let ports = ip(&world.host, "-6 -o address");
    assert!(!ports.contains("hv"), "{ports}");
    let low_port = command(
        &container.netns,
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    );
    assert_eq!(low_port.trim(), "0");
}
