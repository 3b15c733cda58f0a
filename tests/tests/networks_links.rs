//! Containers under names of one's own: `--link`, `--add-host`; `--volumes-from`; the kernel's
//! parameters of an interface; what is told of networks when containers come and go.

use std::time::Duration;

use hull_testkit::{Daemon, wait_until};
use hull_tests::net::World;

#[test]
fn link_on_the_default_network_is_in_hosts_and_environment_and_follows_a_restart() {
    let world = World::new();
    world.server("db1", &["-e", "SECRET=s3", "--expose", "5432"]);
    world.sleeper("web", &["--link", "db1:my-db"]);
    let hosts = || world.inside("web", "cat /etc/hosts").stdout;
    let address = || world.inspect("db1", "{{.NetworkSettings.IPAddress}}");
    let first = address();
    let line = hosts();
    let line = line.lines().find(|line| line.starts_with(&first));
    let names: Vec<&str> = line.expect("a line").split_whitespace().skip(1).collect();
    assert_eq!((names[0], names[2]), ("my-db", "db1"), "{names:?}");
    assert!(world.reaches("web", "my-db"));
    let environment = world.inside("web", "env").stdout;
    for entry in [
        format!("MY_DB_PORT_5432_TCP=tcp://{first}:5432"),
        format!("MY_DB_PORT=tcp://{first}:5432"),
        "MY_DB_NAME=/web/my-db".to_owned(),
        "MY_DB_ENV_SECRET=s3".to_owned(),
    ] {
        assert!(
            environment.lines().any(|line| line == entry),
            "{entry}: {environment}"
        );
    }
    assert_eq!(
        world.inspect("web", "{{.HostConfig.Links}}"),
        "[/db1:/web/my-db]"
    );

    // Somebody else takes its address meanwhile.
    world.ok(["stop", "-t", "0", "db1"]);
    let mut others = Vec::new();
    for number in 0..300 {
        let name = format!("other{number}");
        world.sleeper(&name, &[]);
        others.push(name.clone());
        if world.inspect(&name, "{{.NetworkSettings.IPAddress}}") == first {
            break;
        }
        if number > 10 {
            break;
        }
    }
    world.ok(["start", "db1"]);
    let second = address();
    assert_ne!(first, second);
    let followed = wait_until(Duration::from_secs(5), || hosts().contains(&second));
    assert!(
        followed && !hosts().contains(&format!("{first}\t")),
        "{}",
        hosts()
    );
    assert!(world.reaches("web", "my-db"));

    world.ok(["rename", "db1", "db2"]);
    assert!(hosts().contains(" db2") && !hosts().contains(" db1"));
    world.ok(["rename", "db2", "db1"]);
    world.ok(["rm", "--link", "/web/my-db"]);
    assert!(!hosts().contains("my-db"));
    world
        .hull(["rm", "--link", "web/my-db"])
        .fails_saying(1, "is no link");

    let wrong = |args: &[&str], code: i32, reason: &str| {
        let start = ["run", "--rm"];
        let whole = start.iter().chain(args).chain(&["busybox", "true"]);
        world.hull(whole).fails_saying(code, reason);
    };
    wrong(&["--link", "nobody:x"], 125, "nobody");
    wrong(&["--link", "db1:"], 125, "bad format for links");
    wrong(
        &["--network", "host", "--link", "db1:x"],
        125,
        "conflicting options",
    );
    world.ok(["stop", "-t", "0", "db1"]);
    wrong(&["--link", "db1:x"], 125, "non running container");
}

