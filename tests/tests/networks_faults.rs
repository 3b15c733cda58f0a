//! Networks while the daemon dies: at random moments of create, connect and disconnect nothing is
//! leaked, and what was promised comes back.

use std::time::Duration;

use hull_testkit::{Daemon, Run, wait_until};

/// How often the daemon is killed.
const KILLS: u64 = 10;

fn links() -> Vec<String> {
    let out = Run::new("ip").args(["-o", "link"]).ok();
    let name = |line: &str| line.split(": ").nth(1).map(str::to_owned);
    out.lines().filter_map(name).collect()
}

/// What the bridges' names of this daemon begin with.
fn prefix(daemon: &Daemon) -> String {
    daemon.ok(["network", "create", "--subnet", "10.232.1.0/24", "first"]);
    let out = Run::new("ip").args(["-4", "-o", "addr"]).ok();
    let line = out.lines().find(|line| line.contains("10.232.1.1/24"));
    let bridge = line.and_then(|line| line.split_whitespace().nth(1));
    daemon.ok(["network", "rm", "first"]);
    bridge
        .and_then(|b| b.get(..8))
        .expect("a bridge")
        .to_owned()
}

#[test]
fn daemon_killed_at_any_moment_leaks_no_bridge_link_or_table() {
    let mut daemon = Daemon::new();
    let prefix = prefix(&daemon);
    daemon.ok(["network", "create", "stay"]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "--network",
        "stay",
        "busybox",
        "sleep",
        "1000",
    ]);
    for round in 0..KILLS {
        let script = format!(
            "for n in 1 2 3 4; do \
               \"$0\" network create k{round}-$n && \
               \"$0\" network connect k{round}-$n box && \
               \"$0\" network disconnect k{round}-$n box && \
               \"$0\" network rm k{round}-$n; \
             done; true"
        );
        let mut run = Run::new("sh").args(["-c", &script]).arg(hull());
        for (name, value) in daemon.env() {
            run = run.env(name, value);
        }
        let running = run.spawn();
        // Each round a little later within the same work.
        std::thread::sleep(Duration::from_millis(9 + 17 * round));
        daemon.kill();
        // What it made of the daemon's death is its affair.
        let _ = running.finish();
        daemon.start();
    }
    // The container is still where it was, under its name.
    daemon.ok(["exec", "box", "ping", "-c", "1", "-W", "2", "box"]);
    let inside = daemon.ok(["exec", "box", "ls", "/sys/class/net"]);
    let joined = daemon.inspect("box", "{{len .NetworkSettings.Networks}}");
    assert_eq!(
        inside
            .split_whitespace()
            .filter(|l| l.starts_with("eth"))
            .count()
            .to_string(),
        joined,
        "{inside}"
    );
    daemon.ok(["rm", "-f", "box"]);
    let names = daemon.ok([
        "network",
        "ls",
        "--filter",
        "type=custom",
        "--format",
        "{{.Name}}",
    ]);
    for name in names.lines() {
        daemon.ok(["network", "rm", name]);
    }
    let clean = wait_until(Duration::from_secs(8), || {
        !links().iter().any(|name| name.starts_with(&prefix))
    });
    assert!(clean, "{:?}", links());
    let tables = Run::new("nft").args(["list", "tables"]).ok();
    assert!(!tables.contains(&prefix), "{tables}");
}

#[test]
fn daemon_restarted_serves_names_ports_and_addresses_as_before() {
    let mut daemon = Daemon::new();
    // Said, so that no other daemon takes it while the bridge is away.
    daemon.ok(["network", "create", "--subnet", "10.232.2.0/24", "front"]);
    let server = "while :; do echo -n served | nc -l -p 80; done";
    daemon.ok([
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "--network-alias",
        "www",
        "-p",
        "80",
        "busybox",
        "sh",
        "-c",
        server,
    ]);
    daemon.ok([
        "run",
        "-d",
        "--name",
        "app",
        "--network",
        "front",
        "busybox",
        "sleep",
        "1000",
    ]);
    let before = daemon.inspect("web", "{{json .NetworkSettings.Networks}}");
    for _ in 0..3 {
        daemon.kill();
        daemon.start();
        daemon.ok(["exec", "app", "ping", "-c", "1", "-W", "2", "www"]);
    }
    assert_eq!(
        daemon.inspect("web", "{{json .NetworkSettings.Networks}}"),
        before
    );
    // The address is still taken, and a new container gets another.
    daemon.ok([
        "run",
        "--rm",
        "--network",
        "front",
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        "web",
    ]);
    // The bridge deleted under them comes back with its containers on it.
    let gateway = daemon.inspect(
        "web",
        "{{(index .NetworkSettings.Networks \"front\").Gateway}}",
    );
    let out = Run::new("ip").args(["-4", "-o", "addr"]).ok();
    let line = out
        .lines()
        .find(|line| line.contains(&format!(" {gateway}/")));
    let bridge = line
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("a bridge");
    daemon.kill();
    Run::new("ip").args(["link", "del", bridge]).ok();
    daemon.start();
    let reached = wait_until(Duration::from_secs(10), || {
        daemon
            .hull(["exec", "app", "ping", "-c", "1", "-W", "1", "web"])
            .code
            == 0
    });
    assert!(reached);
    daemon.ok(["rm", "-f", "web", "app"]);
    daemon.ok(["network", "rm", "front"]);
}

#[test]
fn network_whose_subnet_the_host_took_is_named_and_removed_without_a_trace() {
    let mut daemon = Daemon::new();
    let subnet = "10.232.3.0/24";
    daemon.ok(["network", "create", "--subnet", subnet, "lost"]);
    let out = Run::new("ip").args(["-4", "-o", "addr"]).ok();
    let line = out.lines().find(|line| line.contains("10.232.3.1/24"));
    let bridge = line.and_then(|line| line.split_whitespace().nth(1));
    let bridge = bridge.expect("a bridge");
    daemon.kill();
    Run::new("ip").args(["link", "del", bridge]).ok();
    let thief = format!("htt{:x}", std::process::id());
    for command in [
        format!("link add {thief} type bridge"),
        format!("addr add 10.232.3.77/24 dev {thief}"),
    ] {
        Run::new("ip").args(command.split(' ')).ok();
    }
    daemon.start();
    let run = daemon.hull(["run", "--rm", "--network", "lost", "busybox", "true"]);
    let removed = daemon.hull(["network", "rm", "lost"]);
    Run::new("ip").args(["link", "del", &thief]).ok();
    run.fails_saying(125, "overlaps");
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    let tables = Run::new("nft").args(["list", "tables"]).ok();
    assert!(!tables.contains(bridge), "{tables}");
}

fn hull() -> String {
    hull_testkit::paths::hull().to_string_lossy().into_owned()
}
