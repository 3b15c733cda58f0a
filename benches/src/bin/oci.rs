//! What hull-oci costs beside runc and crun: `cargo xtask bench oci`. With `--rounds N` each command
//! is timed so often; fewer than the usual 51 are for a look, not for a claim.
//!
//! Beside runc both make control groups. Debian's crun refuses those of a hybrid host, so beside
//! crun both make none: the second half runs in a mount namespace in which the control groups are
//! read-only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use hull_benches::measure::{Timed, interleaved_steps};
use hull_benches::oci::{Peak, Runtime, bundle_like, drop_caches};
use hull_benches::report::{Row, table, write};
use hull_benches::runc::Bundle;
use hull_testkit::{fixtures, paths};

/// Runs of each command that count, and as many with dropped caches.
const ROUNDS: usize = 51;
/// Argument with another number.
const ROUNDS_ARGUMENT: &str = "--rounds";
/// Runs whose peak memory is read.
const PEAK_ROUNDS: usize = 11;
/// Memory limits that are tried, in KiB.
const LIMITS: [u32; 12] = [
    192, 256, 384, 512, 768, 1024, 2048, 4096, 6144, 8192, 12288, 16384,
];
/// A limit is enough if the container starts so often.
const TRIES: usize = 5;
/// The limit at which crun starts a container, by its authors.
const CRUN_FLOOR: f64 = 512.0;
/// Argument for the second half.
const WITHOUT_GROUPS: &str = "--without-groups";
/// Lets nothing below make a control group, and starts the program that is its first argument.
const HIDE_GROUPS: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup \
    && mount -o remount,bind,ro /sys/fs/cgroup && exec \"$0\" \"$@\"";

/// Commands that are timed, in the order of [`Figures::warm`].
const COMMANDS: [(&str, &str, [&str; 2]); 3] = [
    ("cycle", "create+start+delete", ["cycle-runc", "cycle-crun"]),
    ("run", "run", ["run-runc", "run-crun"]),
    ("exec", "exec", ["exec-runc", "exec-crun"]),
];
const COLD: [[&str; 2]; 3] = [
    ["cold-cycle-runc", "cold-cycle-crun"],
    ["cold-run-runc", "cold-run-crun"],
    ["cold-exec-runc", "cold-exec-crun"],
];
const PEAKS: [(Peak, &str, [&str; 2]); 3] = [
    (Peak::Create, "create", ["peak-runc", "peak-crun"]),
    (Peak::Run, "run", ["peak-run-runc", "peak-run-crun"]),
    (Peak::Exec, "exec", ["peak-exec-runc", "peak-exec-crun"]),
];

/// Pairs of Hull's and the peer's figure.
#[derive(Debug)]
struct Figures {
    /// Milliseconds of each of [`COMMANDS`].
    warm: Vec<[f64; 2]>,
    /// The same with dropped caches; empty where they cannot be dropped.
    cold: Vec<[f64; 2]>,
    /// KiB of each of [`PEAKS`].
    peaks: Vec<[f64; 2]>,
}

fn median(mut list: Vec<f64>) -> f64 {
    list.sort_unstable_by(f64::total_cmp);
    list.get(list.len() / 2).copied().unwrap_or(f64::NAN)
}

