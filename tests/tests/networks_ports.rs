//! Published ports: ranges, SCTP, changes while a container runs, and the host's own firewall. The
//! host is a network namespace on which the daemon runs, another one its neighbour.

use std::net::{TcpListener, UdpSocket};
use std::ops::Deref;
use std::time::Duration;

use hull_testkit::wait_until;
use hull_tests::hosts::{self, ip, within};
use hull_tests::net::{SERVER, read_from};

const HOST: &str = "198.19.254.1";
const HOST_6: &str = "2001:db8:fffe::1";

/// The hosts of this suite.
struct Hosts(hosts::Hosts);

impl Deref for Hosts {
    type Target = hosts::Hosts;

    fn deref(&self) -> &hosts::Hosts {
        &self.0
    }
}

impl Hosts {
    fn new(args: &[&str]) -> Self {
        let mut hosts = Self(hosts::Hosts::new());
        let (host, neighbour) = (&hosts.host, &hosts.neighbour);
        for command in [
            format!("-n {host} addr add {HOST}/24 dev up0"),
            format!("-n {neighbour} addr add 198.19.254.2/24 dev up0"),
            format!("-n {host} addr add {HOST_6}/64 dev up0 nodad"),
            format!("-n {neighbour} addr add 2001:db8:fffe::2/64 dev up0 nodad"),
            format!("-n {host} link set up0 up"),
            format!("-n {neighbour} link set up0 up"),
        ] {
            ip(&command);
        }
        hosts.0.serve(args);
        hosts
    }

    /// What the neighbour reads from a port of the host.
    fn asks(&self, port: u16) -> Option<String> {
        within(&self.neighbour, || read_from(&format!("{HOST}:{port}")))
    }

    /// As [`Hosts::asks`], by IPv6.
    fn asks6(&self, port: u16) -> Option<String> {
        within(&self.neighbour, || read_from(&format!("[{HOST_6}]:{port}")))
    }

    /// Whether the neighbour is served at a port of the host, in the end.
    fn serves(&self, port: u16) -> bool {
        wait_until(Duration::from_secs(10), || {
            self.asks(port).as_deref() == Some("served")
        })
    }

    fn serves6(&self, port: u16) -> bool {
        wait_until(Duration::from_secs(10), || {
            self.asks6(port).as_deref() == Some("served")
        })
    }

    /// The table of the firewall.
    fn rules(&self) -> String {
        let table = &self.territory().table;
        let listed = self.on_host(&format!("nft list table inet {table}"));
        assert_eq!(listed.stderr, "", "nft reads our rules without complaint");
        listed.stdout
    }

    /// What of IPv4 `hull port` shows.
    fn ports(&self, name: &str) -> Vec<String> {
        let shown = self.ok(["port", name]);
        let lines = shown.lines().filter(|line| !line.contains("[::]"));
        lines.map(str::to_owned).collect()
    }
}

#[test]
fn ports_change_while_the_container_runs_and_stay_so() {
    let mut hosts = Hosts::new(&[]);
    hosts.server("web", &["-p", "8080:80"]);
    assert!(hosts.serves(8080));
    hosts.ok([
        "update",
        "--publish-add",
        "8081:80",
        "--publish-add",
        "127.0.0.1:5300:53/udp",
        "--publish-rm",
        "8080:80",
        "web",
    ]);
    let expected = ["53/udp -> 127.0.0.1:5300", "80/tcp -> 0.0.0.0:8081"];
    assert_eq!(hosts.ports("web"), expected);
    assert!(hosts.serves(8081));
    assert_eq!(hosts.asks(8080), None);
    let shown = hosts.ok(["ps", "--format", "{{.Ports}}"]);
    assert!(
        shown.contains("0.0.0.0:8081->80/tcp") && !shown.contains("8080"),
        "{shown}"
    );
    let wished = hosts.inspect("web", "{{json .HostConfig.PortBindings}}");
    assert!(
        wished.contains("8081") && !wished.contains("8080"),
        "{wished}"
    );

    // The daemon dies and comes back; the container starts anew.
    let world = &mut *hosts.0;
    world.kill();
    world.start();
    assert_eq!(hosts.ports("web"), expected);
    assert!(hosts.serves(8081));
    hosts.ok(["restart", "-t", "0", "web"]);
    assert_eq!(hosts.ports("web"), expected);
    assert!(hosts.serves(8081));

    // One that does not run.
    hosts.ok(["stop", "-t", "0", "web"]);
    hosts.ok([
        "update",
        "--publish-rm",
        "80",
        "--publish-add",
        "8082:80",
        "web",
    ]);
    hosts
        .hull(["update", "--publish-rm", "8081:80", "web"])
        .fails_saying(1, "does not publish 8081:80/tcp");
    hosts.ok(["start", "web"]);
    assert!(hosts.serves(8082));
    assert_eq!(hosts.asks(8081), None);
    assert!(hosts.rules().contains("8082 : "));
    hosts.ok(["rm", "-f", "web"]);
    let left = hosts.rules();
    assert!(!left.contains("8082") && !left.contains("5300"), "{left}");
}

