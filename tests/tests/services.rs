//! Real software from a real distribution: nginx, PostgreSQL and Redis out of a Debian root file
//! system, used by their own clients, stopped and started again with their data.

use std::fs;
use std::time::Duration;

use hull_testkit::{Daemon, Run, fixtures, wait_until};

/// PostgreSQL's programs in Debian bookworm.
const PG: &str = "/usr/lib/postgresql/15/bin";
/// How long a service may take to answer for the first time.
const READY: Duration = Duration::from_secs(40);

/// A daemon with the Debian image.
fn debian() -> Daemon {
    let daemon = Daemon::builder().bare().start();
    if daemon.hull(["image", "inspect", "debian:services"]).code != 0 {
        let tar = fixtures::debian().to_string_lossy().into_owned();
        daemon
            .cli([
                "import",
                "--change",
                "CMD [\"bash\"]",
                "--change",
                "ENV LANG=C.UTF-8",
                &tar,
                "debian:services",
            ])
            .limit(Duration::from_secs(180))
            .ok();
    }
    daemon
}

fn port_of(daemon: &Daemon, name: &str, port: &str) -> String {
    let out = daemon.ok(["port", name, port]);
    out.lines()
        .next()
        .and_then(|line| line.rsplit(':').next())
        .expect("a port")
        .to_owned()
}

/// Runs a client until it prints what is expected.
fn answers(expected: &str, mut client: impl FnMut() -> Run) {
    let mut last = String::new();
    let answered = wait_until(READY, || {
        let out = client().limit(Duration::from_secs(20)).run();
        last = format!("{}{}", out.stdout, out.stderr);
        out.stdout.trim() == expected
    });
    assert!(answered, "wanted {expected:?}, last answer:\n{last}");
}

#[test]
fn debian_image_is_a_debian() {
    let daemon = debian();
    let out = daemon.ok([
        "run",
        "--rm",
        "debian:services",
        "sh",
        "-c",
        "cat /etc/debian_version; dpkg -l | grep -c ^ii; perl -e 'print 6*7'",
    ]);
    assert!(out.starts_with("12") && out.ends_with("42"), "{out}");
    let out = daemon.ok([
        "run",
        "--rm",
        "-u",
        "postgres",
        "debian:services",
        "sh",
        "-c",
        "id -un; echo $HOME",
    ]);
    assert_eq!(out, "postgres\n/var/lib/postgresql");
    // Packages can be installed and removed: dpkg is hard on a file system.
    daemon.ok([
        "run",
        "--rm",
        "debian:services",
        "dpkg",
        "--purge",
        "--force-all",
        "nginx-light",
    ]);
}

#[test]
fn nginx_serves_a_bind_mount_and_survives_a_restart() {
    let daemon = debian();
    let dir = daemon.scratch();
    let site = dir.join("site");
    fs::create_dir(&site).expect("make");
    fs::write(site.join("index.html"), "first").expect("write");
    let config = dir.join("default");
    fs::write(
        &config,
        "server { listen 80; root /srv; access_log /dev/stdout; }",
    )
    .expect("write");
    daemon.ok([
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "80",
        "--stop-signal",
        "SIGQUIT",
        "-v",
        &format!("{}:/srv:ro", site.display()),
        "-v",
        &format!("{}:/etc/nginx/sites-enabled/default:ro", config.display()),
        "debian:services",
        "nginx",
        "-g",
        "daemon off; error_log /dev/stderr;",
    ]);
    let port = port_of(&daemon, "web", "80/tcp");
    let get = |port: &str, path: &str| {
        Run::new("curl").args(["-s", "-m", "5", &format!("http://127.0.0.1:{port}{path}")])
    };
    answers("first", || get(&port, "/"));
    fs::write(site.join("index.html"), "second").expect("write");
    assert_eq!(get(&port, "/").ok(), "second");
    let big: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number % 253) as u8)
        .collect();
    fs::write(site.join("big"), &big).expect("write");
    let got = get(&port, "/big").run();
    assert!(got.bytes == big, "five megabytes arrive whole");
    daemon.wait_log("web", "GET / HTTP/1.1");
    daemon.ok(["stop", "web"]);
    assert_eq!(daemon.inspect("web", "{{.State.ExitCode}}"), "0");
    assert_ne!(get(&port, "/").run().code, 0);
    daemon.ok(["start", "web"]);
    let port = port_of(&daemon, "web", "80/tcp");
    answers("second", || get(&port, "/"));
    daemon.ok(["rm", "-f", "web"]);
}

