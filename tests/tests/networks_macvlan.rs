//! Networks on an interface of the host, macvlan, and without address management: containers are on
//! the wire as hosts of their own. The wire is a veth pair of the test's, the LAN behind it a
//! network namespace.

use std::time::Duration;

use hull_testkit::{Daemon, Run, wait_until};
use hull_tests::net::World;

/// A LAN: a veth pair whose far end is a host in a namespace; removed when dropped.
struct Lan {
    /// Our end, the parent of networks; also the namespace's name.
    name: String,
    /// The first three bytes of its addresses.
    prefix: String,
}

impl Lan {
    fn new(third: u8) -> Self {
        let lan = Self {
            name: format!("hm{:x}{third:x}", std::process::id()),
            prefix: format!("10.233.{third}"),
        };
        let name = &lan.name;
        for command in [
            format!("netns add {name}"),
            format!("-n {name} addr add 198.51.100.7/32 dev lo"),
            format!("-n {name} addr add fd00:232::7/128 dev lo nodad"),
            format!("-n {name} link set lo up"),
        ] {
            Run::new("ip").args(command.split(' ')).ok();
        }
        lan.wire();
        lan
    }

    /// Makes the wire.
    fn wire(&self) {
        let third = self.prefix.rsplit('.').next().unwrap_or_default();
        let (name, peer) = (&self.name, format!("{}p", self.name));
        for command in [
            format!("link add name {name} type veth peer name {peer} netns {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {}.1/24 dev {peer}", self.prefix),
            format!("-n {name} addr add fd00:233:{third}::1/64 dev {peer} nodad"),
            format!("-n {name} link set {peer} up"),
        ] {
            Run::new("ip").args(command.split(' ')).ok();
        }
    }

    /// Whether the host at the far end gets an answer.
    fn reaches(&self, address: &str) -> bool {
        let command = format!("netns exec {} busybox ping -c 1 -W 1 {address}", self.name);
        Run::new("ip").args(command.split(' ')).run().code == 0
    }

    /// What the host at the far end takes for the address's MAC address.
    fn neighbour(&self, address: &str) -> String {
        let command = format!("-n {} neigh show {address}", self.name);
        Run::new("ip").args(command.split(' ')).ok()
    }

    fn create(&self, world: &Daemon, args: &[&str], name: &str) -> String {
        let parent = format!("parent={}", self.name);
        let mut all = vec!["network", "create", "-d", "macvlan", "-o", parent.as_str()];
        all.extend(args);
        all.push(name);
        world.ok(all)
    }

    fn links(&self) -> String {
        let out = Run::new("ip").args(["-d", "link", "show"]).ok();
        let ours = out
            .lines()
            .filter(|line| line.contains(&format!("@{}", self.name)));
        ours.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "del", &self.name]).run();
        let _ = Run::new("ip").args(["link", "del", &self.name]).run();
    }
}

#[test]
fn macvlan_containers_are_hosts_of_the_lan_and_of_a_bridge_too() {
    let lan = Lan::new(1);
    let world = World::new();
    let subnet = format!("{}.0/24", lan.prefix);
    let gateway = format!("{}.1", lan.prefix);
    let range = format!("{}.64/26", lan.prefix);
    let args = [
        "--subnet",
        &subnet,
        "--gateway",
        &gateway,
        "--ip-range",
        &range,
    ];
    lan.create(&world, &args, "lan");
    let shown: serde_json::Value =
        serde_json::from_str(&world.ok(["network", "inspect", "lan"])).expect("JSON");
    assert_eq!(shown[0]["Driver"], "macvlan");
    assert_eq!(shown[0]["IPAM"]["Config"][0]["Gateway"], gateway.as_str());
    assert_eq!(shown[0]["Options"]["parent"], lan.name.as_str());

    world.ok(["network", "create", "back"]);
    world.sleeper(
        "one",
        &["--network", "lan", "--mac-address", "02:00:00:aa:bb:01"],
    );
    world.server("two", &["--network", "lan", "--network", "back"]);
    world.sleeper("three", &["--network", "back"]);
    let one = world.place("one", "lan", "IPAddress");
    let two = world.place("two", "lan", "IPAddress");
    assert!(
        one.starts_with(&lan.prefix) && two.starts_with(&lan.prefix),
        "{one} {two}"
    );
    // From outside and from inside, with the MAC address asked for.
    assert!(lan.reaches(&one) && lan.reaches(&two));
    assert!(lan.neighbour(&one).contains("02:00:00:aa:bb:01"));
    assert!(world.reaches("one", &gateway) && world.reaches("one", &two));
    // By name: of a hosts file where there is no name server, of the bridge's where there is one.
    assert!(world.reaches("one", "two") && world.reaches("one", "two.lan"));
    assert!(world.reaches("two", "one"));
    // Beyond the LAN by its router.
    assert!(world.reaches("one", "198.51.100.7"), "the default route");
    // The bridge beside it, with its names.
    assert!(world.reaches("two", "three") && world.reaches("three", "two"));
    let routes = world.inside("two", "ip route").stdout;
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
    world
        .hull(["network", "rm", "lan"])
        .fails_saying(1, "has active endpoints");
    let taken = [
        "run",
        "--rm",
        "--network",
        "lan",
        "--ip",
        &one,
        "busybox",
        "true",
    ];
    world.hull(taken).fails_saying(125, "already in use");

    // Left and joined again while it runs.
    world.ok(["network", "disconnect", "lan", "two"]);
    assert!(!lan.reaches(&two));
    assert!(!world.inside("one", "cat /etc/hosts").stdout.contains("two"));
    world.ok(["network", "connect", "--ip", &two, "lan", "two"]);
    let back = wait_until(Duration::from_secs(5), || lan.reaches(&two));
    assert!(back, "{two} is on the LAN again");
    assert!(world.reaches("one", "two"), "and called so");

    world.ok(["rm", "-f", "one", "two", "three"]);
    world.ok(["network", "rm", "lan"]);
    assert_eq!(lan.links(), "");
}

