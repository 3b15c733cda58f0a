//! Many networks: what a container's joining costs, in rules and in requests, does not grow.

mod common;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use std::os::fd::AsFd;

use common::{World, command, ip, publish, within};
use hull_model::spec::Protocol;
use hull_network::{Firewall, Network, NetworkConfig, Plug};

/// More by this variable: 200 takes half a minute.
const NETWORKS: u8 = 24;
const MORE: &str = "HULL_TEST_NETWORKS";
const MEMBERS: usize = 5;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn open(world: &World, firewall: &Arc<Firewall>, number: u8) -> Network {
    let config = NetworkConfig {
        firewall: Arc::clone(firewall),
        pool_size: 0,
        fresh: true,
        subnet: format!("10.77.{number}.0/24").parse().ok(),
        veth_prefix: Some(format!("hu{number:03}")),
        ..NetworkConfig::new(&format!("own{number}"))
    };
    world.open_with(&config, &[])
}

/// Has a container join, publish a port and leave again; how long each took.
fn visit(world: &World, network: &Network, netns: &OwnedFd) -> [Duration; 3] {
    within(&world.host, || {
        let start = Instant::now();
        let plugged = join(network, netns);
        let joined = start.elapsed();
        let start = Instant::now();
        let wish = publish(std::net::Ipv4Addr::UNSPECIFIED, 0, 80, Protocol::Tcp);
        network.publish(plugged, &[wish]).expect("publish");
        let published = start.elapsed();
        let start = Instant::now();
        network.unplug(plugged).expect("unplug");
        [joined, published, start.elapsed()]
    })
}

fn join(network: &Network, netns: &OwnedFd) -> std::net::Ipv4Addr {
    let plug = Plug {
        netns: netns.as_fd(),
        interface: "eth0",
        address: None,
        mac: None,
    };
    network.plug(&plug).expect("plug").address
}

#[test]
fn many_networks_have_the_rules_of_one_and_are_joined_as_fast() {
    let count = std::env::var(MORE).ok().and_then(|n| n.parse().ok());
    let count = count.unwrap_or(NETWORKS);
    let world = World::new();
    let firewall = Arc::new(Firewall::new("hull"));
    let rules = || {
        let table = command(&world.host, "nft", "-a list table inet hull");
        table
            .lines()
            .filter(|line| line.contains("# handle"))
            .count()
    };
    let probe = common::namespace();
    let first = open(&world, &firewall, 0);
    let one = rules();
    let visits = |network: &Network| {
        let all: Vec<_> = (0..9).map(|_| visit(&world, network, &probe)).collect();
        [0, 1, 2].map(|step| median(all.iter().map(|times| times[step]).collect()))
    };
    let before = visits(&first);

    let mut making = Vec::new();
    let mut inside = Vec::new();
    let mut networks = vec![first];
    for number in 1..count {
        let start = Instant::now();
        let network = open(&world, &firewall, number);
        making.push(start.elapsed());
        for _ in 0..MEMBERS {
            let netns = common::namespace();
            within(&world.host, || join(&network, &netns));
            inside.push(netns);
        }
        networks.push(network);
    }
    let last = &networks[networks.len() - 1];
    let after = visits(last);
    eprintln!(
        "{count} networks, {} endpoints: join, publish, leave {before:?} at first, {after:?} at last; \
         a network is made in {:?} at first, {:?} at last",
        inside.len(),
        making.first(),
        making.last()
    );
    // Time is told and not judged; that no chain or rule was added is.
    assert_eq!(rules(), one);
    let faults = within(&world.host, || firewall.examine()).expect("examine");
    assert_eq!(faults, []);

    let start = Instant::now();
    for network in &networks {
        assert_eq!(
            within(&world.host, || network.examine()).expect("examine"),
            []
        );
    }
    eprintln!("all compared with the kernel in {:?}", start.elapsed());
    let start = Instant::now();
    within(&world.host, || firewall.write()).expect("write");
    eprintln!("the table written anew in {:?}", start.elapsed());
    drop(inside);
    drop(networks);
    assert!(ip(&world.host, "-o link").contains("own1"));
}