#[test]
fn daemon_killed_while_ports_change_has_what_the_record_says() {
    let mut hosts = Hosts::new(&[]);
    hosts.server("web", &["-p", "9000:80"]);
    for round in 0..6_u16 {
        let (old, new) = (
            format!("{}:80", 9000 + round),
            format!("{}:80", 9001 + round),
        );
        let args = ["update", "--publish-rm", &old, "--publish-add", &new, "web"];
        let update = hosts.cli(args).spawn();
        std::thread::sleep(Duration::from_millis(u64::from(round) * 4));
        let world = &mut *hosts.0;
        world.kill();
        let _ = update.finish();
        world.start();
        let shown = hosts.ports("web");
        let [line] = shown.as_slice() else {
            panic!("one port, not {shown:?}");
        };
        let number = line
            .rsplit(':')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        let expected = [9000 + round, 9001 + round];
        assert!(
            expected.contains(&number),
            "{number} is none of {expected:?}"
        );
        assert!(hosts.serves(number));
        let other = if number == 9000 + round {
            9001 + round
        } else {
            9000 + round
        };
        assert_eq!(hosts.asks(other), None);
        if number == 9000 + round {
            hosts.ok(args);
        }
    }
}

#[test]
fn ports_change_as_a_whole_or_not_at_all() {
    let hosts = Hosts::new(&[]);
    hosts.server("web", &["-p", "8080:80"]);
    hosts.sleeper("other", &["-p", "9090:80"]);
    let holder = within(&hosts.host, || TcpListener::bind("0.0.0.0:8083")).expect("a listener");
    for (port, why) in [
        ("8083:80", "address already in use"),
        ("9090:80", "port is already allocated"),
        ("9000-9099:9000-9099", "port is already allocated"),
    ] {
        let args = [
            "update",
            "--publish-rm",
            "8080:80",
            "--publish-add",
            "8082:80",
        ];
        let more = ["--publish-add", port, "--memory", "64m", "web"];
        hosts.hull(args.iter().chain(&more)).fails_saying(1, why);
        assert_eq!(hosts.ports("web"), ["80/tcp -> 0.0.0.0:8080"]);
        assert_eq!(hosts.inspect("web", "{{.HostConfig.Memory}}"), "0");
    }
    drop(holder);
    assert!(hosts.serves(8080));
    assert_eq!(hosts.asks(8082), None);
    let refused = |args: &[&str], why: &str| {
        let whole = ["update"].iter().chain(args);
        hosts.hull(whole).fails_saying(1, why);
    };
    refused(
        &["--publish-rm", "8081:80", "web"],
        "does not publish 8081:80/tcp",
    );
    refused(
        &["--publish-add", "8080:81", "web"],
        "publishes 8080:80/tcp already",
    );
    refused(
        &["--publish-add", "80:x", "web"],
        "invalid containerPort: x",
    );
    hosts.sleeper("bare", &["--network", "host"]);
    refused(&["--publish-add", "8084:80", "bare"], "conflicting options");
}

