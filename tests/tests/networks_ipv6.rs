//! IPv6 on networks: addresses, names, ways out and in, seen from inside, from the host and from
//! another host. All of it in network namespaces: one is the host, on which the daemon runs, the
//! other its neighbour.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use hull_testkit::{Run, fixtures, wait_until};
use hull_tests::hosts::{self, ip, within};
use hull_tests::net::{self, SERVER, World};

/// The neighbour's addresses.
const NEIGHBOUR: &str = "2001:db8:ffff::2";
const NEIGHBOUR_4: &str = "198.19.255.2";
/// The host's.
const HOST: &str = "2001:db8:ffff::1";
const HOST_4: &str = "198.19.255.1";

/// The hosts of this suite.
struct Hosts(hosts::Hosts);

impl Deref for Hosts {
    type Target = hosts::Hosts;

    fn deref(&self) -> &hosts::Hosts {
        &self.0
    }
}

impl DerefMut for Hosts {
    fn deref_mut(&mut self) -> &mut hosts::Hosts {
        &mut self.0
    }
}

impl Hosts {
    fn new(args: &[&str]) -> Self {
        let mut hosts = Self(hosts::Hosts::new());
        let (host, neighbour) = (&hosts.host, &hosts.neighbour);
        for command in [
            format!("-n {host} link set up0 addrgenmode none"),
            format!("-n {neighbour} link set up0 addrgenmode none"),
            format!("-n {host} addr add fe80::1/64 dev up0 nodad"),
            format!("-n {neighbour} addr add fe80::2/64 dev up0 nodad"),
            format!("-n {host} addr add {HOST}/64 dev up0 nodad"),
            format!("-n {host} addr add {HOST_4}/30 dev up0"),
            format!("-n {neighbour} addr add {NEIGHBOUR}/64 dev up0 nodad"),
            format!("-n {neighbour} addr add {NEIGHBOUR_4}/30 dev up0"),
            format!("-n {host} link set up0 up"),
            format!("-n {neighbour} link set up0 up"),
            format!("-n {host} route add default via {NEIGHBOUR}"),
        ] {
            ip(&command);
        }
        // The kernel takes a moment until packets pass a new link.
        let ready = wait_until(Duration::from_secs(10), || {
            hosts.neighbour_reaches(HOST) && hosts.neighbour_reaches(HOST_4)
        });
        assert!(ready, "the neighbour does not reach the host");
        let switch = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
        within(host, || {
            // So that ::1 leads to published ports, where the host has the switch at all.
            let _ = std::fs::write(switch, "0");
        });
        hosts.serve(args);
        hosts
    }

    /// Whether the neighbour gets an answer from an address.
    fn neighbour_reaches(&self, address: &str) -> bool {
        let whole = format!(
            "netns exec {} busybox ping -c 1 -W 1 {address}",
            self.neighbour
        );
        Run::new("ip").args(whole.split(' ')).run().code == 0
    }

    /// The bridge with this address.
    fn bridge_of(&self, address: &str) -> Option<String> {
        let out = ip(&format!("-n {} -o addr", self.host));
        let line = out
            .lines()
            .find(|line| line.contains(&format!(" {address}")))?;
        line.split_whitespace().nth(1).map(str::to_owned)
    }

    /// The IPv6 half of what inspect says of a network, as SUBNET GATEWAY.
    fn range(&self, network: &str) -> String {
        let template = "{{.EnableIPv6}}{{range .IPAM.Config}} {{.Subnet}} {{.Gateway}}{{end}}";
        self.ok(["network", "inspect", "-f", template, network])
    }
}

/// What is sent there, as seen from a namespace.
fn read_from(netns: &str, address: &str) -> Option<String> {
    within(netns, || net::read_from(address))
}

fn serves(netns: &str, address: &str) -> bool {
    wait_until(Duration::from_secs(10), || {
        read_from(netns, address).as_deref() == Some("served")
    })
}

/// The lines that a script writes in a container.
fn lines(world: &World, name: &str, script: &str) -> Vec<String> {
    let out = world.inside(name, script).ok();
    out.lines().map(str::to_owned).collect()
}

