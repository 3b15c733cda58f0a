//! Networks after others took away what they need, and after hundreds of containers: repaired, and
//! nothing left. Each daemon runs in a network namespace of the test's own, so that all rules of it
//! can be flushed.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hull_testkit::{Daemon, Run, wait_until};
use hull_tests::net::{World, serves};
use hull_tests::outside::within;

static COUNT: AtomicU32 = AtomicU32::new(0);
/// Containers that come and go before all is counted again; more by this variable.
const CONTAINERS: u32 = 200;
const MORE: &str = "HULL_TEST_CONTAINERS";
const SOON: Duration = Duration::from_secs(20);

/// A host of the test's own with a daemon on it.
struct Host {
    world: World,
    netns: String,
}

impl Host {
    fn new() -> Self {
        Self::with(&[])
    }

    /// With these arguments of its daemon.
    fn with(args: &[&str]) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let netns = format!("htr{:x}x{count}", std::process::id() & 0xf_ffff);
        Run::new("ip").args(["netns", "add", &netns]).ok();
        let lo = ["-n", &netns, "link", "set", "lo", "up"];
        Run::new("ip").args(lo).ok();
        let builder = Daemon::builder().netns(&netns);
        let daemon = args.iter().fold(builder, |b, arg| b.arg(*arg)).start();
        Self {
            world: daemon.into(),
            netns,
        }
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.netns)
    }

    /// Runs a program of the host there.
    fn on(&self, command: &str) -> String {
        let whole = ["netns", "exec", &self.netns];
        let words = whole.into_iter().chain(command.split_whitespace());
        Run::new("ip").args(words).ok()
    }

    fn serves(&self, address: &str) -> bool {
        within(&self.path(), || serves(address))
    }

    /// Waits until the daemon has put everything right by itself.
    fn is_repaired(&self) -> bool {
        wait_until(SOON, || self.world.hull(["network", "check"]).code == 0)
    }

    /// The name of the bridge of a network.
    fn bridge(&self, network: &str) -> String {
        let args = [
            "network",
            "inspect",
            "-v",
            "-f",
            "{{.Hull.Bridge}}",
            network,
        ];
        self.world.ok(args).trim().to_owned()
    }

    fn link_of(&self, network: &str, container: &str) -> String {
        let id = self.world.inspect(container, "{{.Id}}");
        let template = format!("{{{{index .Hull.Links \"{id}\"}}}}");
        let args = ["network", "inspect", "-v", "-f", &template, network];
        self.world.ok(args).trim().to_owned()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The containers first, while their daemon is where it was.
        let all = self.world.hull(["ps", "-aq"]).stdout;
        if !all.trim().is_empty() {
            let args = ["rm", "-f"].into_iter().chain(all.split_whitespace());
            self.world.hull(args);
        }
        self.world.hull(["network", "prune", "-f"]);
        let _ = Run::new("ip").args(["netns", "del", &self.netns]).run();
    }
}

