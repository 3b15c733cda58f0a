//! Networks of the user's own: made, listed, removed; who reaches whom; joined and left by
//! containers that run.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use hull_testkit::{Run, wait_until};
use hull_tests::net::{World, serves};

/// The interfaces of the host with an address in this subnet.
fn interface_with(address: &str) -> String {
    let out = Run::new("ip").args(["-4", "-o", "addr"]).ok();
    let line = out.lines().find(|line| line.contains(address));
    line.and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn network_made_is_shown_as_asked_for_and_removed_without_a_trace() {
    let world = World::new();
    let id = world.ok([
        "network",
        "create",
        "--subnet",
        "10.231.4.0/24",
        "--gateway",
        "10.231.4.9",
        "--ip-range",
        "10.231.4.128/25",
        "--aux-address",
        "router=10.231.4.129",
        "--label",
        "tier=front",
        "--opt",
        "com.docker.network.driver.mtu=1400",
        "front",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    let shown: serde_json::Value =
        serde_json::from_str(&world.ok(["network", "inspect", "front"])).expect("JSON");
    let config = &shown[0]["IPAM"]["Config"][0];
    assert_eq!(shown[0]["Id"], id.as_str());
    assert_eq!(shown[0]["Labels"]["tier"], "front");
    assert_eq!(config["Subnet"], "10.231.4.0/24");
    assert_eq!(config["Gateway"], "10.231.4.9");
    assert_eq!(config["IPRange"], "10.231.4.128/25");
    assert_eq!(config["AuxiliaryAddresses"]["router"], "10.231.4.129");
    let listed = world.ok(["network", "ls", "--filter", "label=tier=front", "-q"]);
    assert_eq!(listed, id[..12]);
    assert_eq!(
        world.ok(["network", "ls", "-q", "--filter", "type=custom"]),
        listed
    );

    world.sleeper("one", &["--network", "front"]);
    assert_eq!(world.place("one", "front", "IPAddress"), "10.231.4.128");
    world.sleeper("two", &["--network", &id]);
    assert_eq!(world.place("two", "front", "IPAddress"), "10.231.4.130");
    let link = world.inside("two", "ip link show eth0").stdout;
    assert!(link.contains("mtu 1400"), "{link}");
    assert!(world.reaches("one", "10.231.4.9"), "the gateway answers");
    world
        .hull(["network", "rm", "front"])
        .fails_saying(1, "has active endpoints");

    let bridge = interface_with("10.231.4.9");
    assert!(!bridge.is_empty(), "the bridge has the gateway's address");
    world.ok(["rm", "-f", "one", "two"]);
    assert_eq!(world.ok(["network", "rm", "front"]), "front");
    assert!(Run::new("ip").args(["link", "show", &bridge]).run().code != 0);
    let tables = Run::new("nft").args(["list", "tables"]).ok();
    assert!(!tables.contains(&bridge), "{tables}");
    world
        .hull(["network", "inspect", "front"])
        .fails_saying(1, "network front not found");
}

#[test]
fn network_wrongly_asked_for_is_refused_with_the_reason() {
    let world = World::new();
    world.ok(["network", "create", "--subnet", "10.231.5.0/24", "front"]);
    let refused = |args: &[&str], reason: &str| {
        let start = ["network", "create"];
        let whole = start.iter().chain(args);
        world.hull(whole).fails_saying(1, reason);
    };
    refused(&["front"], "already exists");
    refused(&["bridge"], "predefined bridge network");
    refused(&["a b"], "name");
    refused(&["--subnet", "10.231.0.0/16", "wide"], "overlaps");
    refused(&["--subnet", "10.231.6", "cut"], "invalid subnet");
    refused(&["--gateway", "10.231.6.1", "cut"], "--subnet");
    refused(
        &["--subnet", "10.231.6.0/24", "--gateway", "10.9.9.9", "off"],
        "no matching subnet for gateway 10.9.9.9",
    );
    refused(&["--driver", "overlay", "wide"], "not built yet");
    refused(&["--opt", "com.docker.network.driver.mtu=1", "thin"], "MTU");
    refused(
        &["--opt", "com.docker.network.bridge.name=lo", "lo"],
        "exists",
    );
    for name in ["bridge", "host", "none"] {
        world
            .hull(["network", "rm", name])
            .fails_saying(1, "pre-defined");
    }
    let run = |args: &[&str], reason: &str| {
        let whole = ["run", "--rm"]
            .iter()
            .chain(args)
            .chain(&["busybox", "true"]);
        world.hull(whole).fails_saying(125, reason);
    };
    run(&["--network", "nosuchnet"], "network nosuchnet not found");
    run(&["--network", "front", "--ip", "10.9.9.9"], "10.9.9.9");
    run(
        &["--network", "bridge", "--ip", "172.17.0.9"],
        "user defined",
    );
    run(&["--network", "front", "--mac-address", "x"], "MAC");
    world.sleeper("one", &["--network", "front", "--ip", "10.231.5.7"]);
    run(
        &["--network", "front", "--ip", "10.231.5.7"],
        "already in use",
    );
    assert_eq!(world.ok(["network", "ls", "-q"]).lines().count(), 4);
}

#[test]
fn networks_beyond_thirty_one_find_subnets_of_their_own() {
    let world = World::new();
    let names: Vec<String> = (0..40).map(|number| format!("net{number}")).collect();
    for name in &names {
        world.ok(["network", "create", name]);
    }
    let template = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
    let whole = ["network", "inspect", "--format", template];
    let shown = world.ok(whole.into_iter().chain(names.iter().map(String::as_str)));
    let mut subnets: Vec<&str> = shown.lines().collect();
    subnets.sort_unstable();
    subnets.dedup();
    assert_eq!(subnets.len(), names.len(), "{shown}");
    world.sleeper("last", &["--network", "net39"]);
    assert!(world.reaches("last", "last"));
    let pruned = world.ok(["network", "prune", "-f"]);
    assert_eq!(pruned.lines().filter(|l| l.starts_with("net")).count(), 39);
    assert_eq!(world.ok(["network", "ls", "-q"]).lines().count(), 4);
}

#[test]
fn compose_like_topology_lets_the_database_be_reached_from_the_back_alone() {
    let world = World::new();
    world.ok(["network", "create", "front"]);
    world.ok(["network", "create", "--internal", "back"]);
    world.server("web", &["--network", "front", "-p", "80"]);
    world.sleeper("app", &["--network", "front", "--network", "back"]);
    world.server(
        "db",
        &["--network", "back", "--mac-address", "92:d0:c6:0a:29:33"],
    );

    // Both networks, each with its interface, and one way out.
    let links = world.inside("app", "ls /sys/class/net; ip route").stdout;
    assert!(links.contains("eth0") && links.contains("eth1"), "{links}");
    assert_eq!(links.matches("default").count(), 1, "{links}");
    assert!(world.inside("db", "ip route | grep default").code != 0);
    let mac = world.inside("db", "cat /sys/class/net/eth0/address").stdout;
    assert_eq!(mac.trim(), "92:d0:c6:0a:29:33");

    for (from, to) in [("app", "web"), ("app", "db"), ("db", "app"), ("web", "app")] {
        assert!(world.reaches(from, to), "{from} to {to}");
    }
    assert!(!world.reaches("web", "db"), "by name");
    let address = world.place("db", "back", "IPAddress");
    assert!(!world.reaches("web", &address), "by address");
    let asked = world.inside("web", &format!("nc -w 1 {address} 80"));
    assert_ne!(asked.stdout, "served", "by port");
    let served = wait_until(Duration::from_secs(10), || {
        world.inside("app", "nc -w 2 db 80").stdout == "served"
    });
    assert!(served);

    // The published port is reached by the host; the default network's containers reach nothing.
    let port = world.ok(["port", "web", "80/tcp"]);
    let port = port.lines().next().and_then(|line| line.rsplit(':').next());
    assert!(serves(&format!("127.0.0.1:{}", port.expect("a port"))));
    world.sleeper("other", &[]);
    let web = world.place("web", "front", "IPAddress");
    assert!(!world.reaches("other", &web), "from the default network");

    let shown = world.ok([
        "network",
        "inspect",
        "--format",
        "{{range .Containers}}{{.Name}} {{end}}",
        "front",
    ]);
    assert_eq!(shown.split_whitespace().count(), 2, "{shown}");
    let listed = world.ok(["ps", "--filter", "network=back", "--format", "{{.Names}}"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn container_that_runs_joins_and_leaves_networks_and_keeps_them_over_a_restart() {
    let world = World::new();
    world.ok(["network", "create", "--subnet", "10.231.20.0/24", "amber"]);
    world.ok(["network", "create", "--subnet", "10.231.21.0/24", "blue"]);
    world.sleeper("peer", &["--network", "blue"]);
    world.server("box", &["--network", "amber", "-p", "80"]);
    let port = world.ok(["port", "box", "80/tcp"]);
    assert!(!world.reaches("box", "peer"));

    world.ok([
        "network",
        "connect",
        "--alias",
        "other",
        "--ip",
        "10.231.21.77",
        "blue",
        "box",
    ]);
    assert_eq!(world.place("box", "blue", "IPAddress"), "10.231.21.77");
    assert!(world.reaches("box", "peer") && world.reaches("peer", "other"));
    let inside = world.inside("box", "ip -4 -o addr; ip route").stdout;
    assert!(inside.contains("eth1    inet 10.231.21.77/24"), "{inside}");
    assert!(
        inside.contains("default via 10.231.20.1 dev eth0"),
        "{inside}"
    );
    world
        .hull(["network", "connect", "blue", "box"])
        .fails_saying(1, "already exists in network blue");

    // The first network goes: the way out and the published port lead through the other.
    world.ok(["network", "disconnect", "amber", "box"]);
    let inside = world.inside("box", "ip -4 -o addr; ip route").stdout;
    assert!(!inside.contains("eth0") && inside.contains("default via 10.231.21.1 dev eth1"));
    assert_eq!(world.ok(["port", "box", "80/tcp"]), port);
    let number = port.lines().next().and_then(|line| line.rsplit(':').next());
    assert!(serves(&format!("127.0.0.1:{}", number.expect("a port"))));
    assert!(world.reaches("box", "peer"), "names are still answered");

    world.ok(["restart", "-t", "0", "box"]);
    assert_eq!(world.place("box", "blue", "IPAddress"), "10.231.21.77");
    assert!(world.inside("box", "ip link show eth1").code == 0);
    assert!(world.reaches("peer", "other"));

    // Priority decides over names; the default network can be joined, too.
    world.ok(["network", "connect", "--gw-priority", "5", "bridge", "box"]);
    let route = world.inside("box", "ip route | grep default").stdout;
    assert!(route.contains("dev eth0"), "{route}");
    world.ok(["network", "connect", "--gw-priority", "9", "amber", "box"]);
    let route = world.inside("box", "ip route | grep default").stdout;
    assert!(route.contains("via 10.231.20.1 dev eth2"), "{route}");

    for network in ["bridge", "amber", "blue"] {
        world.ok(["network", "disconnect", network, "box"]);
    }
    let links = world.inside("box", "ls /sys/class/net").stdout;
    assert_eq!(links.trim(), "lo");
    world
        .hull(["network", "disconnect", "blue", "box"])
        .fails_saying(1, "is not connected");
    world.ok(["restart", "-t", "0", "box"]);
    assert_eq!(world.inside("box", "ls /sys/class/net").stdout.trim(), "lo");
}

#[test]
fn container_of_the_default_network_joins_another_and_leaves_the_default_one() {
    let world = World::new();
    world.ok(["network", "create", "zeta"]);
    world.sleeper("peer", &["--network", "zeta"]);
    world.sleeper("box", &[]);
    world.ok(["network", "connect", "zeta", "box"]);
    assert!(world.reaches("box", "peer"));
    assert!(!world.place("box", "bridge", "IPAddress").is_empty());
    world.ok(["network", "disconnect", "bridge", "box"]);
    assert!(world.reaches("box", "peer"));
    let route = world.inside("box", "ip route | grep default").stdout;
    assert!(route.contains("dev eth1"), "{route}");
    for (mode, text) in [("host", "host"), ("none", "none")] {
        world.sleeper(mode, &["--network", mode]);
        world
            .hull(["network", "connect", "zeta", mode])
            .fails_saying(1, text);
    }
    // What does not run joins at its start.
    world.ok(["create", "--name", "later", "busybox", "sleep", "1000"]);
    world.ok(["network", "connect", "zeta", "later"]);
    world.ok(["start", "later"]);
    assert!(world.reaches("peer", "later"));
}

#[test]
fn options_keep_containers_apart_and_bind_ports_to_one_address() {
    let world = World::new();
    world.ok([
        "network",
        "create",
        "--opt",
        "com.docker.network.bridge.enable_icc=false",
        "--opt",
        "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
        "apart",
    ]);
    world.server("one", &["--network", "apart", "-p", "80"]);
    world.sleeper("two", &["--network", "apart"]);
    assert!(!world.reaches("two", "one"));
    let gateway = world.place("two", "apart", "Gateway");
    assert!(world.reaches("two", &gateway));
    let port = world.ok(["port", "one", "80/tcp"]);
    assert!(port.starts_with("127.0.0.1:"), "{port}");
    assert!(serves(&port));
}

#[test]
fn port_of_another_network_or_of_the_host_is_refused() {
    let world = World::new();
    world.ok(["network", "create", "front"]);
    world.ok(["network", "create", "back"]);
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
    let number = taken.local_addr().expect("an address").port().to_string();
    let publish = format!("{number}:80");
    let run = [
        "run",
        "--rm",
        "-p",
        &publish,
        "--network",
        "front",
        "busybox",
        "true",
    ];
    world.hull(run).fails_saying(125, "address already in use");
    drop(taken);
    world.sleeper("one", &["--network", "front", "-p", &publish]);
    let run = [
        "run",
        "--rm",
        "-p",
        &publish,
        "--network",
        "back",
        "busybox",
        "true",
    ];
    world.hull(run).fails_saying(125, &number);
}

#[test]
fn docker_client_makes_joins_leaves_and_removes_networks() {
    let program = "/usr/local/bin/docker";
    if !std::path::Path::new(program).exists() {
        eprintln!("no docker client on this machine: Docker's command line is not tried");
        return;
    }
    let world = World::new();
    let host = format!("unix://{}", world.socket().display());
    let docker = |args: &[&str]| {
        let run = Run::new(program).args(["-H", &host]).args(args);
        run.env("DOCKER_CONFIG", "/nonexistent").ok()
    };
    let id = docker(&[
        "network",
        "create",
        "--subnet",
        "10.231.40.0/24",
        "--label",
        "a=b",
        "--internal",
        "dock",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    assert!(docker(&["network", "ls"]).contains("dock"));
    docker(&[
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "dock",
        "--network-alias",
        "uno",
        "busybox",
        "sleep",
        "1000",
    ]);
    docker(&["run", "-d", "--name", "two", "busybox", "sleep", "1000"]);
    docker(&["network", "connect", "--ip", "10.231.40.9", "dock", "two"]);
    assert!(world.reaches("two", "uno"));
    let shown = docker(&[
        "network",
        "inspect",
        "dock",
        "--format",
        "{{json .Containers}}",
    ]);
    assert!(shown.contains("10.231.40.9/24"), "{shown}");
    docker(&["network", "disconnect", "dock", "two"]);
    assert!(!world.reaches("two", "uno"));
    docker(&["rm", "-f", "one", "two"]);
    assert!(docker(&["network", "prune", "-f"]).contains("dock"));
}

/// Another host, played by a network namespace behind a veth pair, which knows no way to containers;
/// removed when dropped.
struct OtherHost {
    name: String,
    address: String,
    ours: String,
}

impl OtherHost {
    fn new() -> Self {
        let number = std::process::id() % 200;
        let host = Self {
            name: format!("htn{:x}", std::process::id()),
            address: format!("198.19.{number}.2"),
            ours: format!("198.19.{number}.1"),
        };
        let (name, peer) = (&host.name, format!("{}p", host.name));
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name {peer} netns {name}"),
            format!("addr add {}/30 dev {name}", host.ours),
            format!("link set {name} up"),
            format!("-n {name} addr add {}/30 dev {peer}", host.address),
            format!("-n {name} link set {peer} up"),
        ] {
            Run::new("ip").args(command.split(' ')).ok();
        }
        host
    }

    fn reaches(&self, address: &str) -> bool {
        let command = format!("netns exec {} busybox ping -c 1 -W 1 {address}", self.name);
        Run::new("ip").args(command.split(' ')).run().code == 0
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "del", &self.name]).run();
        let _ = Run::new("ip").args(["link", "del", &self.name]).run();
    }
}

#[test]
fn other_hosts_are_reached_by_masquerade_and_reach_no_container() {
    let world = World::new();
    let other = OtherHost::new();
    world.ok(["network", "create", "open"]);
    world.ok(["network", "create", "--internal", "shut"]);
    world.ok([
        "network",
        "create",
        "--subnet",
        "10.231.50.0/24",
        "--opt",
        "com.docker.network.bridge.enable_ip_masquerade=false",
        "routed",
    ]);
    for network in ["open", "shut", "routed"] {
        world.sleeper(&format!("on-{network}"), &["--network", network]);
    }
    assert!(world.reaches("on-open", &other.address));
    assert!(!world.reaches("on-shut", &other.address));
    // A way out made by hand leads nowhere either.
    let gateway = world.place("on-shut", "shut", "Gateway");
    let pid = world.inspect("on-shut", "{{.State.Pid}}");
    let route = format!("-t {pid} -n ip route add default via {gateway}");
    Run::new("nsenter").args(route.split(' ')).ok();
    assert!(!world.reaches("on-shut", &other.address));
    // Without masquerade the other host must know the way back.
    assert!(!world.reaches("on-routed", &other.address));
    let route = format!("-n {} route add default via {}", other.name, other.ours);
    Run::new("ip").args(route.split(' ')).ok();
    assert!(world.reaches("on-routed", &other.address));
    for network in ["open", "shut", "routed"] {
        let name = format!("on-{network}");
        let address = world.place(&name, network, "IPAddress");
        assert!(!other.reaches(&address), "{name}");
    }
    assert!(other.reaches(&other.ours), "it reaches the host itself");
}