#[test]
fn dual_stack_network_has_addresses_routes_and_names_of_both_kinds() {
    let hosts = Hosts::new(&[]);
    hosts.ok(["network", "create", "--ipv6", "both"]);
    let range = hosts.range("both");
    let subnet = range.split(' ').nth(3).expect("an IPv6 subnet").to_owned();
    assert!(range.starts_with("true ") && subnet.starts_with("fd") && subnet.ends_with("::/64"));
    hosts.sleeper("one", &["--network", "both", "--network-alias", "uno"]);
    hosts.sleeper("two", &["--network", "both"]);
    let one = hosts.place("one", "both", "GlobalIPv6Address");
    assert_eq!(format!("{one}/64").replace("::2/", "::/"), subnet);
    assert_eq!(hosts.place("one", "both", "GlobalIPv6PrefixLen"), "64");
    let gateway = hosts.place("one", "both", "IPv6Gateway");
    assert_eq!(gateway, one.replace("::2", "::1"));
    let template = "{{range .Containers}}{{.IPv6Address}} {{end}}";
    let listed = hosts.ok(["network", "inspect", "-f", template, "both"]);
    assert!(listed.contains(&format!("{one}/64")), "{listed}");

    let inside = hosts
        .inside("one", "ip -6 addr show eth0; ip -6 route")
        .stdout;
    assert!(
        inside.contains(&one) && !inside.contains("tentative"),
        "{inside}"
    );
    assert!(
        inside.contains(&format!("default via {gateway}")),
        "{inside}"
    );
    let hosts_file = hosts.inside("one", "cat /etc/hosts").stdout;
    assert!(hosts_file.contains(&format!("{one}\t")), "{hosts_file}");
    let two = hosts.place("two", "both", "GlobalIPv6Address");
    for name in [two.as_str(), &gateway, NEIGHBOUR, NEIGHBOUR_4, "two"] {
        assert!(hosts.reaches("one", name), "{name}");
    }
    assert_eq!(
        hosts.on_host(&format!("busybox ping -c 1 -W 1 {one}")).code,
        0
    );
    // By name, in both kinds, and back.
    let found = hosts.inside("two", "nslookup uno").stdout;
    assert!(found.contains(&one), "{found}");
    assert!(
        found.contains(&hosts.place("one", "both", "IPAddress")),
        "{found}"
    );
    let back = hosts.inside("two", &format!("nslookup {one}")).stdout;
    assert!(back.contains("one.both"), "{back}");
    let host = hosts
        .inside("two", "nslookup -type=AAAA host.docker.internal")
        .stdout;
    assert!(host.contains(&gateway), "{host}");
    // An alias of nobody has none, and one without IPv6 is not missing.
    hosts.ok(["network", "create", "--ipv6=false", "four"]);
    assert!(hosts.range("four").starts_with("false "));
    hosts.sleeper("old", &["--network", "four"]);
    assert_eq!(hosts.place("old", "four", "GlobalIPv6Address"), "");
    assert_eq!(lines(&hosts, "old", "ip -6 addr show eth0").len(), 0);
    hosts.ok(["network", "connect", "four", "two"]);
    let found = hosts.inside("two", "nslookup -type=AAAA old").stdout;
    assert!(!found.contains("NXDOMAIN"), "{found}");
    // Gone with the network.
    hosts.ok(["rm", "-f", "one", "two"]);
    let bridge = hosts.bridge_of(&format!("{gateway}/64")).expect("a bridge");
    hosts.ok(["network", "rm", "both"]);
    assert!(!ip(&format!("-n {} link", hosts.host)).contains(&bridge));
}