#[test]
fn port_of_several_networks_and_of_a_binding_address_is_changed_where_it_is() {
    let hosts = Hosts::new(&[]);
    let option = "com.docker.network.bridge.host_binding_ipv4=198.19.254.1";
    hosts.ok(["network", "create", "--opt", option, "front"]);
    hosts.ok(["network", "create", "--internal", "back"]);
    hosts.server("web", &["--network", "front"]);
    hosts.ok(["network", "connect", "back", "web"]);
    hosts.ok(["update", "--publish-add", "8080:80", "web"]);
    assert_eq!(hosts.ports("web"), ["80/tcp -> 198.19.254.1:8080"]);
    assert!(hosts.serves(8080));
    let loopback = within(&hosts.host, || read_from("127.0.0.1:8080"));
    assert_eq!(loopback, None, "bound to one address");
    hosts.ok(["update", "--publish-rm", "80", "web"]);
    assert_eq!(hosts.asks(8080), None);
    hosts.server("inside", &["--network", "back"]);
    hosts
        .hull(["update", "--publish-add", "8080:80", "inside"])
        .fails_saying(1, "none of the container's networks");
}

#[test]
fn port_of_both_versions_of_ip_comes_and_goes_as_one() {
    let hosts = Hosts::new(&[]);
    hosts.ok(["network", "create", "--ipv6", "both"]);
    hosts.server("web", &["--network", "both"]);
    hosts.ok(["update", "--publish-add", "8080:80", "web"]);
    let expected = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080";
    assert_eq!(hosts.ok(["port", "web"]), expected);
    assert!(hosts.serves(8080) && hosts.serves6(8080));
    hosts.ok([
        "update",
        "--publish-add",
        "[::1]:8081:80",
        "--publish-rm",
        "8080:80",
        "web",
    ]);
    assert_eq!(hosts.ok(["port", "web"]), "80/tcp -> [::1]:8081");
    assert_eq!((hosts.asks(8080), hosts.asks6(8080)), (None, None));
    // A random one has the same number on both.
    hosts.ok(["update", "--publish-rm", "80", "--publish-add", "80", "web"]);
    let shown = hosts.ok(["port", "web"]);
    let numbers: Vec<_> = shown
        .lines()
        .filter_map(|line| line.rsplit(':').next())
        .collect();
    assert!(numbers.len() == 2 && numbers[0] == numbers[1], "{shown}");
}

#[test]
fn range_of_thousands_is_one_rule_and_one_record() {
    let hosts = Hosts::new(&[]);
    let range = "20000-24999:20000-24999";
    hosts.ok([
        "run",
        "-d",
        "--name",
        "wide",
        "-p",
        range,
        "-p",
        &format!("{range}/udp"),
        "-p",
        "8000-8999:80-1079",
        "busybox",
        "sh",
        "-c",
        SERVER,
    ]);
    assert!(hosts.serves(8000));
    let shown = hosts.inspect_json("wide");
    let ports = &shown["NetworkSettings"]["Ports"];
    assert_eq!(ports.as_object().map(serde_json::Map::len), Some(11_000));
    assert_eq!(ports["24999/udp"][0]["HostPort"], "24999");
    assert_eq!(ports["1079/tcp"][0]["HostPort"], "8999");
    let wished = &shown["HostConfig"]["PortBindings"];
    assert_eq!(wished.as_object().map(serde_json::Map::len), Some(11_000));
    assert_eq!(
        shown["Config"]["ExposedPorts"]["20500/tcp"],
        serde_json::json!({})
    );
    let columns = hosts.ok(["ps", "--format", "{{.Ports}}"]);
    assert!(
        columns.contains("0.0.0.0:20000-24999->20000-24999/tcp"),
        "{columns}"
    );
    let rules = hosts.rules();
    assert!(rules.contains("20000-24999 : "), "{rules}");
    assert!(rules.len() < 30_000, "{} bytes of rules", rules.len());

    // A port in the midst of it goes, and is free for others.
    hosts.ok(["update", "--publish-rm", "8500:580", "wide"]);
    assert_eq!(hosts.asks(8500), None);
    assert!(hosts.serves(8000));
    hosts.server("small", &["-p", "8500:80"]);
    assert!(hosts.serves(8500));
    hosts
        .hull(["update", "--publish-add", "8500:580", "wide"])
        .fails_saying(1, "8500 failed: port is already allocated");

    // A process of the host has one of them.
    let socket = within(&hosts.host, || UdpSocket::bind("127.0.0.1:30500")).expect("a socket");
    let run = [
        "run",
        "--rm",
        "-p",
        "30000-30999:30000-30999/udp",
        "busybox",
        "true",
    ];
    hosts
        .hull(run)
        .fails_saying(125, "30500/udp: address already in use");
    drop(socket);
    hosts.ok(run);
    // One of many ports of the host for one of the container.
    hosts.sleeper("first", &["-p", "7000:80"]);
    hosts.sleeper("choice", &["-p", "7000-7010:80"]);
    assert_eq!(hosts.ports("choice"), ["80/tcp -> 0.0.0.0:7001"]);
}

