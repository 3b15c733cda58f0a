//! What a network keeps, gives back, and finds again.

mod common;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    BRIDGE, HOST_ADDRESS, OTHER_ADDRESS, PATIENCE, World, ask_tcp, ask_udp_by, command, ip,
    publish, refuse_tcp, serve_tcp, serve_udp, within,
};
use hull_model::spec::Protocol;
use hull_network::{LiveEndpoint, Network, NetworkConfig, OpenError};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn links(namespace: &impl AsFd) -> usize {
    ip(namespace, "-o link")
        .lines()
        .filter(|line| line.contains(": hv"))
        .count()
}

#[test]
fn hundred_attachments_leave_nothing_behind() {
    let world = World::new();
    let network = world.open();
    for _ in 0..20 {
        let endpoints: Vec<_> = (0..5).map(|_| world.attach(&network)).collect();
        for endpoint in &endpoints {
            let wish = publish(ANY, 0, 80, Protocol::Tcp);
            let published = within(&world.host, || network.publish(endpoint.address, &[wish]));
            assert_eq!(published.expect("publish").len(), 1);
        }
        for endpoint in endpoints {
            within(&world.host, || network.release(endpoint.address)).expect("release");
        }
    }
    world.wait_until("nothing leaks", || {
        network.check().expect("check").is_empty()
    });
    world.wait_until("the pool is full", || network.info().ready == 2);
    assert_eq!(links(&world.host), 2);
    let ports = command(&world.host, "nft", "list map inet hull tcp_ports");
    assert!(!ports.contains("elements"), "{ports}");

    within(&world.host, || network.destroy()).expect("destroy");
    world.wait_until("the links go", || links(&world.host) == 0);
    assert!(!ip(&world.host, "-o link").contains(BRIDGE));
    assert_eq!(command(&world.host, "nft", "list tables"), "");
}

#[test]
fn link_of_a_released_container_goes_though_its_namespace_lingers() {
    let world = World::new();
    let network = world.open();
    let endpoint = world.attach(&network);
    within(&world.host, || network.release(endpoint.address)).expect("release");
    world.wait_until("the link goes", || {
        !ip(&world.host, "-o link").contains(&endpoint.host_veth)
    });
    assert!(!ip(&endpoint.netns, "-o link").contains("eth0"));
}

#[test]
fn ports_taken_by_a_container_or_a_process_are_refused_until_released() {
    let world = World::new();
    let network = world.open();
    let (first, second) = (world.attach(&network), world.attach(&network));
    within(&world.host, || {
        let wish = publish(ANY, 8080, 80, Protocol::Tcp);
        network.publish(first.address, &[wish]).expect("publish");
        let on_one_address = publish(HOST_ADDRESS, 8080, 80, Protocol::Tcp);
        for wish in [wish, on_one_address] {
            let error = network.publish(second.address, &[wish]).expect_err("taken");
            assert!(
                error.to_string().contains("port is already allocated"),
                "{error}"
            );
        }
        assert!(TcpListener::bind((ANY, 8080)).is_err(), "the port is held");
        let same_number = publish(ANY, 8080, 80, Protocol::Udp);
        network
            .publish(second.address, &[same_number])
            .expect("another protocol");
        network.release(first.address).expect("release");
        network
            .publish(second.address, &[wish])
            .expect("free again");

        let server = TcpListener::bind((ANY, 9090)).expect("a process of the host");
        let wish = publish(ANY, 9090, 80, Protocol::Tcp);
        let error = network.publish(second.address, &[wish]).expect_err("taken");
        assert!(
            error.to_string().contains("address already in use"),
            "{error}"
        );
        drop(server);
        network
            .publish(second.address, &[wish])
            .expect("free again");
        let nobody = Ipv4Addr::new(172, 17, 200, 200);
        assert!(network.publish(nobody, &[wish]).is_err());
    });
}