#[test]
fn rules_flushed_and_links_deleted_come_back_by_themselves() {
    let host = Host::new();
    let world = &host.world;
    world.ok(["network", "create", "--subnet", "10.77.1.0/24", "web"]);
    world.server("web1", &["--network", "web", "-p", "8080:80"]);
    world.sleeper("app", &["--network", "web"]);
    world.server("alone", &["-p", "8081:80"]);
    world.sleeper("closed", &["--network", "web", "--egress", "deny"]);
    let policies = format!("table inet {}-egress", world.territory().table);
    let sound = |when: &str| {
        assert!(
            host.is_repaired(),
            "{when}: {}",
            world.hull(["network", "check"]).stdout
        );
        assert!(host.serves("127.0.0.1:8080"), "{when}");
        assert!(host.serves("127.0.0.1:8081"), "{when}");
        assert!(host.serves("10.77.1.1:8081"), "{when}");
        assert!(world.reaches("app", "web1"), "{when}");
        assert!(host.on("nft list tables").contains(&policies), "{when}");
    };
    sound("at first");

    host.on("nft flush ruleset");
    let back = wait_until(SOON, || host.on("nft list tables").contains("inet"));
    assert!(back, "the rules are not back");
    sound("rules flushed");

    host.on(&format!("nft delete {policies}"));
    let back = wait_until(SOON, || host.on("nft list tables").contains(&policies));
    assert!(back, "the policies are not back");

    let bridge = host.bridge("web");
    host.on(&format!("ip link del {bridge}"));
    let is_there = |link: &str| {
        let all = host.on("ip -o link");
        all.contains(&format!(": {link}:")) || all.contains(&format!(": {link}@"))
    };
    assert!(wait_until(SOON, || is_there(&bridge)), "no bridge");
    sound("bridge deleted");

    host.on(&format!("ip link set {} down", host.bridge("bridge")));
    sound("default bridge down");
    host.on(&format!("ip link del {}", host.bridge("bridge")));
    sound("default bridge deleted");
    // New ones find their place too.
    world.ok([
        "run",
        "--rm",
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "2",
        "10.77.1.1",
    ]);

    for (network, container) in [("web", "web1"), ("bridge", "alone")] {
        let address = world.place(container, network, "IPAddress");
        let link = host.link_of(network, container);
        host.on(&format!("ip link del {link}"));
        let another = wait_until(SOON, || {
            let now = host.link_of(network, container);
            now != link && is_there(&now)
        });
        assert!(another, "{container} has no link");
        sound("a container's link deleted");
        assert_eq!(world.place(container, network, "IPAddress"), address);
        let inside = world
            .inside(container, "ip -4 -o addr show eth0; ip route")
            .ok();
        assert!(
            inside.contains(&address) && inside.contains("default via"),
            "{inside}"
        );
    }
    world.ok(["rm", "-f", "web1", "alone", "app", "closed"]);
    world.ok(["network", "rm", "web"]);
    let quiet = wait_until(SOON, || !host.on("ip -o link").contains(": hu"));
    assert!(quiet, "{}", host.on("ip -o link"));
}