#[test]
fn port_of_sctp_is_published_like_any_other() {
    let hosts = Hosts::new(&[]);
    hosts.sleeper("diameter", &["-p", "3868:3868/sctp"]);
    assert_eq!(hosts.ports("diameter"), ["3868/sctp -> 0.0.0.0:3868"]);
    let rules = hosts.rules();
    let map = rules.split("map sctp_ports").nth(1).unwrap_or_default();
    let map = map.split('}').next().unwrap_or_default();
    assert!(map.contains("3868 : "), "{rules}");
    hosts
        .hull(["run", "--rm", "-p", "3868:1/sctp", "busybox", "true"])
        .fails_saying(125, "port is already allocated");
    hosts.ok(["rm", "-f", "diameter"]);
    assert!(!hosts.rules().contains("3868"));
}

#[test]
fn published_port_obeys_the_hosts_firewall_only_if_asked_to() {
    let forbid = |hosts: &Hosts| {
        hosts.on_host("nft add table inet filter").ok();
        hosts
            .on_host("nft add chain inet filter input { type filter hook input priority 0 ; }")
            .ok();
        hosts
            .on_host("nft add rule inet filter input tcp dport 8080 drop")
            .ok();
    };
    let hosts = Hosts::new(&["--published-ports-obey-input"]);
    hosts.ok(["network", "create", "--ipv6", "both"]);
    hosts.server("web", &["--network", "both", "-p", "8080:80"]);
    assert!(hosts.serves(8080) && hosts.serves6(8080));
    forbid(&hosts);
    let asked = (hosts.asks(8080), hosts.asks6(8080));
    assert_eq!(asked, (None, None), "the administrator's rule is bypassed");
    hosts.on_host("nft flush chain inet filter input").ok();
    assert!(hosts.serves(8080) && hosts.serves6(8080));
    // Somebody flushes all rules: the daemon hears of it.
    hosts.on_host("nft flush ruleset").ok();
    assert!(hosts.serves(8080) && hosts.serves6(8080));
    let whole = hosts.hull(["network", "check", "--repair"]);
    assert_eq!(whole.code, 0, "{}{}", whole.stdout, whole.stderr);
    // Or deletes the way by which packets come back.
    let links = hosts.on_host("ip -br link").stdout;
    let way = links
        .split(['@', ' ', '\n'])
        .find(|word| word.starts_with("hp"));
    hosts
        .on_host(&format!("ip link del {}", way.expect("the way back")))
        .ok();
    assert_eq!(hosts.asks(8080), None, "what is missing closes");
    hosts.hull(["network", "check", "--repair"]);
    assert!(hosts.serves(8080) && hosts.serves6(8080));
    drop(hosts);

    let hosts = Hosts::new(&[]);
    hosts.server("web", &["-p", "8080:80"]);
    forbid(&hosts);
    assert!(hosts.serves(8080), "as in Docker");
}
