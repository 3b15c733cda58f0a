//! Bandwidth of containers: what passes is counted by the kernel's token buckets on the host, which
//! the container cannot get at; their devices go with it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hull_testkit::{Run, wait_until};
use hull_tests::net::World;
use hull_tests::outside::{of_process, within};

/// Bytes of a transfer: more than three seconds at the rates of these tests, and a moment without.
const BYTES: usize = 2 << 20;

fn netns(world: &World, name: &str) -> String {
    of_process(&world.inspect(name, "{{.State.Pid}}"))
}

fn address(world: &World, name: &str, network: &str) -> Ipv4Addr {
    let text = world.place(name, network, "IPAddress");
    text.parse().expect("an address")
}

/// Sends [`BYTES`] from one container to another, and tells how long it took until they were there.
fn transfer(world: &World, from: &str, to: &str, network: &str) -> Duration {
    let target = address(world, to, network);
    let listener = within(&netns(world, to), || {
        TcpListener::bind((target, 0)).expect("bind")
    });
    let at = listener.local_addr().expect("an address");
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let (mut buffer, mut sum) = (vec![0; 64 << 10], 0);
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => return sum,
                count => sum += count,
            }
        }
    });
    let begun = Instant::now();
    within(&netns(world, from), || {
        let mut stream = TcpStream::connect(at).expect("connect");
        stream.write_all(&vec![7; BYTES]).expect("send");
    });
    assert_eq!(receiver.join().expect("a thread"), BYTES);
    begun.elapsed()
}

/// What the kernel says of the queues of a link.
fn queues(link: &str) -> String {
    let out = Run::new("tc")
        .args(["-s", "qdisc", "show", "dev", link])
        .run();
    out.stdout
}

/// How often a packet had to wait in a link's bucket.
fn waits(link: &str) -> u64 {
    let text = queues(link);
    let count = text.split("overlimits ").nth(1);
    let count = count.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.unwrap_or(0)
}

/// The host's end of a container's interface.
fn veth(world: &World, name: &str) -> String {
    let index = within(&netns(world, name), || {
        let out = Run::new("ip").args(["-o", "link", "show", "eth0"]).ok();
        let rest = out.split("eth0@if").nth(1).map(str::to_owned);
        let rest = rest.expect("a pair");
        rest.split(':').next().unwrap_or_default().to_owned()
    });
    let all = Run::new("ip").args(["-o", "link"]).ok();
    let line = all
        .lines()
        .find(|line| line.starts_with(&format!("{index}:")));
    let name = line.and_then(|line| line.split([' ', '@']).nth(1));
    name.expect("a link").to_owned()
}

/// The device through which a container's sending goes.
fn device(veth: &str) -> String {
    let kind = if veth.starts_with("hu") { "hj" } else { "hi" };
    format!("{kind}{}", &veth[2..])
}

fn exists(link: &str) -> bool {
    Run::new("ip").args(["link", "show", link]).run().code == 0
}

