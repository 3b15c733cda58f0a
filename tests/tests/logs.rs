//! `hull logs`: order, tail, times, following, rotation, drivers.

use std::time::Duration;

use hull_testkit::Daemon;

#[test]
fn logs_keep_streams_apart_and_lines_whole() {
    let daemon = Daemon::new();
    daemon.hull([
        "run",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2; printf 'no newline'",
    ]);
    let out = daemon.hull(["logs", "box"]);
    assert_eq!(out.stdout, "out\nno newline");
    assert_eq!(out.stderr, "err\n");
    daemon
        .hull(["logs", "nosuch"])
        .fails_saying(1, "no such container");
}

#[test]
fn logs_long_line_comes_back_as_one() {
    let daemon = Daemon::new();
    daemon.hull([
        "run",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end",
    ]);
    let log = daemon.ok(["logs", "box"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.first().map(|line| line.len()), Some(100_000));
    assert_eq!(lines.get(1), Some(&"end"));
}

#[test]
fn logs_tail_shows_the_last_lines() {
    let daemon = Daemon::new();
    daemon.hull(["run", "--name", "box", "busybox", "seq", "1", "5000"]);
    assert_eq!(daemon.ok(["logs", "box"]).lines().count(), 5000);
    assert_eq!(
        daemon.ok(["logs", "--tail", "3", "box"]),
        "4998\n4999\n5000"
    );
    assert_eq!(daemon.ok(["logs", "-n", "1", "box"]), "5000");
    assert_eq!(daemon.ok(["logs", "--tail", "0", "box"]), "");
    assert_eq!(
        daemon.ok(["logs", "--tail", "all", "box"]).lines().count(),
        5000
    );
    assert_eq!(
        daemon
            .ok(["logs", "--tail", "100000", "box"])
            .lines()
            .count(),
        5000
    );
}

#[test]
fn logs_since_and_until_cut_by_time() {
    let daemon = Daemon::new();
    daemon.hull([
        "run",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo early; sleep 2; echo late",
    ]);
    let stamped = daemon.ok(["logs", "-t", "box"]);
    let times: Vec<&str> = stamped
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let (early, late) = (times[0], times[1]);
    assert!(
        early.ends_with('Z') && early.contains('T') && early.len() == 30,
        "{early}"
    );
    assert_eq!(daemon.ok(["logs", "--since", late, "box"]), "late");
    assert_eq!(daemon.ok(["logs", "--until", early, "box"]), "early");
    assert_eq!(
        daemon.ok(["logs", "--since", "1s", "box"]).lines().count(),
        1
    );
    assert_eq!(
        daemon.ok(["logs", "--since", "1h", "box"]).lines().count(),
        2
    );
    let nonsense = daemon.hull(["logs", "--since", "nonsense", "box"]);
    assert!([1, 125].contains(&nonsense.code), "{}", nonsense.code);
}

#[test]
fn logs_follow_ends_with_the_container_and_misses_nothing() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 1 300); do echo $i; [ $((i%100)) = 0 ] && sleep 0.2; done",
    ]);
    let out = daemon
        .cli(["logs", "-f", "box"])
        .limit(Duration::from_secs(20))
        .run();
    let expected: String = (1..=300).map(|number| format!("{number}\n")).collect();
    assert_eq!(out.ok() + "\n", expected);
    // Following what has ended shows all and returns.
    assert_eq!(daemon.ok(["logs", "-f", "--tail", "1", "box"]), "300");
}

#[test]
fn logs_follow_many_at_once_all_see_all() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "sleep 0.5; seq 1 20000",
    ]);
    let followers: Vec<_> = (0..5)
        .map(|_| daemon.cli(["logs", "-f", "box"]).spawn())
        .collect();
    for follower in followers {
        assert_eq!(follower.finish().ok().lines().count(), 20_000);
    }
}

#[test]
fn logs_rotate_by_size_and_follow_goes_on() {
    let daemon = Daemon::new();
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "--log-opt",
        "max-size=100k",
        "--log-opt",
        "max-file=3",
        "busybox",
        "sh",
        "-c",
        "sleep 0.5; for i in $(seq 1 20000); do echo line-$i; [ $((i%500)) = 0 ] && sleep 0.05; done",
    ]);
    let followed = daemon
        .cli(["logs", "-f", "box"])
        .limit(Duration::from_secs(60))
        .run();
    assert!(followed.stdout.ends_with("line-20000\n"));
    let kept = daemon.ok(["logs", "box"]);
    let lines: Vec<&str> = kept.lines().collect();
    assert_eq!(lines.last(), Some(&"line-20000"));
    assert!(
        lines.len() < 10_000,
        "rotation keeps three files of 100 kB: {} lines",
        lines.len()
    );
    // What is kept has no gap.
    let numbers: Vec<u32> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("line-")?.parse().ok())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[test]
fn logs_driver_none_keeps_nothing_and_says_so() {
    let daemon = Daemon::new();
    let out = daemon.hull([
        "run",
        "--name",
        "box",
        "--log-driver",
        "none",
        "busybox",
        "echo",
        "shown",
    ]);
    assert_eq!(out.ok(), "shown");
    daemon
        .hull(["logs", "box"])
        .fails_saying(1, "does not support reading");
    daemon
        .hull(["create", "--log-driver", "nosuch", "busybox"])
        .fails(1);
}

#[test]
fn logs_file_is_dockers_json() {
    let daemon = Daemon::new();
    daemon.hull(["run", "--name", "box", "busybox", "sh", "-c", "echo 'a\"b'"]);
    let path = daemon.inspect("box", "{{.LogPath}}");
    let text = std::fs::read_to_string(path).expect("read the log file");
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect("a line of JSON");
    assert_eq!(line["log"], "a\"b\n");
    assert_eq!(line["stream"], "stdout");
    assert!(
        line["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z'))
    );
}

#[test]
fn logs_timestamps_and_tail_work_together_for_both_streams() {
    let daemon = Daemon::new();
    daemon.hull([
        "run",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "echo a; echo b >&2; echo c",
    ]);
    let out = daemon.hull(["logs", "-t", "--tail", "2", "box"]);
    assert!(
        out.stdout.ends_with(" c\n") && out.stderr.ends_with(" b\n"),
        "{out:?}"
    );
}
