//! Names on networks: containers, aliases, ids, the host; by datagram and stream; what is not ours
//! is asked of other servers, of which some are silent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hull_testkit::wait_until;
use hull_tests::net::World;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const A: u16 = 1;
const PTR: u16 = 12;
const MX: u16 = 15;
const AAAA: u16 = 28;
const NXDOMAIN: u8 = 3;
/// What the servers of the tests answer to every question.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// An answer, as far as the tests look.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    code: u8,
    truncated: bool,
    addresses: Vec<Ipv4Addr>,
    /// Raw data of records that are no addresses.
    others: usize,
}

fn address(world: &World, name: &str, network: &str) -> Ipv4Addr {
    let text = world.place(name, network, "IPAddress");
    text.parse().expect("an address")
}

/// The server that a container asks.
fn name_server(world: &World, name: &str) -> Ipv4Addr {
    let text = world.ok(["exec", name, "cat", "/etc/resolv.conf"]);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "));
    line.and_then(|text| text.parse().ok()).expect("a server")
}

/// Runs something on a thread in a container's network.
fn within<T: Send>(world: &World, name: &str, act: impl FnOnce() -> T + Send) -> T {
    let pid = world.inspect(name, "{{.State.Pid}}");
    std::thread::scope(|scope| {
        let inside = move || {
            let netns = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("open");
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&netns),
                Some(LinkNameSpaceType::Network),
            )
            .expect("enter");
            act()
        };
        scope.spawn(inside).join().expect("a thread")
    })
}

fn ask(world: &World, container: &str, name: &str, kind: u16) -> Reply {
    let server = name_server(world, container);
    within(world, container, || {
        by_datagram(server, &question(name, kind, None))
    })
}

fn question(name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
    let additional = u8::from(payload.is_some());
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, additional];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    if let Some(size) = payload {
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes
}

fn by_datagram(server: Ipv4Addr, question: &[u8]) -> Reply {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    socket.connect((server, 53)).expect("connect");
    socket
        .set_read_timeout(Some(Duration::from_secs(9)))
        .expect("a limit");
    socket.send(question).expect("ask");
    let mut buffer = [0; 8192];
    let length = socket.recv(&mut buffer).expect("an answer");
    read(&buffer[..length])
}

fn by_stream(server: Ipv4Addr, question: &[u8]) -> Reply {
    let mut stream = TcpStream::connect((server, 53)).expect("connect");
    let length = u16::try_from(question.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).expect("ask");
    stream.write_all(question).expect("ask");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).expect("an answer");
    read(&reply)
}

fn skip_name(bytes: &[u8], mut at: usize) -> usize {
    loop {
        match bytes[at] {
            0 => return at + 1,
            length if length & 0xc0 != 0 => return at + 2,
            length => at += usize::from(length) + 1,
        }
    }
}

fn read(bytes: &[u8]) -> Reply {
    assert_eq!(bytes[..2], [0x12, 0x34], "the number of the question");
    let mut reply = Reply {
        code: bytes[3] & 0xf,
        truncated: bytes[2] & 2 != 0,
        ..Reply::default()
    };
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut at = skip_name(bytes, 12) + 4;
    for _ in 0..number(6) {
        at = skip_name(bytes, at);
        let (kind, length) = (number(at), usize::from(number(at + 8)));
        let data = &bytes[at + 10..at + 10 + length];
        match (kind, data) {
            (A, &[a, b, c, d]) => reply.addresses.push(Ipv4Addr::new(a, b, c, d)),
            _ => reply.others += 1,
        }
        at += 10 + length;
    }
    reply.addresses.sort();
    reply
}

/// A name server on the host's loopback that answers, or only listens; it ends with the test.
fn upstream(address: Ipv4Addr, answers: bool) -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind((address, 53)).expect("bind");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::Relaxed);
            if !answers {
                continue;
            }
            let mut reply = buffer[..length].to_vec();
            let end = skip_name(&reply, 12) + 4;
            reply.truncate(end);
            reply[2] |= 0x80;
            reply[3] = 0x80;
            reply[7] = 1;
            reply[11] = 0;
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            reply.extend_from_slice(&FOREIGN.octets());
            socket.send_to(&reply, client).ok();
        }
    });
    asked
}

