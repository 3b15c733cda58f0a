//! Name servers under load, and while the daemon is another.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use hull_testkit::Daemon;
use hull_tests::questions::{Load, load, question, socket_within};

/// Containers that ask, and sockets of each.
const CONTAINERS: usize = 5;
const SOCKETS: usize = 10;

fn name_server(daemon: &Daemon, name: &str) -> Ipv4Addr {
    let text = daemon.ok(["exec", name, "cat", "/etc/resolv.conf"]);
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("nameserver "));
    line.and_then(|text| text.parse().ok()).expect("a server")
}

#[test]
fn ten_thousand_questions_a_second_are_answered_and_a_new_daemon_answers_soon() {
    let mut daemon = Daemon::new();
    daemon.ok(["network", "create", "--internal", "net"]);
    let names: Vec<String> = (0..CONTAINERS).map(|number| format!("c{number}")).collect();
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for name in &names {
        let start = ["run", "-d", "--name", name, "--network", "net"];
        daemon.ok(start.iter().chain(&["busybox", "sleep", "1000"]));
    }
    let server = name_server(&daemon, "c0");
    for name in &names {
        let pid = daemon.inspect(name, "{{.State.Pid}}");
        sockets.extend((0..SOCKETS).map(|_| socket_within(&pid, server)));
    }
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    let Load {
        asked,
        answered,
        median,
        p99,
        longest,
    } = load(&sockets, &texts, 10_000, Duration::from_secs(2));
    let came =
        format!("{answered} of {asked}: median {median:?}, p99 {p99:?}, longest {longest:?}");
    assert!(asked > 15_000, "{came}");
    // The kernel may lose a datagram where the machine is busy.
    assert!(answered * 100 >= asked * 99, "{came}");

    // The socket of before goes on with the daemon of after.
    let asks = |socket: &UdpSocket| {
        socket.send(&question("c1")).ok();
        std::thread::sleep(Duration::from_millis(5));
        let mut buffer = [0; 512];
        socket.recv(&mut buffer).is_ok()
    };
    daemon.kill();
    let silent = Instant::now();
    assert!(!asks(&sockets[0]), "nobody answers");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let patience = Duration::from_secs(20);
            while !asks(&sockets[0]) && silent.elapsed() < patience {}
            assert!(silent.elapsed() < patience, "nobody answers any more");
        });
        daemon.start();
    });
    assert!(asks(&sockets[0]) && asks(&sockets[CONTAINERS * SOCKETS - 1]));
    daemon.ok(["rm", "-f"].iter().map(|s| (*s).to_owned()).chain(names));
    daemon.ok(["network", "rm", "net"]);
}