#[test]
fn limits_hold_in_each_direction_by_itself_and_go_with_the_container() {
    let mut world = World::new();
    world.ok(["network", "create", "net"]);
    let limits = [
        "ingress-rate=5mbit",
        "ingress-burst=16k",
        "egress-rate=4mbit",
    ];
    let mut args = vec!["--network", "net"];
    args.extend(limits.iter().flat_map(|limit| ["--network-opt", limit]));
    world.sleeper("slow", &args);
    world.sleeper("free", &["--network", "net"]);
    let options = world.place("slow", "net", "DriverOpts");
    for limit in limits {
        assert!(options.contains(&limit.replace('=', ":")), "{options}");
    }
    let link = veth(&world, "slow");
    let out = device(&link);
    let shown = queues(&link);
    assert!(shown.contains("rate 5Mbit burst 16Kb"), "{shown}");
    assert!(queues(&out).contains("rate 4Mbit"), "{}", queues(&out));

    // 2 MiB at 5 and 4 Mbit are 3.3 and 4.1 seconds, less what passes at once.
    let least = Duration::from_millis(2_500);
    assert!(transfer(&world, "free", "slow", "net") > least);
    assert!(waits(&link) > 20);
    assert!(transfer(&world, "slow", "free", "net") > least);
    assert!(waits(&out) > 20);
    // Root in the container's network sees none of it.
    within(&netns(&world, "slow"), || {
        let out = Run::new("tc").args(["qdisc", "show", "dev", "eth0"]).run();
        assert!(!out.stdout.contains("tbf"), "{}", out.stdout);
    });
    // What may be reached is another matter, and holds together with it.
    world.ok(["update", "--egress", "deny", "slow"]);
    assert!(world.reaches("slow", "free"));
    let host = world.place("slow", "net", "Gateway");
    assert!(!world.reaches("slow", &host));
    let before = waits(&out);
    transfer(&world, "slow", "free", "net");
    assert!(waits(&out) > before);

    // It outlives the daemon, not the container.
    world.kill();
    world.start();
    assert!(exists(&out) && queues(&link).contains("tbf"));
    world.ok(["restart", "-t", "0", "slow"]);
    let next = device(&veth(&world, "slow"));
    assert!(exists(&next));
    world.ok(["rm", "-f", "slow"]);
    let gone = || !exists(&out) && !exists(&next);
    assert!(wait_until(Duration::from_secs(10), gone));
}

#[test]
fn networks_and_connections_have_limits_and_a_killed_daemon_leaves_no_device() {
    let mut world = World::new();
    world.ok([
        "network",
        "create",
        "--opt",
        "egress-rate=20mbit",
        "--opt",
        "ingress-rate=30mbit",
        "slow",
    ]);
    world.sleeper("one", &["--network", "slow"]);
    let other = "name=slow,driver-opt=egress-rate=7mbit";
    world.sleeper("two", &["--network", other]);
    world.sleeper("plain", &["--network-opt", "egress-rate=9mbit"]);
    let devices: Vec<String> = ["one", "two", "plain"]
        .iter()
        .map(|name| device(&veth(&world, name)))
        .collect();
    for (device, rate) in devices.iter().zip(["20Mbit", "7Mbit", "9Mbit"]) {
        let shown = queues(device);
        assert!(shown.contains(&format!("rate {rate}")), "{shown}");
    }
    let one = veth(&world, "one");
    assert!(queues(&one).contains("rate 30Mbit"), "{}", queues(&one));

    // One that leaves the network while it runs, and two that end while nobody looks.
    world.ok(["network", "disconnect", "slow", "one"]);
    let first = devices[0].clone();
    assert!(wait_until(Duration::from_secs(10), || !exists(&first)));
    world.ok(["network", "connect", "slow", "one"]);
    let pids = ["two", "plain"].map(|name| world.inspect(name, "{{.State.Pid}}"));
    world.kill();
    for pid in &pids {
        Run::new("kill").args(["-9", pid]).ok();
    }
    world.start();
    let gone = || devices.iter().all(|device| !exists(device));
    assert!(wait_until(Duration::from_secs(10), gone), "{devices:?}");
    let kept = device(&veth(&world, "one"));
    assert!(queues(&kept).contains("rate 20Mbit"));

    let refused = |args: &[&str], text: &str| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend(["busybox", "true"]);
        world.hull(all).fails_saying(125, text);
    };
    refused(
        &["--network-opt", "egress-rate=fast"],
        "invalid egress-rate",
    );
    refused(
        &["--network-opt", "ingress-burst=64k"],
        "needs ingress-rate",
    );
    let out = world.hull(["network", "create", "--opt", "egress-rate=1", "bad"]);
    out.fails_saying(1, "invalid egress-rate");
    let big = ["network", "create", "--opt", "mtu=9000", "--opt"];
    let options = ["egress-rate=1mbit", "--opt", "egress-burst=4k", "bad"];
    let out = world.hull(big.iter().chain(&options));
    out.fails_saying(1, "lets no packet");
}