fn timed(pair: &[&Runtime; 2], bundle: &Path, rounds: usize, cold: bool) -> Result<Vec<[f64; 2]>> {
    let before = || if cold { drop_caches() } else { Ok(()) };
    let case = |which: usize, runtime: &Runtime| {
        before()?;
        match which {
            0 => runtime.cycle(bundle),
            1 => runtime.run(bundle),
            _ => runtime.exec(),
        }
    };
    (0..COMMANDS.len())
        .map(|which| {
            let [hull, peer] = pair.map(|runtime| move || case(which, runtime));
            let cases: [&Timed<'_>; 2] = [&hull, &peer];
            match interleaved_steps(&cases, rounds)?[..] {
                [hull, peer] => Ok([hull, peer]),
                _ => bail!("two cases were measured"),
            }
        })
        .collect()
}

/// All figures of two runtimes on one bundle.
fn measure(hull: &Runtime, peer: &Runtime, bundle: &Path, rounds: usize) -> Result<Figures> {
    let sleeper = bundle_like(bundle, "sleeper", &["/bin/sleep", "100000"], None)?;
    let pair = [hull, peer];
    for runtime in pair {
        runtime.start_sleeper(&sleeper)?;
    }
    let warm = timed(&pair, bundle, rounds, false)?;
    let cold = match drop_caches() {
        Ok(()) => timed(&pair, bundle, rounds, true)?,
        Err(_) => Vec::new(),
    };
    let mut peaks = Vec::new();
    for (command, _, _) in PEAKS {
        let of = |runtime: &Runtime| -> Result<f64> {
            let list: Result<Vec<_>> = (0..PEAK_ROUNDS)
                .map(|_| runtime.peak_kib(bundle, command))
                .collect();
            Ok(median(list?))
        };
        peaks.push([of(hull)?, of(peer)?]);
    }
    for runtime in pair {
        runtime.stop_sleeper();
    }
    Ok(Figures { warm, cold, peaks })
}

/// Smallest limit in KiB with which `/bin/true` starts; infinite if none of [`LIMITS`] is enough.
/// Pages of the program count against the limit of whoever reads them first, so it is read before
/// each try, or its pages are dropped.
fn floor(runtime: &Runtime, bundle: &Path, cold: bool) -> Result<f64> {
    let before = || match cold {
        true => drop_caches(),
        false => Ok(std::fs::read(bundle.join("rootfs/bin/true")).map(drop)?),
    };
    for kib in LIMITS {
        let limited = bundle_like(
            bundle,
            "limited",
            &["/bin/true"],
            Some(u64::from(kib) << 10),
        )?;
        if runtime.starts(&limited, TRIES, &before)? {
            return Ok(f64::from(kib));
        }
    }
    Ok(f64::INFINITY)
}

fn hull_oci(dir: &Path, options: &[&str]) -> Result<Runtime> {
    let program = paths::dist().join("hull-oci");
    if !program.exists() {
        bail!(
            "{} is missing: run cargo xtask build first",
            program.display()
        );
    }
    Runtime::new("hull", program, dir, options)
}

/// Measures beside crun where no control group can be made, and prints the figures for the first
/// half of the bench.
fn without_groups(dir: &Path, rounds: usize) -> Result<()> {
    let hull = hull_oci(dir, &["--rootless", "true"])?;
    let crun = Runtime::new("crun", "crun".into(), dir, &["--cgroup-manager=disabled"])?;
    let figures = measure(&hull, &crun, &dir.join("bundle"), rounds)?;
    let all = [figures.warm, figures.cold, figures.peaks];
    serde_json::to_writer(std::io::stdout().lock(), &all)?;
    Ok(())
}

/// Runs the second half in a mount namespace of its own.
fn beside_crun(rounds: usize) -> Result<Figures> {
    let own = std::env::current_exe()?;
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            HIDE_GROUPS,
        ])
        .arg(own)
        .args([WITHOUT_GROUPS, ROUNDS_ARGUMENT, &rounds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run unshare")?;
    if !output.status.success() {
        bail!("the half of the bench beside crun failed");
    }
    let [warm, cold, peaks]: [Vec<[f64; 2]>; 3] = serde_json::from_slice(&output.stdout)?;
    Ok(Figures { warm, cold, peaks })
}

/// The rows of one peer, which is number `which` in the tables of names.
fn rows_of(figures: &Figures, peer: &'static str, which: usize, promised: f64) -> Vec<Row> {
    let groups = if which == 0 { "" } else { ", no cgroup" };
    let mut rows = Vec::new();
    for ((_, what, names), pair) in COMMANDS.iter().zip(&figures.warm) {
        rows.push(Row::less(
            names[which],
            format!("{what}{groups}, ms"),
            *pair,
            peer,
            promised,
        ));
    }
    for (((_, what, _), names), pair) in COMMANDS.iter().zip(COLD).zip(&figures.cold) {
        let what = format!("{what}, caches dropped{groups}, ms");
        rows.push(Row::less(names[which], what, *pair, peer, promised));
    }
    for ((_, what, names), pair) in PEAKS.iter().zip(&figures.peaks) {
        let what = format!("peak memory of {what}{groups}, KiB");
        rows.push(Row::less(names[which], what, *pair, peer, 1.0));
    }
    rows
}

/// The number of rounds that is asked for.
fn rounds(args: &[String]) -> Result<usize> {
    let Some(at) = args.iter().position(|word| word == ROUNDS_ARGUMENT) else {
        return Ok(ROUNDS);
    };
    let number = args.get(at + 1).and_then(|text| text.parse().ok());
    match number {
        Some(rounds) if rounds > 0 => Ok(rounds),
        _ => bail!("{ROUNDS_ARGUMENT} wants a number above zero"),
    }
}

fn main() -> Result<()> {
    let dir: PathBuf = paths::target().join("bench").join("oci");
    std::fs::create_dir_all(&dir)?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds = rounds(&args)?;
    if args.first().is_some_and(|word| word == WITHOUT_GROUPS) {
        return without_groups(&dir, rounds);
    }
    let bundle = Bundle::make(&dir, &fixtures::busybox_layer())?;
    let hull = hull_oci(&dir, &[])?;
    let runc = Runtime::new("runc", "runc".into(), &dir, &[])?;
    // The same for all: the absolute path spares nobody a search.
    let bundle = bundle_like(bundle.dir(), "bundle", &["/bin/true"], None)?;
    let figures = measure(&hull, &runc, &bundle, rounds)?;
    let mut rows = rows_of(&figures, "runc", 0, 2.0);
    let least = floor(&hull, &bundle, false)?;
    let what = "smallest memory limit for true, KiB";
    let pair = [least, floor(&runc, &bundle, false)?];
    rows.push(Row::less("floor-runc", what, pair, "runc", 1.0));
    let pair = [least, CRUN_FLOOR];
    rows.push(Row::less("floor", what, pair, "the promise", 1.0));
    if !figures.cold.is_empty() {
        let what = "the same, caches dropped, KiB".to_owned();
        let pair = [floor(&hull, &bundle, true)?, floor(&runc, &bundle, true)?];
        rows.push(Row::less("cold-floor-runc", what, pair, "runc", 1.0));
    }
    drop((hull, runc));
    rows.extend(rows_of(&beside_crun(rounds)?, "crun", 1, 1.0));

    write(&paths::target().join("bench"), "oci", &rows)?;
    let mut text = table(&rows);
    if figures.cold.is_empty() {
        text.push_str("caches cannot be dropped on this machine: no cold rows\n");
    }
    std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes())?;
    Ok(())
}
