//! What long use would show: descriptors, memory and addresses that are given back, and a small
//! footprint with many containers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hull_testkit::{Daemon, wait_until};
use hull_tests::pid_of;

/// Containers that run at the same time.
const MANY: usize = 50;
/// Proportional set size the daemon may have with that many, in KiB.
const DAEMON_PSS: u64 = 25 * 1024;
/// Proportional set size of one shim in KiB.
const SHIM_PSS: u64 = 1024;

fn pss_kib(pid: u32) -> u64 {
    memory_kib(pid, "Pss:")
}

/// Memory that is a process's own. The share of its program's pages grows when others that run the
/// same program end, which is no leak.
fn own_kib(pid: u32) -> u64 {
    memory_kib(pid, "Anonymous:")
}

fn memory_kib(pid: u32, kind: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read smaps_rollup");
    text.lines()
        .find_map(|line| line.strip_prefix(kind))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("a size")
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("read descriptors")
        .count()
}

fn parent_of(pid: u32) -> u32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read status");
    text.lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .and_then(|rest| rest.trim().parse().ok())
        .expect("a parent")
}

#[test]
fn fifty_containers_have_addresses_of_their_own_and_a_small_footprint() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let starts: Vec<_> = (0..MANY)
        .map(|number| {
            daemon
                .cli([
                    "run",
                    "-d",
                    "--name",
                    &format!("n{number}"),
                    "busybox",
                    "sleep",
                    "1000",
                ])
                .spawn()
        })
        .collect();
    for start in starts {
        start.finish().ok();
    }
    let names: Vec<String> = (0..MANY).map(|number| format!("n{number}")).collect();
    let mut args = vec![
        "inspect",
        "--format",
        "{{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}}",
    ];
    args.extend(names.iter().map(String::as_str));
    let out = daemon.ok(args);
    let addresses: BTreeSet<&str> = out
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let links: BTreeSet<&str> = out
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!((addresses.len(), links.len()), (MANY, MANY), "{out}");

    assert_eq!(daemon.ok(["ps", "-q"]).lines().count(), MANY);
    let daemon_pss = pss_kib(daemon.pid());
    let shims: Vec<u64> = names
        .iter()
        .map(|name| pss_kib(parent_of(pid_of(&daemon, name))))
        .collect();
    let largest = shims.iter().max().copied().unwrap_or_default();
    eprintln!("PSS with {MANY} running: daemon {daemon_pss} KiB, largest shim {largest} KiB");
    assert!(
        daemon_pss <= DAEMON_PSS,
        "the daemon takes {daemon_pss} KiB"
    );
    assert!(largest <= SHIM_PSS, "a shim takes {largest} KiB");
}

#[test]
fn two_hundred_runs_leave_no_descriptor_thread_or_address_behind() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    let pid = daemon.pid();
    let burst = |rounds: usize| {
        for _ in 0..rounds {
            let all: Vec<_> = (0..10)
                .map(|_| {
                    daemon
                        .cli(["run", "--rm", "-p", "80", "busybox", "true"])
                        .spawn()
                })
                .collect();
            for one in all {
                one.finish().ok();
            }
        }
    };
    // Threads, their stacks and the allocator's own stock grow to a plateau first (measured: six
    // bursts of 200 runs stay between 10 and 13 MiB); what counts is growth beyond it.
    burst(20);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = (descriptors(pid), own_kib(pid));
    burst(20);
    let mut after = (0, 0);
    let settled = wait_until(std::time::Duration::from_secs(10), || {
        after = (descriptors(pid), own_kib(pid));
        after.0 <= before.0 + 4 && after.1 < before.1 + 4096
    });
    assert!(
        settled,
        "descriptors: {} before, {} after",
        before.0, after.0
    );
    assert!(
        after.1 < before.1 + 4096,
        "memory: {} KiB before, {} after",
        before.1,
        after.1
    );
    for folder in ["container", "snapshot"] {
        // Deletion may come after the reply, but it comes.
        let mut kept = 0;
        let empty = wait_until(std::time::Duration::from_secs(10), || {
            // Names with a dot in front are the daemon's own.
            kept = fs::read_dir(daemon.data_dir().join(folder)).map_or(0, |entries| {
                entries
                    .flatten()
                    .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
                    .count()
            });
            kept == 0
        });
        assert!(empty, "{kept} folders are left in {folder}");
    }
}

#[test]
fn hundred_execs_and_logs_leave_no_descriptor_in_shim_and_daemon() {
    let daemon = Daemon::new();
    if daemon.is_docker() {
        return;
    }
    daemon.ok([
        "run",
        "-d",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "while :; do echo tick; sleep 0.01; done",
    ]);
    let shim = parent_of(pid_of(&daemon, "box"));
    assert!(
        fs::read_to_string(format!("/proc/{shim}/comm"))
            .expect("read")
            .starts_with("hull-shim")
    );
    // The pool of ready network namespaces fills up behind the first start, each a descriptor.
    let mut before = (0, 0);
    wait_until(std::time::Duration::from_secs(3), || {
        before = (descriptors(daemon.pid()).max(before.0), descriptors(shim));
        false
    });
    for _ in 0..100 {
        daemon.ok(["exec", "box", "true"]);
        daemon.ok(["logs", "--tail", "1", "box"]);
        // A client that goes away in the middle.
        let follow = daemon.cli(["logs", "-f", "box"]).spawn();
        drop(follow);
    }
    let mut after = (0, 0);
    let settled = wait_until(std::time::Duration::from_secs(10), || {
        after = (descriptors(daemon.pid()), descriptors(shim));
        after.0 <= before.0 + 4 && after.1 <= before.1
    });
    assert!(
        settled,
        "daemon and shim: {before:?} before, {after:?} after"
    );
}

#[test]
fn failing_starts_leave_nothing() {
    let daemon = Daemon::new();
    let before = if daemon.is_docker() {
        0
    } else {
        descriptors(daemon.pid())
    };
    for _ in 0..20 {
        daemon
            .hull(["run", "--rm", "busybox", "nosuchprogram"])
            .fails(127);
        daemon.hull(["run", "--rm", "-u", "nosuchuser", "busybox", "true"]);
        daemon.hull(["run", "--rm", "--device", "/dev/nosuch", "busybox", "true"]);
        daemon.hull([
            "run",
            "--rm",
            "--sysctl",
            "kernel.panic=1",
            "busybox",
            "true",
        ]);
    }
    assert_eq!(
        daemon.ok(["ps", "-aq"]),
        "",
        "--rm holds for a failed start too"
    );
    if !daemon.is_docker() {
        let settled = wait_until(std::time::Duration::from_secs(10), || {
            descriptors(daemon.pid()) <= before + 4
        });
        assert!(
            settled,
            "{before} descriptors became {}",
            descriptors(daemon.pid())
        );
        assert!(
            !Path::new(&daemon.run_dir().join("s")).exists()
                || fs::read_dir(daemon.run_dir().join("s"))
                    .expect("read")
                    .count()
                    == 0
        );
    }
}
