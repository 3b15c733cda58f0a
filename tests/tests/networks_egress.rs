//! Egress policies: what a container may connect to, by address, port and name; that it can do
//! nothing about it from inside; and that the policy comes and goes with the container.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hull_testkit::{Daemon, Run, wait_until};
use hull_tests::net::{World, serves};
use hull_tests::outside::{Outside, Upstream, connects, ip, look_up, of_process, within};

const NXDOMAIN: u8 = 3;

/// Runs something in a container's network, as its root could.
fn inside<T: Send>(world: &World, name: &str, act: impl FnOnce() -> T + Send) -> T {
    within(&of_process(&world.inspect(name, "{{.State.Pid}}")), act)
}

fn reaches(world: &World, name: &str, to: (Ipv4Addr, u16)) -> bool {
    inside(world, name, || connects(to.into()))
}

fn address(world: &World, name: &str, network: &str) -> Ipv4Addr {
    let text = world.place(name, network, "IPAddress");
    text.parse().expect("an address")
}

fn gateway(world: &World, name: &str, network: &str) -> Ipv4Addr {
    let text = world.place(name, network, "Gateway");
    text.parse().expect("an address")
}

fn ask(world: &World, name: &str, network: &str, what: &str) -> (u8, Vec<Ipv4Addr>) {
    let server = gateway(world, name, network);
    inside(world, name, || look_up(server, what))
}

/// Whether a datagram is answered.
fn echoes(world: &World, name: &str, to: (Ipv4Addr, u16)) -> bool {
    inside(world, name, || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        let patience = Some(Duration::from_millis(700));
        socket.set_read_timeout(patience).expect("a limit");
        socket.connect(to).expect("connect");
        socket.send(b"echo").ok();
        socket.recv(&mut [0; 16]).is_ok()
    })
}

/// The name of the tables of egress policies.
fn table_name(world: &World) -> String {
    let bridge = world.ok(["network", "inspect", "bridge", "--format", "{{json .}}"]);
    let name = bridge.split("com.docker.network.bridge.name\":\"").nth(1);
    let name = name.and_then(|rest| rest.split('"').next());
    format!("hull-{}-egress", name.expect("a bridge"))
}

/// What the firewall says there.
fn tables(table: &str) -> String {
    let list = |family| {
        let out = Run::new("nft").args(["list", "table", family, table]).run();
        if out.code == 0 {
            out.stdout
        } else {
            String::new()
        }
    };
    list("inet") + &list("bridge")
}