#[test]
fn reopened_network_keeps_the_living_and_removes_strays() {
    let world = World::new();
    let network = world.open();
    let (kept, lost) = (world.attach(&network), world.attach(&network));
    serve_tcp(&kept.netns, ANY, 80, "kept");
    let wish = publish(ANY, 8080, 80, Protocol::Tcp);
    let ports = within(&world.host, || network.publish(kept.address, &[wish])).expect("publish");
    let subnet = within(&world.host, || network.info()).subnet;
    let prefix = kept.host_veth[..7].to_owned();
    // As after a kill: nothing is tidied, and a link of ours lies about.
    drop(network);
    ip(
        &world.host,
        &format!("link add {prefix}stray type veth peer name other0"),
    );
    ip(
        &world.host,
        &format!("link set {prefix}stray master {BRIDGE}"),
    );
    ip(&world.host, "link add hvforeign type veth peer name other1");
    assert!(
        ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some(),
        "served without a daemon"
    );

    let live = LiveEndpoint {
        address: kept.address,
        address6: None,
        host_veth: kept.host_veth.clone(),
        ports6: Vec::new(),
        ports,
    };
    let network = world.open_with(&world.config(), std::slice::from_ref(&live));
    assert_eq!(within(&world.host, || network.info()).subnet, subnet);
    world.wait_until("strays go", || {
        let links = ip(&world.host, "-o link");
        !links.contains("stray") && !links.contains(&lost.host_veth)
    });
    assert!(
        ip(&world.host, "-o link").contains("hvforeign"),
        "others' links stay"
    );
    assert!(
        ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some(),
        "still served"
    );
    let next = world.attach(&network);
    assert_ne!(next.address, kept.address);
    within(&world.host, || {
        assert!(
            network.publish(next.address, &[wish]).is_err(),
            "the port is still taken"
        );
        assert_eq!(network.published(kept.address), live.ports);
        network.release(kept.address).expect("release");
        network.publish(next.address, &[wish]).expect("free now");
    });
}

#[test]
fn reopened_network_without_its_bridge_makes_it_anew_for_the_living() {
    let world = World::new();
    let network = world.open();
    let kept = world.attach(&network);
    serve_tcp(&kept.netns, ANY, 80, "kept");
    drop(network);
    ip(&world.host, &format!("link del {BRIDGE}"));
    let live = LiveEndpoint {
        address: kept.address,
        address6: None,
        host_veth: kept.host_veth.clone(),
        ports6: Vec::new(),
        ports: Vec::new(),
    };
    let network = world.open_with(&world.config(), &[live]);
    assert!(ask_tcp(&world.host, kept.address, 80).is_some());
    drop(network);
}

#[test]
fn killed_networks_endpoints_vanish_with_their_descriptors() {
    let world = World::new();
    let network = world.open();
    let endpoint = world.attach(&network);
    world.wait_until("the pool fills", || network.info().ready == 2);
    assert!(links(&world.host) >= 3);
    drop(endpoint);
    drop(network);
    world.wait_until("the links go", || links(&world.host) == 0);
}

#[test]
fn subnet_avoids_the_hosts_routes_addresses_and_name_servers() {
    let world = World::new();
    ip(&world.host, "route add 172.17.64.0/20 via 198.51.100.2");
    ip(&world.host, "address add 172.18.9.9/24 dev up0");
    let directory = tempfile::tempdir().expect("a directory");
    let resolv_conf = directory.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 172.19.0.53\n").expect("write it");
    let config = NetworkConfig {
        resolv_conf,
        ..world.config()
    };
    let network = world.open_with(&config, &[]);
    let info = within(&world.host, || network.info());
    assert_eq!(info.subnet.to_string(), "172.20.0.0/16");
    assert_eq!(info.warnings, Vec::<String>::new());
    drop(network);

    let overlapping = NetworkConfig {
        subnet: Some("172.17.0.0/16".parse().expect("a subnet")),
        ..world.config()
    };
    let error = within(&world.host, || Network::open(overlapping, &[])).expect_err("overlap");
    assert!(matches!(error, OpenError::Overlap { .. }), "{error}");
    // Another subnet is taken over when nothing runs; the old address goes.
    let chosen = NetworkConfig {
        subnet: Some("10.99.0.0/24".parse().expect("a subnet")),
        ..world.config()
    };
    let network = world.open_with(&chosen, &[]);
    assert!(
        chosen
            .subnet
            .is_some_and(|subnet| subnet.contains(world.attach(&network).address))
    );
    let addresses = ip(&world.host, &format!("-o -4 address show {BRIDGE}"));
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
}

#[test]
fn networks_opened_at_once_choose_different_subnets() {
    let world = World::new();
    let open = |number: usize| {
        let config = NetworkConfig {
            pool_size: 1,
            ..NetworkConfig::new(&format!("hull{number}"))
        };
        world.open_with(&config, &[])
    };
    let networks: Vec<_> = std::thread::scope(|scope| {
        let start = |number| scope.spawn(move || open(number));
        let threads: Vec<_> = (0..8).map(start).collect();
        let joined = threads.into_iter();
        joined.map(|thread| thread.join().expect("open")).collect()
    });
    let mut subnets: Vec<_> = networks
        .iter()
        .map(|network| network.info().subnet)
        .collect();
    subnets.sort();
    subnets.dedup();
    assert_eq!(subnets.len(), 8, "{subnets:?}");
}