#[test]
fn link_on_a_network_of_ones_own_is_known_to_this_container_alone() {
    let world = World::new();
    world.ok(["network", "create", "--internal", "net"]);
    // Whom it means may come later.
    world.sleeper("web", &["--network", "net", "--link", "db1:store"]);
    world.sleeper("peer", &["--network", "net"]);
    assert!(!world.reaches("web", "store"));
    world.sleeper("db1", &["--network", "net"]);
    assert!(world.reaches("web", "store") && world.reaches("web", "db1"));
    assert!(!world.reaches("peer", "store"));
    let shown = world.inspect("web", "{{(index .NetworkSettings.Networks \"net\").Links}}");
    assert_eq!(shown, "[db1:store]");
    world.ok(["network", "disconnect", "net", "peer"]);
    world.ok(["network", "connect", "--link", "db1:box", "net", "peer"]);
    assert!(world.reaches("peer", "box") && !world.reaches("web", "box"));
}

#[test]
fn hosts_added_are_resolved_by_name_server_and_file() {
    let daemon = Daemon::builder()
        .arg("--host-gateway-ip=192.0.2.99")
        .start();
    daemon.ok(["network", "create", "--internal", "net"]);
    let hosts = [
        "--add-host",
        "mine:host-gateway",
        "--add-host",
        "box:192.0.2.7",
    ];
    let start = ["run", "-d", "--name", "one", "--network", "net"];
    daemon.ok(start
        .iter()
        .chain(&hosts)
        .chain(&["busybox", "sleep", "1000"]));
    daemon.ok([
        "run",
        "-d",
        "--name",
        "two",
        "--network",
        "net",
        "busybox",
        "sleep",
        "1000",
    ]);
    let asked = |who: &str, name: &str| {
        let out = daemon.hull(["exec", who, "nslookup", "-type=a", name]);
        let line = out
            .stdout
            .lines()
            .filter_map(|line| line.strip_prefix("Address: "));
        line.map(str::to_owned).next().unwrap_or_default()
    };
    assert_eq!(asked("one", "mine"), "192.0.2.99");
    assert_eq!(asked("one", "box"), "192.0.2.7");
    assert_eq!(asked("one", "host.docker.internal"), "192.0.2.99");
    assert_eq!(asked("two", "box"), "");
    let file = daemon.ok(["exec", "one", "cat", "/etc/hosts"]);
    assert!(file.contains("192.0.2.99\tmine"), "{file}");
    daemon.ok(["rm", "-f", "one", "two"]);
    daemon.ok(["network", "rm", "net"]);
}

#[test]
fn resolver_options_reach_the_container() {
    let world = World::new();
    world.ok(["network", "create", "net"]);
    let options = [
        "--dns-search",
        "a.example",
        "--dns-search",
        "b.example",
        "--dns-option",
        "ndots:3",
        "--dns-option",
        "timeout:1",
    ];
    for network in ["net", "bridge"] {
        let whole = ["run", "--rm", "--network", network];
        let out =
            world.ok(whole
                .iter()
                .chain(&options)
                .chain(&["busybox", "cat", "/etc/resolv.conf"]));
        assert!(out.contains("search a.example b.example"), "{out}");
        assert!(out.contains("options ndots:3 timeout:1"), "{out}");
        assert!(!out.contains("ndots:0"), "{out}");
    }
}

#[test]
fn sysctls_of_an_interface_are_set_for_it_alone() {
    let world = World::new();
    world.ok(["network", "create", "net"]);
    world.ok(["network", "create", "other"]);
    let option =
        "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    let network = format!("name=net,{option}");
    world.sleeper("one", &["--network", &network, "--network", "other"]);
    let value = |name: &str| {
        world.inside(
            "one",
            &format!("cat /proc/sys/net/ipv4/conf/{name}/log_martians"),
        )
    };
    let values = [value("eth0").stdout, value("eth1").stdout];
    let mut sorted = values.map(|text| text.trim().to_owned());
    sorted.sort();
    assert_eq!(sorted, ["0", "1"]);
    let refused = |option: &str, reason: &str| {
        let network = format!("name=net,driver-opt=com.docker.network.endpoint.sysctls={option}");
        world
            .hull(["run", "--rm", "--network", &network, "busybox", "true"])
            .fails_saying(125, reason);
    };
    refused("net.ipv4.ip_forward=1", "invalid sysctl");
    refused(
        "net.ipv4.conf.IFNAME.nothing=1",
        "net.ipv4.conf.eth0.nothing",
    );
}