#[test]
fn names_aliases_ids_and_the_host_are_known_and_change_with_the_containers() {
    let world = World::new();
    world.ok(["network", "create", "--internal", "net-a"]);
    world.sleeper("asker", &["--network", "net-a"]);
    world.sleeper("web1", &["--network", "net-a", "--network-alias", "web"]);
    world.sleeper("web2", &["--network", "net-a", "--network-alias", "web"]);
    let (one, two) = (
        address(&world, "web1", "net-a"),
        address(&world, "web2", "net-a"),
    );
    let id = world.inspect("web1", "{{.Id}}");
    for name in ["web1", "WEB1", "web1.net-a", &id[..12]] {
        assert_eq!(ask(&world, "asker", name, A).addresses, [one], "{name}");
    }
    assert_eq!(ask(&world, "asker", "web", A).addresses, [one, two]);
    let server = name_server(&world, "asker");
    for name in ["host.docker.internal", "host.containers.internal"] {
        assert_eq!(ask(&world, "asker", name, A).addresses, [server], "{name}");
    }
    for kind in [AAAA, MX] {
        assert_eq!(ask(&world, "asker", "web1", kind), Reply::default());
    }
    let [a, b, c, d] = one.octets();
    let reverse = ask(
        &world,
        "asker",
        &format!("{d}.{c}.{b}.{a}.in-addr.arpa"),
        PTR,
    );
    assert_eq!((reverse.code, reverse.others), (0, 1));
    let name = world.ok(["exec", "asker", "nslookup", &one.to_string()]);
    assert!(name.contains("web1.net-a"), "{name}");

    // Both of one name are asked in turn.
    let first = |_| {
        let out = world.ok(["exec", "asker", "nslookup", "-type=a", "web"]);
        let line = out
            .lines()
            .filter_map(|line| line.strip_prefix("Address: "));
        line.map(str::to_owned).next().unwrap_or_default()
    };
    let mut firsts: Vec<String> = (0..4).map(first).collect();
    firsts.sort();
    firsts.dedup();
    assert_eq!(firsts.len(), 2, "{firsts:?}");

    world.ok(["rename", "web1", "renamed"]);
    assert_eq!(ask(&world, "asker", "renamed", A).addresses, [one]);
    assert_eq!(ask(&world, "asker", "web1", A).code, NXDOMAIN);
    world.ok(["rm", "-f", "web2"]);
    assert_eq!(ask(&world, "asker", "web", A).addresses, [one]);
    world.ok(["rm", "-f", "renamed"]);
    assert_eq!(ask(&world, "asker", "web", A).code, NXDOMAIN);
}

#[test]
fn large_answers_come_by_edns_and_by_stream() {
    let world = World::new();
    world.ok(["network", "create", "--internal", "many"]);
    let mut all = Vec::new();
    for number in 0..34 {
        let name = format!("m{number}");
        world.sleeper(&name, &["--network", "many", "--network-alias", "all"]);
        all.push(address(&world, &name, "many"));
    }
    all.sort();
    let server = name_server(&world, "m0");
    let cut = ask(&world, "m0", "all", A);
    assert!(cut.truncated && cut.addresses.is_empty());
    let edns = question("all", A, Some(4096));
    let whole = within(&world, "m0", || by_datagram(server, &edns));
    assert_eq!(whole.addresses, all);
    let plain = question("all", A, None);
    let whole = within(&world, "m0", || by_stream(server, &plain));
    assert_eq!(whole.addresses, all);
    // What is no question does no harm.
    within(&world, "m0", || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        for length in 0..plain.len() {
            let mut damaged = plain.clone();
            damaged[length] ^= 0xff;
            socket.send_to(&damaged, (server, 53)).expect("send");
            socket
                .send_to(&damaged[..length], (server, 53))
                .expect("send");
        }
    });
    assert_eq!(ask(&world, "m0", "m0", A).code, 0);
}