#[test]
fn macvlan_survives_the_daemon_and_private_ones_do_not_meet() {
    let lan = Lan::new(2);
    let mut daemon = Daemon::new();
    let subnet = format!("{}.0/24", lan.prefix);
    let args = ["--subnet", &subnet, "-o", "macvlan_mode=private"];
    lan.create(&daemon, &args, "apart");
    let run = |daemon: &Daemon, name: &str| {
        daemon.ok([
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "apart",
            "busybox",
            "sleep",
            "1000",
        ]);
        let template = "{{.NetworkSettings.Networks.apart.IPAddress}}";
        daemon.inspect(name, template)
    };
    let one = run(&daemon, "one");
    daemon.kill();
    daemon.start();
    assert!(lan.reaches(&one), "it runs on");
    let two = run(&daemon, "two");
    assert_ne!(one, two, "the address is still known");
    assert!(lan.reaches(&two));
    let met = daemon.hull(["exec", "one", "ping", "-c", "1", "-W", "1", &two]);
    assert_ne!(met.code, 0, "private links do not meet");
    daemon.ok(["restart", "-t", "0", "one"]);
    daemon.ok(["rm", "-f", "one", "two"]);
    assert_eq!(lan.links(), "");

    // The parent goes: that is said, now and by a new daemon, and the network can still go.
    Run::new("ip").args(["link", "del", &lan.name]).ok();
    let start = ["run", "--rm", "--network", "apart", "busybox", "true"];
    daemon.hull(start).fails_saying(125, "parent");
    daemon.stop();
    daemon.start();
    daemon.hull(start).fails_saying(125, "no interface");
    // It comes back.
    lan.wire();
    daemon.ok(start);
    let again = run(&daemon, "one");
    assert!(lan.reaches(&again));
    daemon.ok(["rm", "-f", "one"]);
    daemon.ok(["network", "rm", "apart"]);
}

#[test]
fn networks_that_this_host_or_the_parent_cannot_carry_are_refused() {
    let lan = Lan::new(3);
    let world = World::new();
    let parent = format!("parent={}", lan.name);
    let refused = |args: &[&str], reason: &str| {
        let start = ["network", "create"];
        let whole = start.iter().chain(args).chain(&["wrong"]);
        world.hull(whole).fails_saying(1, reason);
    };
    refused(
        &["-d", "macvlan", "-o", "parent=nosuch0"],
        "no interface nosuch0",
    );
    refused(&["-d", "macvlan", "-o", "parent=lo"], "loopback");
    refused(
        &["-d", "macvlan", "-o", &parent, "-o", "macvlan_mode=x"],
        "macvlan_mode",
    );
    refused(
        &[
            "-d",
            "macvlan",
            "-o",
            &parent,
            "--subnet",
            "10.233.3.0/24",
            "--gateway",
            "10.9.9.9",
        ],
        "no matching subnet for gateway 10.9.9.9",
    );
    refused(
        &["--ipam-driver", "null", "--subnet", "10.233.3.0/24"],
        "without address management",
    );
    // What the kernel lacks is said, and where it has it the network is made.
    let vlan = format!("parent={}.10", lan.name);
    for (args, kind) in [
        (vec!["-d", "ipvlan", "-o", &parent], "ipvlan"),
        (vec!["-d", "macvlan", "-o", &vlan], "VLAN"),
        (vec!["-d", "macvlan", "--internal"], "dummy"),
    ] {
        let whole = ["network", "create"]
            .into_iter()
            .chain(args)
            .chain(["kind"]);
        let out = world.hull(whole);
        if out.code == 0 {
            world.ok(["network", "rm", "kind"]);
        } else {
            out.fails_saying(1, &format!("kernel has no {kind} links"));
        }
    }
    assert_eq!(lan.links(), "", "nothing is left of what was refused");
    let passthru = ["--subnet", "10.233.3.0/24", "-o", "macvlan_mode=passthru"];
    lan.create(&world, &passthru, "whole");
    refused(&["-d", "macvlan", "-o", &parent], "passthru");
    world.sleeper("one", &["--network", "whole"]);
    let second = ["run", "--rm", "--network", "whole", "busybox", "true"];
    world.hull(second).fails_saying(125, "parent is in use");
    assert_eq!(world.ok(["network", "ls", "-q"]).lines().count(), 4);
}

