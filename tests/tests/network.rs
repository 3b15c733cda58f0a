//! The default network: addresses, ports published over TCP and UDP, loopback, other hosts,
//! container to container, and that all of it is freed.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use hull_testkit::{Daemon, Run, eventually, fixtures, wait_until};
use hull_tests::net::{SERVER, read_from, serves};

/// The host port of a container's published port.
fn port_of(daemon: &Daemon, name: &str, port: &str) -> u16 {
    let out = daemon.ok(["port", name, port]);
    out.lines()
        .next()
        .and_then(|line| line.rsplit(':').next()?.parse().ok())
        .expect("a port")
}

/// An address of the host that is not loopback.
fn host_address() -> String {
    let out = Run::new("ip")
        .args(["-4", "-o", "addr", "show", "dev", "eth0"])
        .ok();
    out.split_whitespace()
        .nth(3)
        .and_then(|text| text.split('/').next())
        .expect("an address")
        .to_owned()
}

#[test]
fn network_container_has_address_route_and_resolver() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip addr show eth0; ip route; cat /etc/resolv.conf",
    ]);
    assert!(
        out.contains("inet ") && out.contains("default via ") && out.contains("nameserver"),
        "{out}"
    );
    daemon.ok(["run", "-d", "--name", "box", "busybox", "sleep", "1000"]);
    let address = daemon.inspect("box", "{{.NetworkSettings.IPAddress}}");
    let inside = daemon.ok(["exec", "box", "ip", "-4", "addr", "show", "eth0"]);
    assert!(
        inside.contains(&format!("inet {address}/")),
        "{inside} {address}"
    );
    let mac = daemon.inspect("box", "{{.NetworkSettings.MacAddress}}");
    assert!(
        daemon
            .ok(["exec", "box", "ip", "link", "show", "eth0"])
            .contains(&mac)
    );
    let gateway = daemon.inspect("box", "{{.NetworkSettings.Gateway}}");
    daemon.ok(["exec", "box", "ping", "-c", "1", "-W", "2", &gateway]);
    let hosts = daemon.ok(["exec", "box", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&address), "{hosts}");
}

#[test]
fn network_none_has_loopback_alone_and_host_shares_all() {
    let daemon = Daemon::new();
    let out = daemon.ok([
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "ls /sys/class/net; ping -c 1 127.0.0.1 >/dev/null && echo up",
    ]);
    assert_eq!(out, "lo\nup");
    let out = daemon.ok([
        "run",
        "--rm",
        "--network",
        "host",
        "busybox",
        "ls",
        "/sys/class/net",
    ]);
    assert!(out.contains("eth0"), "{out}");
    daemon
        .hull(["run", "--rm", "--network", "nosuchnet", "busybox", "true"])
        .fails_saying(125, "nosuchnet");
}

#[test]
fn network_container_mode_shares_address_and_loopback() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "server", "busybox", "sh", "-c", SERVER,
    ]);
    let reached = wait_until(Duration::from_secs(5), || {
        daemon
            .hull([
                "run",
                "--rm",
                "--network",
                "container:server",
                "busybox",
                "nc",
                "-w",
                "2",
                "127.0.0.1",
                "80",
            ])
            .stdout
            == "served"
    });
    assert!(reached);
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn network_containers_reach_each_other_and_the_world() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "server", "busybox", "sh", "-c", SERVER,
    ]);
    let address = daemon.inspect("server", "{{.NetworkSettings.IPAddress}}");
    let reached = wait_until(Duration::from_secs(5), || {
        daemon
            .hull(["run", "--rm", "busybox", "nc", "-w", "2", &address, "80"])
            .stdout
            == "served"
    });
    assert!(reached);
    // Out through the host's masquerade: the container reaches the host's own address and beyond.
    daemon.ok([
        "run",
        "--rm",
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        &host_address(),
    ]);
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn port_tcp_is_reached_by_loopback_host_address_and_containers() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "server", "-p", "80", "busybox", "sh", "-c", SERVER,
    ]);
    let port = port_of(&daemon, "server", "80/tcp");
    assert!(serves(&format!("127.0.0.1:{port}")), "by loopback");
    let host = host_address();
    assert!(serves(&format!("{host}:{port}")), "by the host's address");
    let from_container = wait_until(Duration::from_secs(5), || {
        daemon
            .hull([
                "run",
                "--rm",
                "busybox",
                "nc",
                "-w",
                "2",
                &host,
                &port.to_string(),
            ])
            .stdout
            == "served"
    });
    assert!(
        from_container,
        "from another container by the host's address"
    );
    daemon.ok(["exec", "server", "true"]);
    let hairpin = wait_until(Duration::from_secs(5), || {
        daemon
            .hull(["exec", "server", "nc", "-w", "2", &host, &port.to_string()])
            .stdout
            == "served"
    });
    assert!(hairpin, "from the container itself by the host's address");
    daemon.ok(["rm", "-f", "server"]);
    let freed = wait_until(Duration::from_secs(5), || {
        read_from(&format!("127.0.0.1:{port}")).is_none()
    });
    assert!(freed, "the port is freed");
}