#[test]
fn tables_of_others_are_left_alone_and_a_flushed_one_comes_back() {
    let world = World::new();
    command(&world.host, "nft", "add table ip theirs");
    command(
        &world.host,
        "nft",
        "add chain ip theirs keep { type filter hook input priority 0 ; }",
    );
    command(
        &world.host,
        "nft",
        "add rule ip theirs keep tcp dport 22 counter accept",
    );
    let before = command(&world.host, "nft", "list table ip theirs");
    let network = world.open();
    let container = world.attach(&network);
    serve_tcp(&container.netns, ANY, 80, "web");
    let wish = |port| publish(ANY, port, 80, Protocol::Tcp);
    within(&world.host, || {
        network.publish(container.address, &[wish(8080)])
    })
    .expect("publish");
    let table = command(&world.host, "nft", "list table inet hull");
    assert!(
        table.contains("8080 : 172.17.0.") && table.contains("masquerade"),
        "{table}"
    );
    assert_eq!(command(&world.host, "nft", "list table ip theirs"), before);

    command(&world.host, "nft", "delete table inet hull");
    refuse_tcp(&world.other, HOST_ADDRESS, 8080);
    within(&world.host, || {
        network.publish(container.address, &[wish(8081)])
    })
    .expect("publish");
    assert!(ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some());
    assert!(ask_tcp(&world.other, HOST_ADDRESS, 8081).is_some());
    within(&world.host, || network.destroy()).expect("destroy");
    assert_eq!(command(&world.host, "nft", "list table ip theirs"), before);
}

#[test]
fn tables_of_an_older_version_go_and_another_daemons_stay() {
    let world = World::new();
    for table in ["hull", "hull-own0", "hull-others0"] {
        command(&world.host, "nft", &format!("add table ip {table}"));
    }
    let network = world.open();
    let own = NetworkConfig {
        firewall: Arc::clone(network.firewall()),
        pool_size: 0,
        ..NetworkConfig::new("own0")
    };
    let own = world.open_with(&own, &[]);
    within(&world.host, || own.firewall().write()).expect("write");
    let tables = command(&world.host, "nft", "list tables");
    let mut tables: Vec<_> = tables.lines().collect();
    tables.sort_unstable();
    assert_eq!(tables, ["table inet hull", "table ip hull-others0"]);
}

#[test]
fn networks_share_a_table_whose_rules_do_not_grow() {
    let world = World::new();
    let rules = || {
        let table = command(&world.host, "nft", "-a list table inet hull");
        let handles = table.lines().filter(|line| line.contains("# handle"));
        handles.count()
    };
    let first = world.open();
    let before = rules();
    let config = |number: usize| NetworkConfig {
        firewall: Arc::clone(first.firewall()),
        pool_size: 0,
        subnet: format!("10.{number}.0.0/24").parse().ok(),
        ..NetworkConfig::new(&format!("own{number}"))
    };
    let more: Vec<_> = (1..=20)
        .map(|number| world.open_with(&config(number), &[]))
        .collect();
    assert_eq!(rules(), before);
    let bridges = command(&world.host, "nft", "list set inet hull bridges");
    assert_eq!(bridges.matches("own").count(), 20, "{bridges}");
    for network in more {
        within(&world.host, || network.destroy()).expect("destroy");
    }
    assert_eq!(rules(), before);
    let bridges = command(&world.host, "nft", "list set inet hull bridges");
    assert_eq!(bridges.matches("own").count(), 0, "{bridges}");
}

#[test]
fn firewall_that_drops_forwarded_packets_is_named_in_a_warning() {
    let world = World::new();
    command(&world.host, "nft", "add table ip strict");
    command(
        &world.host,
        "nft",
        "add chain ip strict f { type filter hook forward priority 0 ; policy drop ; }",
    );
    let network = world.open();
    let warnings = within(&world.host, || network.info()).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("table strict"), "{warnings:?}");
}