#[test]
fn postgresql_keeps_its_data_over_stop_kill_and_a_new_container() {
    let daemon = debian();
    let script = format!(
        "d=/var/lib/postgresql/data; [ -s $d/PG_VERSION ] || {{ {PG}/initdb -D $d -A trust -E UTF8 >/dev/null && echo 'host all all all trust' >>$d/pg_hba.conf; }}; \
         exec {PG}/postgres -D $d -c listen_addresses='*' -c unix_socket_directories=/tmp"
    );
    let start = |name: &str| {
        daemon.ok([
            "run",
            "-d",
            "--name",
            name,
            "-u",
            "postgres",
            "-p",
            "5432",
            "-m",
            "512m",
            "--stop-signal",
            "SIGINT",
            "-v",
            "pgdata:/var/lib/postgresql",
            "debian:services",
            "sh",
            "-c",
            &script,
        ]);
        port_of(&daemon, name, "5432/tcp")
    };
    let query = |port: &str, sql: &str| {
        Run::new("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                port,
                "-U",
                "postgres",
                "-X",
                "-q",
                "-A",
                "-t",
                "-c",
                sql,
            ])
            .env("PGCONNECT_TIMEOUT", "5")
    };
    let port = start("db");
    answers("1", || query(&port, "select 1"));
    query(
        &port,
        "create table t as select g as n, md5(g::text) as h from generate_series(1, 10000) g",
    )
    .ok();
    assert_eq!(
        query(&port, "select count(*), sum(n) from t").ok(),
        "10000|50005000"
    );
    daemon.ok(["stop", "db"]);
    assert_eq!(daemon.inspect("db", "{{.State.ExitCode}}"), "0");
    daemon.ok(["start", "db"]);
    let port = port_of(&daemon, "db", "5432/tcp");
    answers("10000", || query(&port, "select count(*) from t"));
    query(&port, "insert into t values (10001, 'x')").ok();
    daemon.ok(["kill", "db"]);
    daemon.ok(["rm", "db"]);
    let port = start("db2");
    answers("10001", || query(&port, "select count(*) from t"));
    daemon.ok(["rm", "-f", "db2"]);
    daemon.ok(["volume", "rm", "pgdata"]);
}

#[test]
fn redis_keeps_its_data_in_a_named_volume() {
    let daemon = debian();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "cache",
        "-p",
        "6379",
        "-v",
        "redisdata:/data",
        "-w",
        "/data",
        "debian:services",
        "redis-server",
        "--bind",
        "0.0.0.0",
        "--protected-mode",
        "no",
        "--appendonly",
        "yes",
        "--dir",
        "/data",
    ]);
    let ask = |port: &str, words: &[&str]| {
        Run::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", port])
            .args(words)
    };
    let port = port_of(&daemon, "cache", "6379/tcp");
    answers("PONG", || ask(&port, &["ping"]));
    assert_eq!(ask(&port, &["set", "key", "value"]).ok(), "OK");
    let commands: String = (0..1000)
        .map(|number| format!("rpush list {number}\n"))
        .collect();
    ask(&port, &[]).input(commands).ok();
    daemon.ok(["stop", "cache"]);
    daemon.ok(["start", "cache"]);
    let port = port_of(&daemon, "cache", "6379/tcp");
    answers("value", || ask(&port, &["get", "key"]));
    assert_eq!(ask(&port, &["llen", "list"]).ok(), "1000");
    // Another container reaches it by its address.
    let address = daemon.inspect("cache", "{{.NetworkSettings.IPAddress}}");
    assert_eq!(
        daemon.ok([
            "run",
            "--rm",
            "debian:services",
            "redis-cli",
            "-h",
            &address,
            "get",
            "key"
        ]),
        "value"
    );
    daemon.ok(["rm", "-f", "cache"]);
    daemon.ok(["volume", "rm", "redisdata"]);
}