#[test]
fn port_on_one_address_is_not_reached_by_another() {
    let daemon = Daemon::new();
    // Another test's daemon may publish the same number on another address: this one is known by
    // what it says.
    let server = SERVER.replace("served", "here");
    daemon.ok([
        "run",
        "-d",
        "--name",
        "server",
        "-p",
        "127.0.0.1::80",
        "busybox",
        "sh",
        "-c",
        &server,
    ]);
    let port = port_of(&daemon, "server", "80/tcp");
    assert_eq!(
        daemon.ok(["port", "server"]),
        format!("80/tcp -> 127.0.0.1:{port}")
    );
    let says_here = |address: String| read_from(&address).as_deref() == Some("here");
    assert!(wait_until(Duration::from_secs(10), || {
        says_here(format!("127.0.0.1:{port}"))
    }));
    assert!(!says_here(format!("{}:{port}", host_address())));
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn port_udp_answers() {
    let daemon = Daemon::new();
    let mount = format!("{}:/probe:ro", fixtures::probe().display());
    daemon.ok([
        "run", "-d", "--name", "server", "-p", "53/udp", "-v", &mount, "busybox", "/probe",
        "udp-echo", "53",
    ]);
    let port = port_of(&daemon, "server", "53/udp");
    for host in ["127.0.0.1".to_owned(), host_address()] {
        let answered = wait_until(Duration::from_secs(10), || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
            socket
                .set_read_timeout(Some(Duration::from_millis(700)))
                .expect("timeout");
            let _ = socket.send_to(b"ping", format!("{host}:{port}"));
            let mut buffer = [0; 16];
            socket
                .recv(&mut buffer)
                .is_ok_and(|count| buffer.get(..count) == Some(b"pong"))
        });
        assert!(answered, "udp by {host}");
    }
    daemon.ok(["rm", "-f", "server"]);
}

/// Another host, played by a network namespace behind a veth pair; removed when dropped.
struct OtherHost {
    name: String,
    address: String,
    ours: String,
}

impl OtherHost {
    fn new() -> Self {
        // The third byte differs by process, so that two runs do not meet.
        let number = std::process::id() % 200;
        let name = format!("hto{:x}", std::process::id());
        let host = Self {
            address: format!("198.18.{number}.2"),
            ours: format!("198.18.{number}.1"),
            name,
        };
        let peer = format!("{}p", host.name);
        for command in [
            format!("netns add {}", host.name),
            format!(
                "link add {} type veth peer name {peer} netns {}",
                host.name, host.name
            ),
            format!("addr add {}/30 dev {}", host.ours, host.name),
            format!("link set {} up", host.name),
            format!("-n {} addr add {}/30 dev {peer}", host.name, host.address),
            format!("-n {} link set {peer} up", host.name),
            format!("-n {} link set lo up", host.name),
            format!("-n {} route add default via {}", host.name, host.ours),
        ] {
            Run::new("ip").args(command.split(' ')).ok();
        }
        host
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        let _ = Run::new("ip").args(["netns", "del", &self.name]).run();
        let _ = Run::new("ip").args(["link", "del", &self.name]).run();
    }
}

#[test]
fn port_is_reached_from_another_host_and_sees_its_address() {
    let daemon = Daemon::new();
    let other = OtherHost::new();
    let mount = format!("{}:/probe:ro", fixtures::probe().display());
    daemon.ok([
        "run", "-d", "--name", "server", "-p", "80", "-v", &mount, "busybox", "/probe", "tcp-peer",
        "80",
    ]);
    let port = port_of(&daemon, "server", "80/tcp").to_string();
    let mut seen = String::new();
    let reached = wait_until(Duration::from_secs(10), || {
        let out = Run::new("ip")
            .args([
                "netns",
                "exec",
                &other.name,
                "busybox",
                "nc",
                "-w",
                "2",
                &other.ours,
                &port,
            ])
            .run();
        seen = out.stdout;
        !seen.is_empty()
    });
    assert!(reached, "{seen}");
    assert_eq!(seen, other.address, "the client's address is kept");
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn port_taken_is_refused_and_free_again_after_exit() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "first", "-p", "80", "busybox", "sleep", "1000",
    ]);
    let port = port_of(&daemon, "first", "80/tcp");
    let publish = format!("{port}:80");
    let out = daemon.hull(["run", "--name", "second", "-p", &publish, "busybox", "true"]);
    out.fails_saying(125, "already");
    daemon.ok(["rm", "-f", "first", "second"]);
    let freed = wait_until(Duration::from_secs(5), || {
        daemon
            .hull(["run", "--rm", "-p", &publish, "busybox", "true"])
            .code
            == 0
    });
    assert!(freed);
}