#[test]
fn denied_container_reaches_its_peers_and_what_is_listed_alone() {
    let world = World::new();
    let outside = Outside::new();
    outside.serve(&[80, 443]);
    let [a, b, c, _] = outside.addresses;
    outside.echo(a, 53);
    outside.echo(b, 99);
    world.ok(["network", "create", "net"]);
    world.server("db", &["--network", "net"]);
    world.sleeper("free", &["--network", "net"]);
    let (web, all) = (format!("{a}:80/tcp"), format!("{b}"));
    let mut args = vec!["--network", "net", "-p", "80", "--egress", "deny"];
    args.extend(["--egress-allow", &web, "--egress-allow", &all]);
    world.server("app", &args);

    for (to, port) in [(a, 80), (a, 443), (c, 80)] {
        assert!(reaches(&world, "free", (to, port)), "{to}:{port}");
        let listed = (to, port) == (a, 80);
        assert_eq!(reaches(&world, "app", (to, port)), listed, "{to}:{port}");
    }
    assert!(reaches(&world, "app", (b, 443)) && echoes(&world, "app", (b, 99)));
    assert!(world.reaches("app", &b.to_string()));
    assert!(!world.reaches("app", &a.to_string()));
    assert!(!echoes(&world, "app", (a, 53)) && echoes(&world, "free", (a, 53)));
    // Refused, not left to wait.
    let refused = inside(&world, "app", || TcpStream::connect((c, 80)));
    let kind = refused.expect_err("refused").raw_os_error();
    assert_eq!(kind, Some(113), "no route to host");

    // Its own network is not outside.
    let db = address(&world, "db", "net");
    assert!(wait_until(Duration::from_secs(10), || reaches(
        &world,
        "app",
        (db, 80)
    )));
    assert_eq!(ask(&world, "app", "net", "db"), (0, vec![db]));
    // This host's services are.
    let host = gateway(&world, "app", "net");
    let listener = TcpListener::bind((host, 0)).expect("bind");
    let port = listener.local_addr().expect("an address").port();
    assert!(reaches(&world, "free", (host, port)));
    assert!(!reaches(&world, "app", (host, port)));
    assert!(!reaches(&world, "app", (outside.ours, port)));

    // Whoever calls it is answered.
    let port = world.ok(["port", "app", "80/tcp"]);
    let port: u16 = port
        .rsplit(':')
        .next()
        .and_then(|p| p.parse().ok())
        .expect("a port");
    let published = SocketAddr::from((outside.ours, port));
    let answered = || outside.within(|| connects(published));
    assert!(wait_until(Duration::from_secs(10), answered));

    let shown = world.inspect("app", "{{json .HostConfig.Egress}}");
    assert_eq!(
        shown,
        format!(r#"{{"Default":"deny","Allow":["{web}","{all}"]}}"#)
    );

    // A connection that others have begun goes on under another policy.
    let serving = inside(&world, "app", || {
        TcpListener::bind("0.0.0.0:81").expect("bind")
    });
    world.ok(["update", "--publish-add", "81", "app"]);
    let port = world.ok(["port", "app", "81/tcp"]);
    let port: u16 = port
        .lines()
        .find_map(|line| line.rsplit(':').next()?.parse().ok())
        .expect("a port");
    let mut client = outside.within(|| TcpStream::connect((outside.ours, port)).expect("connect"));
    let (mut server, _) = serving.accept().expect("accept");
    world.ok(["update", "--egress", "deny", "app"]);
    server.write_all(b"on").expect("send");
    let patience = Some(Duration::from_secs(5));
    client.set_read_timeout(patience).expect("a limit");
    let mut said = [0; 2];
    client
        .read_exact(&mut said)
        .expect("the connection goes on");
    assert_eq!(&said, b"on");
    assert!(!reaches(&world, "app", (a, 80)));
    let others = world.inspect("db", "{{json .HostConfig}}");
    assert!(!others.contains("Egress"), "{others}");
}

#[test]
fn names_let_their_addresses_out_before_the_answer_arrives() {
    let mut world = World::new();
    let table = table_name(&world);
    let outside = Outside::new();
    outside.serve(&[80, 443]);
    let [a, b, c, _] = outside.addresses;
    let upstream = Upstream::new();
    let server = upstream.address.to_string();
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    world.ok(["network", "create", "net"]);
    let mut args = vec!["--network", "net", "--dns", &server, "--egress", "deny"];
    args.extend(["--egress-allow", "example.com:443"]);
    args.extend(["--egress-allow", "*.crates.example"]);
    args.extend(["--egress-deny", "bad.crates.example"]);
    world.sleeper("app", &args);
    let host = gateway(&world, "app", "net");
    upstream.set("example.com", &[a], 5);
    upstream.set("index.crates.example", &[b], 3600);
    upstream.set("bad.crates.example", &[c], 60);
    upstream.set("evil.crates.example", &[metadata, host], 60);
    upstream.set("crates.example", &[c], 60);
    upstream.set("other.example", &[c], 60);

    assert!(!reaches(&world, "app", (a, 443)));
    // The connection follows the answer at once, many times over.
    for round in 0..20 {
        let name = format!("n{round}.crates.example");
        let target = Ipv4Addr::new(198, 18, 250, round);
        upstream.set(&name, &[target], 60);
        assert_eq!(ask(&world, "app", "net", &name), (0, vec![target]));
        assert!(tables(&table).contains(&target.to_string()), "{name}");
    }
    assert_eq!(ask(&world, "app", "net", "Example.COM"), (0, vec![a]));
    assert!(reaches(&world, "app", (a, 443)) && !reaches(&world, "app", (a, 80)));
    assert_eq!(
        ask(&world, "app", "net", "index.crates.example"),
        (0, vec![b])
    );
    assert!(reaches(&world, "app", (b, 80)));
    // It stays as long as its record, and no more than a minute longer.
    let line = |of: Ipv4Addr| {
        let text = tables(&table);
        let set = text.split(&format!("{of} timeout ")).nth(1);
        set.and_then(|rest| rest.split([' ', ',']).next())
            .map(str::to_owned)
    };
    assert_eq!(line(a).as_deref(), Some("1m5s"));
    assert_eq!(line(b).as_deref(), Some("1h1m"));

    for name in ["bad.crates.example", "crates.example", "other.example"] {
        assert_eq!(
            ask(&world, "app", "net", name),
            (NXDOMAIN, vec![]),
            "{name}"
        );
        assert_eq!(upstream.asked(name), 0, "{name}");
    }
    assert!(!reaches(&world, "app", (c, 80)));
    // Names of others open no way to this host nor to what is near it.
    let told = ask(&world, "app", "net", "evil.crates.example");
    assert_eq!(told, (0, vec![metadata, host]));
    let listener = TcpListener::bind((host, 0)).expect("bind");
    let port = listener.local_addr().expect("an address").port();
    assert!(!reaches(&world, "app", (host, port)));
    assert!(!tables(&table).contains(&metadata.to_string()));
    // Another server is not asked past ours.
    outside.echo(c, 53);
    assert!(!echoes(&world, "app", (c, 53)));

    // Another daemon knows what was learnt, and goes on learning.
    world.stop();
    world.start();
    assert!(reaches(&world, "app", (b, 80)) && reaches(&world, "app", (a, 443)));
    assert!(!reaches(&world, "app", (c, 80)));
    upstream.set("new.crates.example", &[c], 60);
    let found = wait_until(Duration::from_secs(5), || {
        ask(&world, "app", "net", "new.crates.example") == (0, vec![c])
    });
    assert!(found && reaches(&world, "app", (c, 80)));

    // What somebody flushed comes again, with what was learnt.
    for family in ["inet", "bridge"] {
        Run::new("nft")
            .args(["delete", "table", family, &table])
            .ok();
    }
    world.ok(["network", "check", "--repair"]);
    assert!(tables(&table).contains("guards"));
    assert!(reaches(&world, "app", (b, 80)) && !reaches(&world, "app", (b, 79)));
    assert!(!reaches(&world, "app", (outside.addresses[3], 80)));
}

#[test]
fn other_sources_and_ways_do_not_help() {
    let world = World::new();
    let outside = Outside::new();
    outside.serve(&[80]);
    let [a, ..] = outside.addresses;
    world.ok(["network", "create", "--subnet", "10.231.77.0/24", "net"]);
    world.sleeper("app", &["--network", "net", "--egress", "deny"]);
    world.sleeper("free", &["--network", "net"]);
    let pid = world.inspect("app", "{{.State.Pid}}");
    let run = |command: &str| {
        let command = format!("-t {pid} -n {command}");
        Run::new("nsenter").args(command.split(' ')).ok();
    };
    let attempt = |from: &str, name: &str| {
        let from: IpAddr = from.parse().expect("an address");
        inside(&world, name, || {
            let (kind, flags) = (
                rustix::net::SocketType::STREAM,
                rustix::net::SocketFlags::CLOEXEC,
            );
            let family = rustix::net::AddressFamily::INET;
            let socket = rustix::net::socket_with(family, kind, flags, None).expect("a socket");
            rustix::net::bind(&socket, &SocketAddr::from((from, 0))).expect("bind");
            let limit = Some(Duration::from_millis(700));
            let send = rustix::net::sockopt::Timeout::Send;
            rustix::net::sockopt::set_socket_timeout(&socket, send, limit).expect("a limit");
            rustix::net::connect(&socket, &SocketAddr::from((a, 80))).is_ok()
        })
    };
    // An address that is nobody's, and one that is another's.
    let free_pid = world.inspect("free", "{{.State.Pid}}");
    let add = format!("-t {free_pid} -n ip addr add 10.231.77.200/24 dev eth0");
    Run::new("nsenter").args(add.split(' ')).ok();
    assert!(attempt("10.231.77.200", "free"), "the test itself works");
    let peer = address(&world, "free", "net").to_string();
    for source in ["10.231.77.201", peer.as_str(), "172.31.9.9"] {
        run(&format!("ip addr add {source}/24 dev eth0"));
        assert!(!attempt(source, "app"), "{source}");
        run(&format!("ip addr del {source}/24 dev eth0"));
    }
    // By way of another container, which forwards as the host does.
    let host = gateway(&world, "app", "net");
    let mac = world.place("free", "net", "MacAddress");
    run(&format!(
        "ip neigh replace {host} lladdr {mac} dev eth0 nud permanent"
    ));
    assert!(!reaches(&world, "app", (a, 80)));
    run(&format!("ip neigh del {host} dev eth0"));
    assert!(!reaches(&world, "app", (a, 80)));
    assert!(world.reaches("app", &peer));
    // With another hardware address it is nobody.
    run("ip link set eth0 address 02:00:00:00:00:77");
    assert!(!reaches(&world, "app", (a, 80)));
    assert!(!world.reaches("app", &peer));
    // An interface of its own leads nowhere, and one more network is guarded from the first moment.
    world.ok(["network", "create", "more"]);
    world.ok(["network", "connect", "more", "app"]);
    let more = address(&world, "app", "more").to_string();
    assert!(!attempt(&more, "app"));
    world.ok(["network", "disconnect", "net", "app"]);
    assert!(!attempt(&more, "app"));
    world.ok(["update", "--egress", "allow", "app"]);
    assert!(attempt(&more, "app"));
}

#[test]
fn allowed_container_is_kept_from_what_is_listed() {
    let world = World::new();
    let outside = Outside::new();
    outside.serve(&[80, 443]);
    let [a, b, c, _] = outside.addresses;
    world.ok(["network", "create", "net"]);
    world.server("peer", &["--network", "net"]);
    world.server("other", &["--network", "net"]);
    let (peer, other) = (
        address(&world, "peer", "net"),
        address(&world, "other", "net"),
    );
    let subnet = format!("{a}/29");
    let own = peer.to_string();
    let mut args = vec!["--network", "net", "--egress", "allow"];
    let allowed = format!("{b}:443");
    args.extend(["--egress-deny", &subnet, "--egress-deny", &own]);
    args.extend(["--egress-allow", &allowed]);
    world.sleeper("app", &args);
    assert!(!reaches(&world, "app", (a, 80)) && !reaches(&world, "app", (c, 443)));
    assert!(reaches(&world, "app", (b, 443)) && !reaches(&world, "app", (b, 80)));
    // A listed peer is out of reach, too.
    assert!(serves(&format!("{other}:80")));
    // The server takes one client at a time.
    let patience = Duration::from_secs(10);
    let reached = || reaches(&world, "app", (other, 80));
    assert!(wait_until(patience, reached));
    assert!(!reaches(&world, "app", (peer, 80)));
    assert_eq!(ask(&world, "app", "net", "peer"), (0, vec![peer]));
}

#[test]
fn policy_on_the_default_network_is_asked_by_labels_changed_and_gone_with_its_container() {
    let mut world = World::new();
    let table = table_name(&world);
    let outside = Outside::new();
    outside.serve(&[80]);
    let [a, b, ..] = outside.addresses;
    let upstream = Upstream::new();
    let server = upstream.address.to_string();
    upstream.set("a.example", &[a], 60);
    upstream.set("b.example", &[b], 60);
    let label = |name: &str, value: &str| format!("hull.egress{name}={value}");
    let (deny, allow) = (
        label("", "deny"),
        label(".allow", "a.example:80, 10.9.0.0/16"),
    );
    let args = ["--label", &deny, "--label", &allow, "--dns", &server];
    world.sleeper("app", &args);
    let shown = world.inspect("app", "{{json .HostConfig.Egress}}");
    assert_eq!(
        shown,
        r#"{"Default":"deny","Allow":["a.example:80","10.9.0.0/16"]}"#
    );
    world.sleeper("free", &[]);
    assert!(reaches(&world, "free", (a, 80)));
    // Names are served to whoever needs it for a policy, and to nobody else.
    let host = world.inspect("app", "{{.NetworkSettings.Gateway}}");
    let servers = |name: &str| world.ok(["exec", name, "cat", "/etc/resolv.conf"]);
    assert!(servers("app").contains(&format!("nameserver {host}\n")));
    assert!(!servers("free").contains(&format!("nameserver {host}\n")));
    assert!(!reaches(&world, "app", (a, 80)));
    let host: Ipv4Addr = host.parse().expect("an address");
    let ask = |name: &str| inside(&world, "app", || look_up(host, name));
    assert_eq!(ask("a.example"), (0, vec![a]));
    assert!(reaches(&world, "app", (a, 80)));
    assert_eq!(ask("b.example").0, NXDOMAIN);

    // Another policy holds at once, for connections that are open as well.
    let mut open = inside(&world, "app", || {
        UdpSocket::bind("0.0.0.0:0").expect("bind")
    });
    outside.echo(a, 99);
    let both = [a.to_string(), b.to_string()];
    world.ok(["update", "--egress-allow", &both[0], "app"]);
    let patience = Some(Duration::from_millis(700));
    open.set_read_timeout(patience).expect("a limit");
    let talk = |open: &mut UdpSocket| {
        open.send_to(b"echo", (a, 99)).ok();
        open.recv(&mut [0; 16]).is_ok()
    };
    assert!(talk(&mut open));
    world.ok(["update", "--egress-allow", &both[1], "app"]);
    assert!(reaches(&world, "app", (b, 80)) && !reaches(&world, "app", (a, 80)));
    assert!(!talk(&mut open));
    assert_eq!(ask("a.example").0, NXDOMAIN);
    let shown = world.inspect("app", "{{json .HostConfig.Egress}}");
    assert_eq!(shown, format!(r#"{{"Default":"deny","Allow":["{b}"]}}"#));

    // It holds for the next run, for that after a kill, and not for the next container.
    world.ok(["restart", "-t", "0", "app"]);
    assert!(reaches(&world, "app", (b, 80)) && !reaches(&world, "app", (a, 80)));
    world.kill();
    let rules = tables(&table);
    world.start();
    assert_eq!(tables(&table), rules, "the new daemon says the same");
    assert!(reaches(&world, "app", (b, 80)) && !reaches(&world, "app", (a, 80)));
    assert!(tables(&table).contains("guards"));
    world.ok(["rm", "-f", "app"]);
    assert_eq!(tables(&table), "");
    world.sleeper("next", &[]);
    assert!(reaches(&world, "next", (a, 80)));
}

#[test]
fn policy_that_cannot_be_enforced_starts_nothing() {
    let world = World::new();
    let run = |args: &[&str], text: &str| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend(["busybox", "true"]);
        world.hull(all).fails_saying(125, text);
    };
    run(&["--egress", "maybe"], "use deny or allow");
    run(&["--egress-allow", "1.2.3.4:x"], "invalid egress rule");
    run(
        &["--egress", "allow", "--egress-deny", "a.example"],
        "a name can be denied only",
    );
    run(
        &["--egress-allow", "1.2.3.4", "--egress-deny", "1.2.3.5"],
        "say by --egress",
    );
    run(
        &["--network", "host", "--egress", "deny"],
        "conflicting options",
    );
    world.sleeper("app", &["--egress", "deny"]);
    run(
        &["--network", "container:app", "--egress", "deny"],
        "conflicting options",
    );
    let table = table_name(&world);
    world.ok(["rm", "-f", "app"]);
    // Somebody else has such a chain at another place.
    Run::new("nft")
        .args(["add", "table", "bridge", &table])
        .ok();
    let chain = "{ type filter hook output priority 7; }";
    Run::new("nft")
        .args(["add", "chain", "bridge", &table, "guard", chain])
        .ok();
    let marker = "touch /tmp/ran";
    let out = world.hull([
        "run", "--name", "no", "--egress", "deny", "busybox", "sh", "-c", marker,
    ]);
    out.fails_saying(125, "cannot enforce the container's egress policy");
    assert_eq!(
        world.inspect("no", "{{.State.StartedAt}}"),
        "0001-01-01T00:00:00Z"
    );
    world.ok(["run", "--rm", "busybox", "true"]);
    Run::new("nft")
        .args(["delete", "table", "bridge", &table])
        .ok();
    world.ok(["start", "no"]);
}

/// A host of the test's own, with two addresses of each kind; gone when dropped.
struct OwnHost(String);

impl OwnHost {
    const SIX: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 2),
    ];

    fn new() -> Self {
        let name = format!("hte6{:x}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        for address in Self::SIX {
            ip(&format!("-n {name} addr add {address}/128 dev lo"));
        }
        Self(name)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for OwnHost {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "del", &self.0]).run();
    }
}