#[test]
fn addresses_asked_for_are_given_and_what_overlaps_is_refused() {
    let hosts = Hosts::new(&[]);
    hosts.ok([
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "10.233.1.0/24",
        "--subnet",
        "fd77:1::/64",
        "--gateway",
        "fd77:1::ff",
        "--gateway",
        "10.233.1.9",
        "--ip-range",
        "fd77:1::100/124",
        "--aux-address",
        "router=fd77:1::100",
        "said",
    ]);
    assert_eq!(
        hosts.range("said"),
        "true 10.233.1.0/24 10.233.1.9 fd77:1::/64 fd77:1::ff"
    );
    let template = "{{with index .IPAM.Config 1}}{{.IPRange}}{{.AuxiliaryAddresses}}{{end}}";
    let shown = hosts.ok(["network", "inspect", "-f", template, "said"]);
    assert!(
        shown.contains("fd77:1::100/124map[router:fd77:1::100]"),
        "{shown}"
    );
    hosts.sleeper("next", &["--network", "said"]);
    assert_eq!(
        hosts.place("next", "said", "GlobalIPv6Address"),
        "fd77:1::101"
    );
    hosts.sleeper(
        "asked",
        &[
            "--network",
            "said",
            "--ip6",
            "fd77:1::42",
            "--ip",
            "10.233.1.42",
        ],
    );
    assert_eq!(
        hosts.place("asked", "said", "GlobalIPv6Address"),
        "fd77:1::42"
    );
    let ipam = hosts.inspect(
        "asked",
        "{{json (index .NetworkSettings.Networks \"said\").IPAMConfig}}",
    );
    assert!(ipam.contains("\"IPv6Address\":\"fd77:1::42\""), "{ipam}");
    // It keeps the address when it starts again.
    hosts.ok(["restart", "-t", "0", "asked"]);
    assert_eq!(
        hosts.place("asked", "said", "GlobalIPv6Address"),
        "fd77:1::42"
    );
    let run = ["run", "--rm", "--network", "said", "--ip6"];
    let run = |address: &str| {
        let whole = run.iter().copied().chain([address, "busybox", "true"]);
        hosts.hull(whole)
    };
    run("fd77:1::42").fails_saying(125, "Address already in use");
    run("fd77:2::42").fails_saying(125, "no configured subnet contains IP address fd77:2::42");
    run("fd77:1::ff").fails_saying(125, "not usable");
    let create = |args: &[&str]| {
        let whole = ["network", "create"].iter().chain(args).chain(&["no"]);
        hosts.hull(whole)
    };
    let overlaps = "Pool overlaps with other one";
    create(&["--subnet", "fd77:1::/48"]).fails_saying(1, overlaps);
    create(&["--ipv6", "--subnet", "2001:db8:ffff::/64"]).fails_saying(1, overlaps);
    create(&["--ipv6", "--subnet", "fe80::/64"]).fails_saying(1, "not usable");
    create(&[
        "--ipv6",
        "--subnet",
        "fd77:9::/64",
        "--gateway",
        "fd77:8::1",
    ])
    .fails_saying(1, "no matching subnet");
    create(&["--ipv6=false", "--ipv4=false"]).fails_saying(1, "needs IPv6");
    create(&["--ipv6=false", "--subnet", "fd77:9::/64"]).fails_saying(1, "without IPv6");
    // The host's own routes are avoided, and those of networks that are there.
    ip(&format!(
        "-n {} route add fd00::/8 via {NEIGHBOUR}",
        hosts.host
    ));
    create(&["--ipv6"]).fails_saying(1, "IPv6 address pool");
    ip(&format!(
        "-n {} route del fd00::/8 via {NEIGHBOUR}",
        hosts.host
    ));
    for name in ["a", "b"] {
        hosts.ok(["network", "create", "--ipv6", name]);
    }
    let [a, b] = ["a", "b"].map(|name| hosts.range(name).split(' ').nth(3).map(str::to_owned));
    // Two of one prefix.
    assert_ne!(a, b);
    let global = |subnet: &Option<String>| {
        subnet
            .as_deref()
            .and_then(|s| s.get(..14))
            .map(str::to_owned)
    };
    assert_eq!(global(&a), global(&b));
}