#[test]
fn port_taken_by_a_host_process_is_refused() {
    let daemon = Daemon::new();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    let out = daemon.hull([
        "run",
        "--rm",
        "-p",
        &format!("{port}:80"),
        "busybox",
        "true",
    ]);
    out.fails_saying(125, "already");
    drop(listener);
}

#[test]
fn port_forms_are_parsed_as_dockers() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "-p",
        "127.0.0.1:18080:80",
        "-p",
        "18081-18082:81-82",
        "-p",
        "18083:83/udp",
        "busybox",
        "sleep",
        "1000",
    ]);
    let out = daemon.ok(["port", "box"]);
    for line in [
        "80/tcp -> 127.0.0.1:18080",
        "81/tcp -> 0.0.0.0:18081",
        "82/tcp -> 0.0.0.0:18082",
        "83/udp -> 0.0.0.0:18083",
    ] {
        assert!(out.lines().any(|have| have == line), "{line}\n{out}");
    }
    assert_eq!(daemon.ok(["port", "box", "80"]), "127.0.0.1:18080");
    let ports = daemon.ok(["ps", "--format", "{{.Ports}}"]);
    assert!(ports.contains("127.0.0.1:18080->80/tcp"), "{ports}");
    for bad in [
        "nonsense",
        "1:2:3:4",
        "70000:80",
        "80:80/xyz",
        "5-3:80-81",
        "1.2.3.4.5:80:80",
    ] {
        let out = daemon.hull(["run", "--rm", "-p", bad, "busybox", "true"]);
        assert_eq!(out.code, 125, "-p {bad}: {}", out.stderr);
    }
    daemon.ok(["rm", "-f", "box"]);
}

#[test]
fn publish_all_takes_exposed_ports() {
    let daemon = Daemon::new();
    daemon.ok([
        "run", "-d", "--name", "server", "-P", "--expose", "80", "busybox", "sh", "-c", SERVER,
    ]);
    let port = port_of(&daemon, "server", "80/tcp");
    assert!(serves(&format!("127.0.0.1:{port}")));
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn port_keeps_working_over_restarts_of_container_and_daemon() {
    let mut daemon = Daemon::new();
    // No random port: nobody holds it while the daemon is dead, and the daemon of another test would
    // choose the same.
    let publish = format!("{}:80", 20_000 + std::process::id() % 10_000);
    daemon.ok([
        "run", "-d", "--name", "server", "-p", &publish, "busybox", "sh", "-c", SERVER,
    ]);
    let port = port_of(&daemon, "server", "80/tcp");
    let address = format!("127.0.0.1:{port}");
    assert!(serves(&address));
    if !daemon.is_docker() {
        daemon.kill();
        assert!(serves(&address), "without a daemon");
        daemon.start();
        assert!(serves(&address), "with a new daemon");
    }
    daemon.ok(["restart", "-t", "0", "server"]);
    let port = port_of(&daemon, "server", "80/tcp");
    assert!(serves(&format!("127.0.0.1:{port}")), "after a restart");
    daemon.ok(["rm", "-f", "server"]);
}

#[test]
fn rules_of_others_are_not_touched() {
    let daemon = Daemon::new();
    let table = format!("hulltest{}", std::process::id());
    Run::new("nft").args(["add", "table", "ip", &table]).ok();
    Run::new("nft")
        .args(["add", "chain", "ip", &table, "x"])
        .ok();
    let before = Run::new("nft").args(["list", "table", "ip", &table]).ok();
    daemon.ok(["run", "--rm", "-p", "80", "busybox", "true"]);
    let after = Run::new("nft").args(["list", "table", "ip", &table]).ok();
    let _ = Run::new("nft")
        .args(["delete", "table", "ip", &table])
        .run();
    assert_eq!(before, after);
}

#[test]
fn large_transfer_through_a_published_port_arrives_whole() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "sink",
        "-p",
        "80",
        "busybox",
        "sh",
        "-c",
        "nc -l -p 80 | md5sum",
    ]);
    let port = port_of(&daemon, "sink", "80/tcp");
    let data: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let mut stream = None;
    let connected = wait_until(Duration::from_secs(5), || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    assert!(connected);
    let mut stream = stream.expect("a stream");
    stream.write_all(&data).expect("write");
    drop(stream);
    let expected = Run::new("md5sum").input(data).ok();
    eventually("the sum is printed", || {
        daemon.ok(["logs", "sink"]).len() > 32
    });
    assert_eq!(daemon.ok(["logs", "sink"]), expected);
    daemon.ok(["rm", "-f", "sink"]);
}
