//! What somebody else takes away is noticed, told in words, and put back.

mod common;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use common::{
    BRIDGE, HOST_ADDRESS, OTHER_ADDRESS, World, ask_tcp, command, ip, publish, refuse_tcp,
    serve_tcp, within,
};
use hull_model::spec::Protocol;
use hull_network::{Endpoint, FaultyPart, Network, Notice, Plug, Watch};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// A network with a server in a container, published at port 8080 of the host.
fn served(world: &World) -> (Network, Endpoint) {
    let network = world.open();
    let container = world.attach(&network);
    serve_tcp(&container.netns, ANY, 80, "web");
    let wish = publish(ANY, 8080, 80, Protocol::Tcp);
    within(&world.host, || network.publish(container.address, &[wish])).expect("publish");
    (network, container)
}

/// Everything that is wrong, as lines.
fn faults(world: &World, network: &Network) -> Vec<String> {
    within(&world.host, || {
        let mut all = network.firewall().examine().expect("examine the table");
        all.extend(network.examine().expect("examine the network"));
        all.iter().map(ToString::to_string).collect()
    })
}

#[test]
fn table_changed_or_flushed_is_told_and_written_again() {
    let world = World::new();
    let (network, _container) = served(&world);
    assert_eq!(faults(&world, &network), Vec::<String>::new());

    let spoil = |what: &str| {
        command(&world.host, "nft", what);
        let told = faults(&world, &network);
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        within(&world.host, || network.firewall().write()).expect("write");
        assert_eq!(faults(&world, &network), Vec::<String>::new(), "{what}");
        told.concat()
    };
    let told = spoil("delete element inet hull tcp_ports { 8080 }");
    assert!(
        told.contains("8080 → 172.17.0.") && told.contains("is missing"),
        "{told}"
    );
    let told = spoil("add element inet hull bridges { eth7 }");
    assert!(told.contains("eth7 stands in bridges"), "{told}");
    let told = spoil("flush chain inet hull to_bridge");
    assert!(told.contains("chain to_bridge lacks"), "{told}");
    let told = spoil("insert rule inet hull forward accept");
    assert!(told.contains("too many"), "{told}");
    let told = spoil("add chain inet hull forward { policy drop ; }");
    assert!(told.contains("another policy"), "{told}");
    let told = spoil("flush ruleset");
    assert!(told.contains("table hull is missing"), "{told}");
    assert!(ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some());
}

#[test]
fn bridge_deleted_down_or_without_address_is_put_right_under_the_living() {
    let world = World::new();
    let (network, container) = served(&world);
    world.wait_until("the pool fills", || network.info().ready == 2);
    let mend = || within(&world.host, || network.mend()).expect("mend");
    let sound = || {
        assert_eq!(faults(&world, &network), Vec::<String>::new());
        assert!(ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some());
    };

    ip(&world.host, &format!("link set {BRIDGE} down"));
    let told = faults(&world, &network);
    assert_eq!(told, [format!("bridge: {BRIDGE} is down")]);
    assert!(!mend().bridge_made);
    sound();

    ip(&world.host, &format!("address flush dev {BRIDGE}"));
    let told = faults(&world, &network).concat();
    assert!(told.contains("lacks its address 172.17.0.1"), "{told}");
    mend();
    sound();

    ip(
        &world.host,
        &format!("link set {} nomaster", container.host_veth),
    );
    let told = faults(&world, &network).concat();
    assert!(told.contains("is not connected to hull0"), "{told}");
    mend();
    sound();

    ip(&world.host, &format!("link del {BRIDGE}"));
    refuse_tcp(&world.other, HOST_ADDRESS, 8080);
    let told = faults(&world, &network);
    assert_eq!(told[0], format!("bridge: {BRIDGE} is missing"));
    let mended = mend();
    assert!(mended.bridge_made && mended.unplugged.is_empty());
    sound();
    // Those that were kept ready are on the new bridge too, and new ones are made on it.
    serve_tcp(&world.other, ANY, 9000, "outside");
    for _ in 0..4 {
        let next = world.attach(&network);
        let answer = ask_tcp(&next.netns, OTHER_ADDRESS, 9000);
        assert_eq!(answer, Some(format!("outside {HOST_ADDRESS}")));
    }
}