#[test]
fn ways_out_and_between_networks_are_those_of_ipv4() {
    let hosts = Hosts::new(&[]);
    let icc = "com.docker.network.bridge.enable_icc=false";
    let masquerade = "com.docker.network.bridge.enable_ip_masquerade=false";
    hosts.ok(["network", "create", "--ipv6", "open"]);
    hosts.ok(["network", "create", "--ipv6", "--internal", "shut"]);
    hosts.ok(["network", "create", "--ipv6", "-o", icc, "apart"]);
    let routed = ["--ipv6", "--subnet", "2001:db8:7::/64", "-o", masquerade];
    hosts.ok(["network", "create"]
        .iter()
        .chain(&routed)
        .chain(&["routed"]));
    for network in ["open", "shut", "apart", "routed"] {
        hosts.sleeper(&format!("on-{network}"), &["--network", network]);
    }
    hosts.sleeper("also-apart", &["--network", "apart"]);
    hosts.sleeper("also-shut", &["--network", "shut"]);
    let address = |name: &str| {
        let network = name.rsplit('-').next().unwrap_or_default();
        hosts.place(name, network, "GlobalIPv6Address")
    };
    assert!(hosts.reaches("on-open", NEIGHBOUR));
    assert!(hosts.reaches("on-apart", NEIGHBOUR));
    // Nothing leads out of an internal network, not even by hand.
    let gateway = hosts.place("on-shut", "shut", "IPv6Gateway");
    let pid = hosts.inspect("on-shut", "{{.State.Pid}}");
    let route = format!("-t {pid} -n ip -6 route add default via {gateway}");
    Run::new("nsenter").args(route.split(' ')).ok();
    assert!(!hosts.reaches("on-shut", NEIGHBOUR));
    assert!(hosts.reaches("on-shut", &address("also-shut")));
    // From one network to another, and within one that keeps its containers apart.
    assert!(!hosts.reaches("on-open", &address("on-apart")));
    assert!(!hosts.reaches("on-open", &address("on-shut")));
    assert!(!hosts.reaches("on-shut", &address("on-open")));
    assert!(!hosts.reaches("on-apart", &address("also-apart")));
    // Without masquerade the neighbour must know the way back.
    assert!(!hosts.reaches("on-routed", NEIGHBOUR));
    ip(&format!(
        "-n {} route add default via {HOST}",
        hosts.neighbour
    ));
    assert!(hosts.reaches("on-routed", NEIGHBOUR));
    // It reaches none by itself, though it knows the way now.
    for name in ["on-open", "on-shut", "on-apart", "on-routed"] {
        assert!(!hosts.neighbour_reaches(&address(name)), "{name}");
    }
    assert!(hosts.neighbour_reaches(HOST));
    // Who announces himself as a router there is not believed.
    let switch = "cat /proc/sys/net/ipv6/conf/eth0/accept_ra";
    hosts.sleeper("on-default", &[]);
    for name in ["on-open", "on-default"] {
        assert_eq!(lines(&hosts, name, switch), ["0"], "{name}");
    }
}