#[test]
fn way_back_of_ports_that_obey_comes_back_by_itself() {
    let host = Host::with(&["--published-ports-obey-input"]);
    let world = &host.world;
    world.server("web1", &["-p", "8080:80"]);
    let links = || {
        let all = host.on("ip -o link");
        let names = all.lines().filter_map(|line| line.split(": ").nth(1));
        let ours = names.filter(|name| name.starts_with("hp"));
        ours.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = links();
    assert_eq!(before.len(), 2, "{before:?}");
    let one = before[0].split('@').next().unwrap_or_default();
    host.on(&format!("ip link del {one}"));
    assert!(wait_until(SOON, || links().len() == 2), "{:?}", links());
    assert!(host.is_repaired());
    assert!(host.serves("127.0.0.1:8080"));
}

#[test]
fn check_tells_what_is_wrong_and_repairs_when_asked() {
    let host = Host::new();
    let world = &host.world;
    world.ok(["network", "create", "web"]);
    world.server(
        "web1",
        &[
            "--network",
            "web",
            "--network-alias",
            "www",
            "-p",
            "8080:80",
        ],
    );
    let check = |args: &[&str]| world.hull(["network", "check"].iter().chain(args));
    let good = check(&[]).ok();
    assert_eq!(good, "2 networks checked: all is as it should be");
    assert_eq!(
        check(&["web"]).ok(),
        "1 network checked: all is as it should be"
    );
    check(&["missing"]).fails_saying(1, "network missing not found");

    // No notice tells of a switch, so that it is the user who finds it.
    host.on("sysctl -qw net.ipv4.ip_forward=0");
    let told = check(&["web"]);
    assert_eq!(told.code, 1);
    let fault = "web: setting: net.ipv4.ip_forward is 0 and should be 1";
    assert!(told.stdout.starts_with(fault), "{}", told.stdout);
    assert_eq!(check(&["--format", "{{.Part}}"]).stdout, "setting\n");
    let json = check(&["--format", "json"]).stdout;
    assert!(json.contains("\"Repaired\":false"), "{json}");
    let told = check(&["--repair"]).ok();
    assert!(
        told.contains("(repaired)") && told.ends_with("1 repaired"),
        "{told}"
    );
    assert_eq!(host.on("sysctl -n net.ipv4.ip_forward").trim(), "1");
    check(&[]).ok();

    let shown = world.ok(["network", "inspect", "-v", "web"]);
    let address = world.place("web1", "web", "IPAddress");
    for part in [
        "\"Hull\"",
        "\"www\"",
        "tcp_ports: 8080",
        "name_servers: ",
        &address,
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!world.ok(["network", "inspect", "web"]).contains("\"Hull\""));

    // Where the host's own rules keep the containers' questions out, that is told and left so.
    host.on("nft add table inet strict");
    host.on("nft add chain inet strict in { type filter hook input priority 0 ; policy drop ; }");
    let told = check(&["--repair", "web"]);
    assert_eq!(told.code, 1, "{}", told.stdout);
    assert!(told.stdout.contains("strict"), "{}", told.stdout);
    assert!(
        told.stdout.contains("UDP and TCP to port"),
        "{}",
        told.stdout
    );
    let strict = host.on("nft list table inet strict");
    assert!(strict.contains("policy drop"), "{strict}");
    let made = world.hull(["network", "create", "kept"]);
    assert!(
        made.stderr
            .contains("let UDP and TCP to port 10053 in from hb"),
        "{}",
        made.stderr
    );
    // One that lets them in is no reason to warn.
    host.on("nft add rule inet strict in udp dport 10053 accept");
    let made = world.hull(["network", "create", "heard"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    check(&["heard"]).ok();
    host.on("nft delete table inet strict");
    check(&["web"]).ok();
}

/// What a host has, so that it can be compared: links and addresses by their number (those that
/// are kept ready have other names each time), rules and routes word by word, namespaces that the
/// daemon holds.
fn inventory(host: &Host) -> Vec<String> {
    let lines = |command: &str| host.on(command).lines().count();
    let descriptors = format!("/proc/{}/fd", host.world.pid());
    let held = std::fs::read_dir(Path::new(&descriptors)).expect("its descriptors");
    let namespaces = held
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|to| to.to_string_lossy().starts_with("net:["));
    vec![
        format!("links {}", lines("ip -o link")),
        format!("addresses {}", lines("ip -o addr")),
        format!("namespaces {}", namespaces.count()),
        host.on("ip -4 route show table all"),
        host.on("nft list ruleset"),
    ]
}

#[test]
fn hundreds_of_containers_on_several_networks_leave_nothing() {
    let host = Host::new();
    let world = &host.world;
    for network in ["a", "b", "c", "d"] {
        world.ok(["network", "create", network]);
    }
    let settled = || {
        let mut last = inventory(&host);
        wait_until(SOON, || {
            std::thread::sleep(Duration::from_millis(500));
            let now = inventory(&host);
            let same = now == last;
            last = now;
            same
        });
        last
    };
    world.ok(["run", "--rm", "busybox", "true"]);
    let before = settled();
    let total = std::env::var(MORE).ok().and_then(|n| n.parse().ok());
    let each = total.unwrap_or(CONTAINERS) / 8;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let run = move || {
                for number in 0..each {
                    let networks = ["a", "b", "c", "d"];
                    let first = networks[(thread + number as usize) % 4];
                    let second = networks[(thread + number as usize + 1) % 4];
                    let mut args = vec!["run", "--rm", "-p", "80"];
                    match number % 3 {
                        0 => {}
                        1 => args.extend(["--network", first]),
                        _ => args.extend(["--network", first, "--network", second]),
                    }
                    args.extend(["busybox", "true"]);
                    world.ok(args);
                }
            };
            scope.spawn(run);
        }
    });
    let mut after = Vec::new();
    let same = wait_until(SOON, || {
        after = inventory(&host);
        after == before
    });
    assert!(same, "before {before:#?} after {after:#?}");
    world.hull(["network", "check"]).ok();
}