#[test]
fn container_whose_link_was_deleted_gets_another_with_its_address() {
    let world = World::new();
    let (network, container) = served(&world);
    world.wait_until("the pool fills", || network.info().ready == 2);
    for link in ip(&world.host, "-o link").lines() {
        let name = link.split_whitespace().nth(1).unwrap_or_default();
        let name = name.split('@').next().unwrap_or_default();
        if name.starts_with(&container.host_veth[..7]) {
            ip(&world.host, &format!("link del {name}"));
        }
    }
    let told = faults(&world, &network).concat();
    assert!(told.contains("is gone"), "{told}");
    let mended = within(&world.host, || network.mend()).expect("mend");
    assert_eq!(mended.unplugged, [container.address]);
    let plug = Plug {
        netns: container.netns.as_fd(),
        interface: "eth0",
        address: None,
        mac: Some(container.mac),
    };
    let replug = || within(&world.host, || network.replug(container.address, &plug));
    let plugged = replug().expect("replug").expect("its link was gone");
    assert_eq!(plugged.address, container.address);
    assert!(network.holds(container.address, &plugged.host_veth));
    assert_eq!(replug().expect("replug"), None, "its link is there");
    hull_network::lead_out(container.netns.as_fd(), "eth0", plugged.gateway).expect("route");
    assert_eq!(faults(&world, &network), Vec::<String>::new());
    assert!(ask_tcp(&world.other, HOST_ADDRESS, 8080).is_some());
    world.wait_until("the pool fills", || network.info().ready == 2);
    within(&world.host, || network.release(container.address)).expect("release");
    world.wait_until("nothing leaks", || {
        network.check().expect("check").is_empty()
    });
}

#[test]
fn watch_hears_others_and_not_ourselves() {
    let world = World::new();
    let (network, container) = served(&world);
    let (told, heard) = std::sync::mpsc::channel();
    let (ready, started) = std::sync::mpsc::channel();
    let firewall = Arc::clone(network.firewall());
    let host = world.host.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        hull_sys::netns::enter_network(host).expect("enter");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut watch = Watch::start(&firewall, None).expect("watch");
            ready.send(()).expect("the test");
            while let Ok(notices) = watch.next().await {
                if notices.into_iter().any(|n| told.send(n).is_err()) {
                    break;
                }
            }
        });
    });
    started.recv().expect("it watches");
    let expect = |what: &str, wanted: Notice| {
        let mut seen = Vec::new();
        while seen.last() != Some(&wanted) {
            let notice = heard.recv_timeout(Duration::from_secs(10));
            seen.push(notice.unwrap_or_else(|_| panic!("{what}: {seen:?}")));
        }
    };
    // Our own: ports that come and go, containers that come.
    within(&world.host, || {
        network.unpublish(container.address).expect("unpublish");
        let wish = publish(ANY, 8081, 80, Protocol::Tcp);
        network
            .publish(container.address, &[wish])
            .expect("publish");
    });
    drop(world.attach(&network));
    assert_eq!(heard.try_recv().ok(), None, "what we do is no news");
    // Another's table is its own concern.
    command(&world.host, "nft", "add table ip theirs");
    command(&world.host, "nft", "delete table ip theirs");
    assert_ne!(heard.try_recv().ok(), Some(Notice::Table));
    command(&world.host, "nft", "flush ruleset");
    expect("the flush", Notice::Table);
    ip(&world.host, &format!("link set {BRIDGE} down"));
    expect("the bridge is down", Notice::Link(BRIDGE.into()));
    ip(&world.host, &format!("link del {BRIDGE}"));
    expect("the bridge goes", Notice::Link(BRIDGE.into()));
    assert!(network.has_link(&container.host_veth) && !network.has_link("eth0"));
    assert_eq!(
        faults(&world, &network)
            .iter()
            .filter(|told| told.starts_with(FaultyPart::Link.as_str()))
            .count(),
        1
    );
}
