//! What a start costs, beside Docker and runc: `cargo xtask bench start`.

use std::time::Duration;

use anyhow::{Result, bail};
use hull_benches::docker::Docker;
use hull_benches::hull::{self, Hull};
use hull_benches::measure::{Case, interleaved, median_ms};
use hull_benches::memory::{processes, pss_kib};
use hull_benches::report::{Row, table, write};
use hull_benches::runc::Bundle;
use hull_testkit::{fixtures, paths};

/// Runs of each command that count.
const ROUNDS: usize = 21;
/// Starts at once.
const PARALLEL: usize = 50;
/// Containers running when memory is read.
const CROWD: usize = 50;
/// Containers running beside a start: few and many.
const FEW: usize = 5;
const MANY: usize = 500;

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("bench-{i}")).collect()
}

/// Has as many sleeping containers as `wanted`, starting from `have`.
fn grow(case: impl Fn(&[&str]) -> Case, have: usize, wanted: usize) -> Result<()> {
    for name in names(wanted).iter().skip(have) {
        case(&["run", "-d", "--name", name, "busybox", "sleep", "100000"]).once()?;
    }
    Ok(())
}

fn shrink(case: impl Fn(&[&str]) -> Case, have: usize) -> Result<()> {
    let names = names(have);
    for part in names.chunks(50) {
        let mut args = vec!["rm", "-f"];
        args.extend(part.iter().map(String::as_str));
        case(&args).once()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let dir = paths::target().join("bench");
    std::fs::create_dir_all(&dir)?;
    let archive = fixtures::busybox().display().to_string();
    let bundle = Bundle::make(&dir, &fixtures::busybox_layer())?;
    let (hull, _) = Hull::start(&dir)?;
    let docker = Docker::start(&dir)?;
    hull.case(&["load", "-i", &archive]).once()?;
    docker.case(&["load", "-i", &archive]).once()?;
    let mut rows = Vec::new();

    let run = ["run", "--rm", "busybox", "true"];
    let none = ["run", "--rm", "--network", "none", "busybox", "true"];
    let times = interleaved(
        &[
            hull.case(&run),
            docker.case(&run),
            bundle.case(),
            hull.case(&none),
            docker.case(&none),
        ],
        ROUNDS,
    )?;
    let [h, d, r, hn, dn] = times[..] else {
        bail!("five cases were measured")
    };
    rows.push(Row::less(
        "run",
        "run --rm busybox true, ms",
        [h, d],
        "docker",
        25.0,
    ));
    rows.push(Row::less(
        "runc",
        "run --rm busybox true, ms",
        [h, r],
        "runc run",
        2.0,
    ));
    rows.push(Row::less(
        "run-none",
        "run --rm --network none, ms",
        [hn, dn],
        "docker",
        35.0,
    ));

    grow(|a| hull.case(a), 0, 1)?;
    grow(|a| docker.case(a), 0, 1)?;
    let (exec, ps) = (["exec", "bench-0", "true"], ["ps"]);
    let times = interleaved(
        &[
            hull.case(&exec),
            docker.case(&exec),
            hull.case(&ps),
            docker.case(&ps),
        ],
        ROUNDS,
    )?;
    let [he, de, hp, dp] = times[..] else {
        bail!("four cases were measured")
    };
    rows.push(Row::less("exec", "exec true, ms", [he, de], "docker", 15.0));
    rows.push(Row::less("ps", "ps, ms", [hp, dp], "docker", 5.0));

    let mut at_once = (0..3)
        .map(|_| hull.case(&run).at_once(PARALLEL))
        .collect::<Result<Vec<_>>>()?;
    let hull_rate = PARALLEL as f64 / (median_ms(&mut at_once) / 1e3);
    let docker_rate = PARALLEL as f64 / docker.case(&run).at_once(PARALLEL)?.as_secs_f64();
    rows.push(Row {
        name: "parallel",
        what: format!("{PARALLEL} run --rm at once, per second"),
        hull: hull_rate,
        peer_name: "docker",
        peer: docker_rate,
        factor: hull_rate / docker_rate,
        promised: 25.0,
    });

    grow(|a| hull.case(a), 1, CROWD)?;
    grow(|a| docker.case(a), 1, CROWD)?;
    std::thread::sleep(Duration::from_secs(3));
    let run_dir = hull.run_dir().display().to_string();
    let shims = processes(&["hull-shim", &run_dir]);
    let shim =
        shims.iter().map(|p| pss_kib(*p)).sum::<u64>() as f64 / shims.len().max(1) as f64 / 1024.0;
    let daemon = pss_kib(hull.pid()) as f64 / 1024.0;
    let exec_root = format!("/tmp/hull-bench-{}", std::process::id());
    let containerd = processes(&["containerd", &exec_root]);
    let (mut peers, mut engine) = (Vec::new(), pss_kib(docker.pid()));
    for pid in containerd {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains("containerd-shim") {
            peers.push(pss_kib(pid))
        } else {
            engine += pss_kib(pid)
        }
    }
    let peer_shim = peers.iter().sum::<u64>() as f64 / peers.len().max(1) as f64 / 1024.0;
    let engine = engine as f64 / 1024.0;
    rows.push(Row::less(
        "memory-daemon",
        "daemon with 50 containers, MiB PSS",
        [daemon, engine],
        "dockerd+containerd",
        engine / 25.0,
    ));
    rows.push(Row::less(
        "memory-shim",
        "each shim, MiB PSS",
        [shim, peer_shim],
        "containerd-shim",
        peer_shim,
    ));
    shrink(|a| docker.case(a), CROWD)?;
    drop(docker);
    shrink(|a| hull.case(a), CROWD)?;

    grow(|a| hull.case(a), 0, FEW)?;
    let few = interleaved(&[hull.case(&run)], ROUNDS)?;
    grow(|a| hull.case(a), FEW, MANY)?;
    std::thread::sleep(Duration::from_secs(2));
    let many = interleaved(&[hull.case(&run)], ROUNDS)?;
    shrink(|a| hull.case(a), MANY)?;
    let (few, many) = (few[0], many[0]);
    rows.push(Row::less(
        "crowd",
        "run --rm beside 500 containers, ms",
        [many, few],
        "beside 5",
        1.0 / 1.3,
    ));

    let mut starts = Vec::new();
    hull.stop()?;
    for _ in 0..ROUNDS {
        let (hull, took) = Hull::start(&dir)?;
        starts.push(took);
        hull.stop()?;
    }
    let start = median_ms(&mut starts);
    rows.push(Row::less(
        "daemon-start",
        "daemon start to first reply, ms",
        [start, 50.0],
        "the promise",
        1.0,
    ));

    write(&dir, "start", &rows)?;
    let mut out = std::io::stdout().lock();
    std::io::Write::write_all(&mut out, table(&rows).as_bytes())?;
    hull::clean(&dir)?;
    Ok(())
}