#[test]
fn udp_client_that_goes_on_sending_reaches_the_next_container() {
    let world = World::new();
    let network = world.open();
    let (first, second) = (world.attach(&network), world.attach(&network));
    serve_udp(&first.netns, 53, "first");
    serve_udp(&second.netns, 53, "second");
    let wish = publish(ANY, 5353, 53, Protocol::Udp);
    within(&world.host, || network.publish(first.address, &[wish])).expect("publish");
    let client = within(&world.other, || UdpSocket::bind((ANY, 0))).expect("a client");
    let answer = |label: &str| Some(format!("{label} {OTHER_ADDRESS}"));
    assert_eq!(
        ask_udp_by(&client, HOST_ADDRESS, 5353, PATIENCE),
        answer("first")
    );
    within(&world.host, || network.unpublish(first.address)).expect("unpublish");
    // Goes on sending while nobody is there: the kernel now takes the flow for one to the host.
    world.wait_until("the flow is forgotten", || {
        ask_udp_by(&client, HOST_ADDRESS, 5353, PATIENCE).is_none()
    });
    within(&world.host, || network.publish(second.address, &[wish])).expect("publish");
    let mut last = None;
    world.wait_until("the flow is forgotten", || {
        last = ask_udp_by(&client, HOST_ADDRESS, 5353, PATIENCE);
        last == answer("second")
    });
}

#[test]
fn unusable_names_and_foreign_interfaces_are_refused() {
    let world = World::new();
    for bridge in ["", "a/b", "..", "0x", "a-name-of-16-byte"] {
        let outcome = within(&world.host, || {
            Network::open(NetworkConfig::new(bridge), &[]).map(|_| ())
        });
        assert!(
            matches!(outcome, Err(OpenError::InvalidName { .. })),
            "{bridge:?}"
        );
    }
    let outcome = within(&world.host, || {
        Network::open(NetworkConfig::new("up0"), &[]).map(|_| ())
    });
    assert!(matches!(outcome, Err(OpenError::NotABridge { .. })));
}

#[test]
fn first_packet_of_an_endpoint_made_under_load_is_not_lost() {
    let world = World::new();
    let config = NetworkConfig {
        pool_size: 0,
        ..world.config()
    };
    let network = world.open_with(&config, &[]);
    serve_tcp(&world.host, ANY, 9000, "host");
    let connect = || {
        let endpoint = world.attach(&network);
        let start = Instant::now();
        let answer = ask_tcp(&endpoint.netns, endpoint.gateway, 9000);
        (answer, start.elapsed())
    };
    let times: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(connect)).collect();
        let joined = threads.into_iter();
        joined
            .map(|thread| thread.join().expect("connect"))
            .collect()
    });
    for (answer, time) in times {
        assert!(answer.is_some());
        // A lost one is sent again after a second.
        assert!(time < Duration::from_millis(900), "{time:?}");
    }
}

#[test]
fn parallel_attachments_get_different_addresses_and_times_are_told() {
    let world = World::new();
    let config = NetworkConfig {
        pool_size: 8,
        ..world.config()
    };
    let network = world.open_with(&config, &[]);
    world.wait_until("the pool fills", || network.info().ready == 8);
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let timed = |count: usize| {
        within(&world.host, || {
            let once = |_| {
                let start = Instant::now();
                let endpoint = network.attach().expect("attach");
                (start.elapsed(), endpoint)
            };
            (0..count).map(once).unzip::<_, _, Vec<_>, Vec<_>>()
        })
    };
    let (warm, mut endpoints) = timed(8);
    let (cold, more) = timed(20);
    endpoints.extend(more);
    let warm = median(warm);
    eprintln!("attach: warm {warm:?}, cold {:?}", median(cold));
    assert!(warm < Duration::from_millis(1), "warm: {warm:?}");

    let start = Instant::now();
    let parallel = std::thread::scope(|scope| {
        let one = || scope.spawn(|| world.attach(&network));
        let threads: Vec<_> = (0..50).map(|_| one()).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("attach"));
        joined.collect::<Vec<_>>()
    });
    eprintln!("attach: 50 in parallel {:?}", start.elapsed());
    endpoints.extend(parallel);
    let mut addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 78);

    let wish = publish(ANY, 0, 80, Protocol::Tcp);
    let start = Instant::now();
    within(&world.host, || {
        network.publish(endpoints[0].address, &[wish])
    })
    .expect("publish");
    eprintln!("publish: {:?}", start.elapsed());
    let start = Instant::now();
    within(&world.host, || network.release(endpoints[0].address)).expect("release");
    eprintln!("release with a port: {:?}", start.elapsed());
    let start = Instant::now();
    within(&world.host, || network.release(endpoints[1].address)).expect("release");
    eprintln!("release: {:?}", start.elapsed());
}