#[test]
fn published_ports_are_reached_on_ipv6_addresses_of_the_host() {
    let hosts = Hosts::new(&[]);
    hosts.ok(["network", "create", "--ipv6", "both"]);
    let serve = |name: &str, ports: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name, "--network", "both"];
        args.extend(ports);
        args.extend(["busybox", "sh", "-c", SERVER]);
        hosts.ok(args);
    };
    serve("web", &["-p", "8080:80", "-p", "80"]);
    serve("local", &["-p", "[::1]:8081:80", "-p", "127.0.0.1:8082:80"]);
    serve(
        "one",
        &["-p", &format!("[{HOST}]:8083:80"), "-p", "0.0.0.0:8084:80"],
    );
    serve("range", &["-p", "9000-9099:80-179"]);
    let (host, neighbour) = (&hosts.host, &hosts.neighbour);
    for address in [format!("[{HOST}]:8080"), format!("{HOST_4}:8080")] {
        assert!(serves(neighbour, &address), "{address}");
        assert!(serves(host, &address), "{address}");
    }
    let random = hosts.ok(["port", "web", "80"]);
    let random = random
        .lines()
        .find(|line| line.starts_with("[::]:") && !line.ends_with(":8080"));
    let random = random
        .and_then(|line| line.rsplit(':').next())
        .expect("a random port");
    assert!(serves(neighbour, &format!("[{HOST}]:{random}")));
    assert!(serves(neighbour, &format!("{HOST_4}:{random}")));
    assert!(serves(neighbour, &format!("[{HOST}]:8083")));
    assert!(serves(neighbour, &format!("[{HOST}]:9000")));
    for address in [
        format!("[{HOST}]:8081"),
        format!("[{HOST}]:8082"),
        format!("[{HOST}]:8084"),
        format!("{HOST_4}:8083"),
    ] {
        assert_eq!(read_from(neighbour, &address), None, "{address}");
    }
    assert!(serves(host, "[::1]:8081"));
    assert!(serves(host, "[::1]:8080"));
    assert!(serves(host, "127.0.0.1:8082"));
    // The neighbour's address is seen, and a container reaches itself by the host.
    let own = hosts.inside("web", &format!("nc -w 2 {HOST} 8080 < /dev/null"));
    assert_eq!(own.stdout, "served");
    // From another network by the host's address too.
    hosts.ok(["network", "create", "--ipv6", "other"]);
    hosts.sleeper("client", &["--network", "other"]);
    let there = hosts.inside("client", &format!("nc -w 2 {HOST} 8080 < /dev/null"));
    assert_eq!(there.stdout, "served");
    // As it is shown.
    let shown = hosts.ok(["ps", "--filter", "name=web", "--format", "{{.Ports}}"]);
    assert!(
        shown.contains("0.0.0.0:8080->80/tcp") && shown.contains("[::]:8080->80/tcp"),
        "{shown}"
    );
    assert_eq!(
        hosts.ok(["port", "local", "80/tcp"]),
        "127.0.0.1:8082\n[::1]:8081"
    );
    let wished = hosts.inspect("web", "{{json .HostConfig.PortBindings}}");
    assert!(
        wished.contains(r#"{"HostIp":"","HostPort":"8080"}"#),
        "{wished}"
    );
    // Taken, by whom it may be.
    let run = |port: &str| {
        hosts.hull([
            "run",
            "--rm",
            "--network",
            "both",
            "-p",
            port,
            "busybox",
            "true",
        ])
    };
    run("[::]:8081:80").fails_saying(125, "port is already allocated");
    let taken = format!("[{HOST}]:8077");
    let _listener = within(host, || {
        std::net::TcpListener::bind(&taken).expect("a listener")
    });
    run("[::]:8077:80").fails_saying(125, "address already in use");
    run("[2001:db8::77]:8078:80").fails_saying(125, "cannot assign requested address");
    // No translation between both.
    let bridge = ["run", "--rm", "-p", "[::1]:8079:80", "busybox", "true"];
    hosts.hull(bridge).fails_saying(125, "has no IPv6 address");
    // A client of UDP that goes on sending reaches the container that publishes the port now.
    let udp = within(neighbour, || {
        let socket = std::net::UdpSocket::bind("[::]:0").expect("a socket");
        socket.connect(format!("[{HOST}]:8053")).expect("connect");
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("set the limit");
        socket
    });
    let answered = || {
        let _ = udp.send(b"?");
        udp.recv(&mut [0; 8]).is_ok()
    };
    assert!(!answered());
    let mount = format!("{}:/probe:ro", fixtures::probe().display());
    let start = [
        "run",
        "-d",
        "--network",
        "both",
        "-p",
        "8053:53/udp",
        "-v",
        &mount,
    ];
    hosts.ok(start.iter().chain(&["busybox", "/probe", "udp-echo", "53"]));
    assert!(wait_until(Duration::from_secs(10), answered));
    // Free again.
    hosts.ok(["rm", "-f", "web"]);
    run("8080:80").ok();
}