#[test]
fn networks_without_address_management_leave_the_interface_bare() {
    let lan = Lan::new(4);
    let world = World::new();
    lan.create(&world, &["--ipam-driver", "null"], "bare");
    let bridge = format!("hmw{:x}", std::process::id());
    let named = format!("com.docker.network.bridge.name={bridge}");
    world.ok([
        "network",
        "create",
        "--ipam-driver",
        "null",
        "-o",
        &named,
        "wire",
    ]);
    let shown = || Run::new("ip").args(["link", "show", &bridge]).run().code == 0;
    assert!(shown(), "the bridge is there");
    world.ok([
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "bare",
        "--network",
        "wire",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "sleep",
        "1000",
    ]);
    world.sleeper("two", &["--network", "wire", "--cap-add", "NET_ADMIN"]);
    for name in ["one", "two"] {
        let addresses = world.inside(name, "ip -4 addr show; ip route").stdout;
        assert_eq!(
            addresses.matches("inet ").count(),
            1,
            "loopback alone: {addresses}"
        );
        assert!(!addresses.contains("default"), "{addresses}");
    }
    assert_eq!(world.place("one", "bare", "IPAddress"), "");
    world
        .hull([
            "run",
            "--rm",
            "--network",
            "bare",
            "--ip",
            "10.233.4.9",
            "busybox",
            "true",
        ])
        .fails_saying(125, "no address management");
    // Its user, or his DHCP client, gives it one.
    let bare = world.place("one", "bare", "MacAddress");
    let find =
        format!("for i in eth0 eth1; do grep -q {bare} /sys/class/net/$i/address && echo $i; done");
    let interface = world.inside("one", &find).stdout.trim().to_owned();
    let other = if interface == "eth0" { "eth1" } else { "eth0" };
    let set = format!("ip addr add {}.50/24 dev {interface}", lan.prefix);
    assert_eq!(world.inside("one", &set).code, 0);
    assert!(lan.reaches(&format!("{}.50", lan.prefix)));
    for (name, interface, address) in [("one", other, "1"), ("two", "eth0", "2")] {
        let set = format!("ip addr add 10.233.5.{address}/24 dev {interface}");
        assert_eq!(world.inside(name, &set).code, 0);
    }
    assert!(world.reaches("one", "10.233.5.2"), "by the bridge");
    world.ok(["network", "disconnect", "wire", "two"]);
    assert!(!world.reaches("one", "10.233.5.2"));
    world.ok(["rm", "-f", "one", "two"]);
    world.ok(["network", "rm", "bare", "wire"]);
    assert!(!shown(), "its bridge went");
}

#[test]
fn macvlan_containers_have_addresses_of_ipv6_where_they_are_asked_for() {
    let lan = Lan::new(5);
    let world = World::new();
    let subnet = format!("{}.0/24", lan.prefix);
    let args = [
        "--subnet",
        &subnet,
        "--subnet",
        "fd00:233:5::/64",
        "--gateway",
        &format!("{}.1", lan.prefix),
        "--gateway",
        "fd00:233:5::1",
    ];
    lan.create(&world, &args, "lan");
    let shown: serde_json::Value =
        serde_json::from_str(&world.ok(["network", "inspect", "lan"])).expect("JSON");
    assert_eq!(shown[0]["EnableIPv6"], true);
    assert_eq!(shown[0]["IPAM"]["Config"][1]["Subnet"], "fd00:233:5::/64");
    world.sleeper("one", &["--network", "lan"]);
    world.sleeper("two", &["--network", "lan", "--ip6", "fd00:233:5::99"]);
    let one = world.place("one", "lan", "GlobalIPv6Address");
    assert_eq!(
        world.place("two", "lan", "GlobalIPv6Address"),
        "fd00:233:5::99"
    );
    assert!(lan.reaches(&one) && lan.reaches("fd00:233:5::99"));
    assert!(world.reaches("one", "fd00:233:5::99"));
    assert!(world.reaches("one", "fd00:232::7"), "the default route");
    let taken = [
        "run",
        "--rm",
        "--network",
        "lan",
        "--ip6",
        &one,
        "busybox",
        "true",
    ];
    world.hull(taken).fails_saying(125, "already in use");
    let outside = [
        "run",
        "--rm",
        "--network",
        "lan",
        "--ip6",
        "fd00:9::9",
        "busybox",
        "true",
    ];
    world.hull(outside).fails_saying(125, "fd00:9::9");
    world.ok(["rm", "-f", "one", "two"]);
    world.ok(["network", "rm", "lan"]);
    assert_eq!(lan.links(), "");
}