#[test]
fn foreign_names_are_asked_of_others_but_never_from_internal_networks() {
    let world = World::new();
    let [silent, good] = [9, 1].map(|last| Ipv4Addr::new(127, 77, 5, last));
    let unanswered = upstream(silent, false);
    let answered = upstream(good, true);
    world.ok(["network", "create", "open"]);
    world.ok(["network", "create", "--internal", "shut"]);
    let (silent, good) = (silent.to_string(), good.to_string());
    let servers = ["--dns", silent.as_str(), "--dns", good.as_str()];
    let with = |network: &'static str| {
        let mut args = vec!["--network", network];
        args.extend(servers);
        args
    };
    world.sleeper("open1", &with("open"));
    world.sleeper("shut1", &with("shut"));

    assert_eq!(ask(&world, "shut1", "example.org", A).code, NXDOMAIN);
    assert_eq!(
        unanswered.load(Ordering::Relaxed) + answered.load(Ordering::Relaxed),
        0
    );

    // The first does not answer, the second does; from then on the second is asked first.
    assert_eq!(ask(&world, "open1", "example.org", A).addresses, [FOREIGN]);
    assert!(unanswered.load(Ordering::Relaxed) > 0);
    let before = unanswered.load(Ordering::Relaxed);
    assert_eq!(ask(&world, "open1", "example.com", A).addresses, [FOREIGN]);
    assert_eq!(unanswered.load(Ordering::Relaxed), before);
    // Names of ours are not asked of others.
    let before = answered.load(Ordering::Relaxed);
    assert_eq!(ask(&world, "open1", "open1", A).addresses.len(), 1);
    assert_eq!(answered.load(Ordering::Relaxed), before);
    // Also on an internal network, a container that is on another has a way out.
    world.ok(["network", "connect", "bridge", "shut1"]);
    assert_eq!(ask(&world, "shut1", "example.org", A).addresses, [FOREIGN]);
    world.ok(["network", "disconnect", "bridge", "shut1"]);
    assert_eq!(ask(&world, "shut1", "example.org", A).code, NXDOMAIN);
    world.ok(["network", "connect", "open", "shut1"]);
    assert_eq!(ask(&world, "shut1", "example.org", A).addresses, [FOREIGN]);
}

#[test]
fn look_ups_that_wait_hold_up_no_other() {
    let world = World::new();
    let silent = Ipv4Addr::new(127, 77, 6, 9);
    let unanswered = upstream(silent, false);
    world.ok(["network", "create", "busy"]);
    world.sleeper(
        "asker",
        &["--network", "busy", "--dns", &silent.to_string()],
    );
    world.sleeper("other", &["--network", "busy"]);
    let server = name_server(&world, "asker");
    let question = question("example.org", A, None);
    // More than one container may have under way: what is beyond fails at once.
    within(&world, "asker", || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        let pause = Some(Duration::from_millis(100));
        socket.set_read_timeout(pause).expect("a limit");
        let mut buffer = [0; 512];
        let failed = (0..30).any(|_| {
            for _ in 0..50 {
                socket.send_to(&question, (server, 53)).expect("send");
            }
            let length = socket.recv(&mut buffer);
            length.is_ok_and(|length| read(&buffer[..length]).code == 2)
        });
        assert!(failed, "no look-up failed at once");
    });
    assert!(wait_until(Duration::from_secs(5), || {
        unanswered.load(Ordering::Relaxed) > 50
    }));
    // The silent server still holds those look-ups; ours are answered.
    for asker in ["asker", "other"] {
        assert_eq!(ask(&world, asker, "other", A).addresses.len(), 1);
    }
}

#[test]
fn resolver_files_carry_search_domains_options_and_hosts() {
    let world = World::new();
    world.ok(["network", "create", "net-b"]);
    world.sleeper(
        "one",
        &[
            "--network",
            "net-b",
            "--dns-search",
            "example.org",
            "--dns-option",
            "timeout:3",
            "--add-host",
            "away:host-gateway",
            "--hostname",
            "unit",
        ],
    );
    let server = name_server(&world, "one");
    let conf = world.ok(["exec", "one", "cat", "/etc/resolv.conf"]);
    assert_eq!(
        conf,
        format!("nameserver {server}\nsearch example.org\noptions timeout:3 ndots:0")
    );
    let hosts = world.ok(["exec", "one", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&format!("{server}\taway")), "{hosts}");
    let own = address(&world, "one", "net-b");
    assert!(hosts.contains(&format!("{own}\tunit")), "{hosts}");
    world.sleeper("two", &["--network", "net-b"]);
    assert_eq!(ask(&world, "two", "unit", A).addresses, [own]);
}