#[test]
fn ipv6_is_judged_as_ipv4_is() {
    let host = OwnHost::new();
    let world = World::from(Daemon::builder().netns(&host.0).start());
    let [a, b] = OwnHost::SIX;
    let listeners: Vec<TcpListener> = within(&host.path(), || {
        let ports = [(a, 80), (b, 80), (b, 443)];
        ports.map(|at| TcpListener::bind(at).expect("bind")).into()
    });
    world.ok(["network", "create", "--ipv6", "net"]);
    let rule = format!("[{b}]:80/tcp");
    let args = ["--network", "net", "--egress-allow", &rule];
    world.sleeper("app", &args);
    world.sleeper("free", &["--network", "net"]);
    let own = |name: &str| -> Ipv6Addr {
        let text = world.place(name, "net", "GlobalIPv6Address");
        text.parse().expect("an address")
    };
    let (app, free) = (own("app"), own("free"));
    let peer = inside(&world, "free", || {
        TcpListener::bind((free, 80)).expect("bind")
    });
    let to = |name: &str, to: (Ipv6Addr, u16)| inside(&world, name, || connects(to.into()));
    for (address, port) in [(a, 80), (b, 80), (b, 443)] {
        assert!(to("free", (address, port)), "{address} {port}");
        let listed = (address, port) == (b, 80);
        assert_eq!(to("app", (address, port)), listed, "{address} {port}");
    }
    assert!(to("app", (free, 80)));
    // Another address of its network is not its own.
    let other = Ipv6Addr::from_bits(app.to_bits() + 0x100);
    let pid = world.inspect("app", "{{.State.Pid}}");
    let run = |command: &str| {
        let command = format!("-t {pid} -n {command}");
        Run::new("nsenter").args(command.split(' ')).ok();
    };
    run(&format!("ip addr del {app}/64 dev eth0"));
    run(&format!("ip addr add {other}/64 dev eth0 nodad"));
    run(&format!(
        "ip -6 route replace default via {}",
        world.place("app", "net", "IPv6Gateway")
    ));
    assert!(!to("app", (b, 80)) && !to("app", (free, 80)));
    drop((listeners, peer));
}
