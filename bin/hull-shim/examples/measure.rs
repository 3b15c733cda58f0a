//! Measures a shim: start to `Started`, end to `Exited`, and memory.
//! `cargo build --release -p hull-shim && cargo run --release -p hull-shim --example measure`

#![allow(clippy::print_stdout, reason = "it is a program that prints")]

#[path = "../../../crates/sandbox/tests/support/daemon.rs"]
mod daemon;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use daemon::{log_records, started, until};
use hull_proto::Request;
use support::{Shim, request};

const ROUNDS: usize = 50;

fn main() {
    let (mut starts, mut ends, mut wholes, mut spawns) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let shim = Shim::start();
        let spawned = begin.elapsed();
        let mut wish = shim.launch("");
        wish.plan.process.args = vec!["true".into()];
        // The fixture's files were written meanwhile: the clock starts anew with the connection.
        let connect = Instant::now();
        let mut daemon = shim.connect();
        daemon.status();
        spawns.push(spawned + connect.elapsed());
        let launch = Instant::now();
        started(daemon.call(request(wish), &[]));
        let start = launch.elapsed();
        daemon.exited();
        wholes.push(spawned + launch.elapsed());
        starts.push(start);
        drop(daemon);
        let end = Instant::now();
        shim.ended_clean();
        ends.push(end.elapsed());
    }
    print("spawn of the shim to its first reply", spawns);
    print("Launch to Started", starts);
    print("Launch to Exited, with the spawn call (true)", wholes);
    print("connection closed to shim reaped", ends);
    memory(1);
    memory(10);
    throughput();
}

fn memory(count: usize) {
    let shims: Vec<_> = (0..count)
        .map(|_| {
            let shim = Shim::start();
            let mut daemon = shim.connect();
            started(daemon.call(request(shim.launch("seq 1000; echo up >&2; sleep 60")), &[]));
            until("it is up", || log_records(&shim.log()).len() == 1001);
            (shim, daemon)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(1300));
    let raw = shims[0].0.pid.as_raw_nonzero();
    let rollup = std::fs::read_to_string(format!("/proc/{raw}/smaps_rollup")).unwrap_or_default();
    for name in ["Rss:", "Pss:", "Pss_Anon:", "Private_Dirty:"] {
        let line = rollup
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        println!(
            "{count} shims, one's {}",
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    for (shim, mut daemon) in shims {
        daemon.call(Request::KillAll, &[]);
        daemon.exited();
        drop(daemon);
        shim.ended_clean();
    }
}

fn throughput() {
    let shim = Shim::start();
    let mut daemon = shim.connect();
    let begin = Instant::now();
    let mut wish = shim.launch("yes 0123456789012345678901234567890123456789 | head -c 200000000");
    if let Some(log) = &mut wish.log {
        (log.config.max_size, log.config.max_file) = (20 << 20, 2);
    }
    started(daemon.call(request(wish), &[]));
    daemon.exited();
    let rate = 200.0 / begin.elapsed().as_secs_f64();
    println!(
        "logging: {rate:.0} MB/s, {:.1} million lines/s",
        rate / 41.0
    );
    drop(daemon);
    shim.ended_clean();
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| {
        times
            .get(times.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{what}: median {:.2?}, p10 {:.2?}, p90 {:.2?}",
        at(50),
        at(10),
        at(90)
    );
}
