//! Measures launch and exec on this host: `cargo run --release --example launch_time [RUNS]`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hull_container::{ExecTarget, Options, Stdio, exec, launch};
use hull_proto::plan::Namespace;
use hull_sys::pidfd;

fn main() {
    let runs = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(200usize);
    let fixture = support::Fixture::new();
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .expect("null");
    let stdio = Stdio {
        stdin: null.as_fd(),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    for (name, net) in [
        ("host network", Namespace::Host),
        ("new network", Namespace::New),
    ] {
        let mut plan = fixture.plan("");
        plan.process.args = vec!["/bin/true".to_owned()];
        plan.namespaces.net = net;
        let (mut launches, mut exits, mut removals) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            let made = fixture.host.hierarchies.create(
                "/hull-time",
                &plan.cgroup.resources,
                fixture.host.features,
            );
            groups.push(start.elapsed());
            made.and_then(|group| group.remove()).expect("remove");
            let start = Instant::now();
            let launched = launch(&fixture.host, &plan, &[], &stdio, &Options::default());
            let launched = launched.expect("launch");
            launches.push(start.elapsed());
            pidfd::wait(&launched.process.pidfd, true).expect("wait");
            exits.push(start.elapsed());
            let start = Instant::now();
            launched.cgroup.remove().expect("remove");
            removals.push(start.elapsed());
        }
        report(&format!("{name}: cgroup made"), groups);
        report(&format!("{name}: launched"), launches);
        report(&format!("{name}: exited"), exits);
        report(&format!("{name}: cgroup removed"), removals);
    }
    let (running, _output) = fixture.start(&fixture.plan("sleep 1000"));
    let mut execs = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let target = ExecTarget {
            pid: running.0.process.pid,
            pidfd: running.0.process.pidfd.as_fd(),
            cgroup: running.0.cgroup.as_ref(),
            also: hull_sys::clone3::Namespaces::NONE,
            chroot: false,
        };
        let plan = support::process(&["/bin/true"]);
        let cache = fixture.dir.join("seccomp");
        let started = exec(
            &fixture.host,
            &target,
            &plan,
            &cache,
            &stdio,
            &Options::default(),
        );
        let started = started.expect("exec");
        execs.push(start.elapsed());
        pidfd::wait(&started.pidfd, true).expect("wait");
    }
    report("exec: started", execs);
}

#[allow(clippy::print_stdout, reason = "an example that reports")]
fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{name:32} median {:>9.1?}   p10 {:>9.1?}   p90 {:>9.1?}",
        at(50),
        at(10),
        at(90)
    );
}