#[test]
fn events_tell_of_networks_at_start_and_exit() {
    let world = World::new();
    let before = world.ok(["run", "--rm", "busybox", "date", "+%s"]);
    world.ok(["network", "create", "net"]);
    world.ok(["run", "--rm", "--name", "one", "busybox", "true"]);
    world.ok([
        "run",
        "--rm",
        "--name",
        "two",
        "--network",
        "net",
        "busybox",
        "true",
    ]);
    world.ok([
        "run",
        "--rm",
        "--name",
        "three",
        "--network",
        "none",
        "busybox",
        "true",
    ]);
    let listed = || {
        let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}}";
        world.ok([
            "events", "--since", &before, "--until", "0s", "--format", format,
        ])
    };
    let whole = wait_until(Duration::from_secs(5), || {
        listed().contains("container destroy three")
    });
    assert!(whole, "{}", listed());
    let all = listed();
    let position = |text: &str| {
        let found = all.lines().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("{text} in {all}"))
    };
    for (name, network) in [
        ("one", "bridge bridge"),
        ("two", "net bridge"),
        ("three", "none null"),
    ] {
        let steps = [
            position(&format!("container create {name}")),
            position(&format!("network connect {network}")),
            position(&format!("container start {name}")),
            position(&format!("container die {name}")),
        ];
        assert!(
            steps.is_sorted() || name == "one",
            "{name}: {steps:?} in {all}"
        );
        position(&format!("network disconnect {network}"));
    }
    assert_eq!(all.matches("network connect net").count(), 1, "{all}");
    assert_eq!(all.matches("network disconnect net").count(), 1, "{all}");
}

#[test]
fn volumes_of_another_container_are_taken_over_and_outlive_it() {
    let world = World::new();
    let bound = world.scratch();
    let bind = format!("{}:/bound", bound.display());
    let with = [
        "-v",
        "/unnamed",
        "-v",
        "named:/named",
        "-v",
        &bind,
        "--tmpfs",
        "/memory",
    ];
    world.sleeper("db", &with);
    world
        .inside(
            "db",
            "for f in unnamed named bound memory; do echo $f > /$f/f; done",
        )
        .ok();
    let take = |args: &[&str], script: &str| {
        let mut whole = vec!["run", "--rm"];
        whole.extend(args);
        whole.extend(["busybox", "sh", "-c", script]);
        world.hull(whole)
    };
    let seen = take(
        &["--volumes-from", "db"],
        "cat /unnamed/f /named/f /bound/f; ls /memory",
    );
    assert!(
        seen.stdout.starts_with("unnamed\nnamed\nbound\n"),
        "{seen:?}"
    );
    assert!(!seen.stdout.contains("memory"), "{seen:?}");
    let read_only = take(
        &["--volumes-from", "db:ro"],
        "cat /named/f; echo x > /named/x",
    );
    assert!(read_only.stdout.contains("named") && read_only.code != 0);
    // A mount of one's own counts more.
    let own = take(
        &["--volumes-from", "db", "-v", "/named"],
        "ls /named; cat /unnamed/f",
    );
    assert_eq!(own.stdout, "unnamed\n");
    take(&["--volumes-from", "nobody"], "true").fails_saying(125, "nobody");
    take(&["--volumes-from", "db:x"], "true").fails_saying(125, "ro or rw");

    // Who has it still has it when it goes with its volumes.
    world.sleeper("user", &["--volumes-from", "db"]);
    assert_eq!(world.inspect("user", "{{.HostConfig.VolumesFrom}}"), "[db]");
    world.ok(["rm", "-f", "-v", "db"]);
    assert_eq!(world.inside("user", "cat /unnamed/f").stdout, "unnamed\n");
    world.ok(["rm", "-f", "-v", "user"]);
    world.ok(["volume", "prune", "-af"]);
}