#[test]
fn network_without_ipv4_has_names_and_ports_of_ipv6_alone() {
    let hosts = Hosts::new(&["--ipv6-networks=false"]);
    hosts.ok(["network", "create", "plain"]);
    assert!(hosts.range("plain").starts_with("false "));
    hosts.ok(["network", "create", "--ipv4=false", "--ipv6", "six"]);
    let template = "{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}";
    let shown = hosts.ok(["network", "inspect", "-f", template, "six"]);
    assert_eq!(shown, "false true 1");
    let args = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "six",
        "-p",
        "8080:80",
    ];
    hosts.ok(args.iter().chain(&["busybox", "sh", "-c", SERVER]));
    hosts.sleeper("one", &["--network", "six"]);
    assert_eq!(hosts.place("one", "six", "IPAddress"), "");
    assert_eq!(lines(&hosts, "one", "ip -4 addr show eth0").len(), 0);
    let web = hosts.place("web", "six", "GlobalIPv6Address");
    let gateway = hosts.place("web", "six", "IPv6Gateway");
    let resolver = hosts.inside("one", "cat /etc/resolv.conf").stdout;
    assert!(
        resolver.contains(&format!("nameserver {gateway}")),
        "{resolver}"
    );
    let found = hosts.inside("one", "nslookup web").stdout;
    assert!(found.contains(&web), "{found}");
    assert!(hosts.reaches("one", "web") && hosts.reaches("one", NEIGHBOUR));
    assert!(serves(&hosts.neighbour, &format!("[{HOST}]:8080")));
    assert_eq!(read_from(&hosts.neighbour, &format!("{HOST_4}:8080")), None);
    assert_eq!(hosts.ok(["port", "web"]), "80/tcp -> [::]:8080");
    let refused = [
        "run",
        "--rm",
        "--network",
        "six",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "true",
    ];
    hosts.hull(refused).fails_saying(125, "has no IPv4 address");
    // Together with a network of IPv4: each leads out by its own.
    hosts.ok(["network", "connect", "plain", "one"]);
    assert!(hosts.reaches("one", NEIGHBOUR) && hosts.reaches("one", NEIGHBOUR_4));
    hosts.ok(["network", "disconnect", "six", "one"]);
    assert!(!hosts.reaches("one", NEIGHBOUR) && hosts.reaches("one", NEIGHBOUR_4));
    hosts.ok([
        "network",
        "connect",
        "--ip6",
        &web.replace("::2", "::99"),
        "six",
        "one",
    ]);
    let place = hosts.place("one", "six", "GlobalIPv6Address");
    assert_eq!(place, web.replace("::2", "::99"));
    assert!(hosts.reaches("one", NEIGHBOUR));
}

#[test]
fn daemon_restarted_finds_addresses_and_ports_and_puts_back_what_is_lost() {
    let mut hosts = Hosts::new(&[]);
    // As the host has IPv6 itself, so have its networks.
    hosts.ok(["network", "create", "--subnet", "10.233.5.0/24", "net"]);
    let range = hosts.range("net");
    assert!(range.starts_with("true "), "{range}");
    let args = [
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "net",
        "-p",
        "8080:80",
    ];
    hosts.ok(args.iter().chain(&["busybox", "sh", "-c", SERVER]));
    let before = hosts.inspect("web", "{{json .NetworkSettings}}");
    let gateway = hosts.place("web", "net", "IPv6Gateway");
    let bridge = hosts.bridge_of(&format!("{gateway}/64")).expect("a bridge");
    for lost in [false, true] {
        hosts.kill();
        if lost {
            ip(&format!("-n {} link del {bridge}", hosts.host));
        }
        hosts.start();
        assert!(serves(&hosts.neighbour, &format!("[{HOST}]:8080")));
        assert_eq!(hosts.inspect("web", "{{json .NetworkSettings}}"), before);
        assert_eq!(hosts.range("net"), range);
        assert!(hosts.bridge_of(&format!("{gateway}/64")).is_some());
    }
    // The address and the port are still taken.
    let web = hosts.place("web", "net", "GlobalIPv6Address");
    let run = |args: &[&str]| {
        let whole = ["run", "--rm", "--network", "net"].iter().chain(args);
        hosts.hull(whole.chain(&["busybox", "true"]))
    };
    run(&["--ip6", &web]).fails_saying(125, "Address already in use");
    run(&["-p", "[::]:8080:80"]).fails_saying(125, "already allocated");
    hosts.ok(["rm", "-f", "web"]);
    run(&["-p", "[::]:8080:80"]).ok();
    hosts.ok(["network", "rm", "net"]);
    let tables = hosts.on_host("nft list ruleset").stdout;
    assert!(!tables.contains(&gateway.replace("::1", "::")), "{tables}");
}
