//! `xtask fuzz`: coverage-guided runs of the checks in `crates/fuzz-checks`.
//!
//! The instrumentation is LLVM's own and asked for by flags the stable compiler has; libFuzzer
//! comes as source with its crate. What a run finds lies in `target/fuzz/found/`; seeds that reach
//! new code are put into `fuzz/seeds/` by `--keep`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, host_triple, root, run, target};

/// The targets, as `crates/fuzz-checks` names them.
const TARGETS: [&str; 17] = [
    "config",
    "process",
    "seccomp",
    "mounts",
    "references",
    "challenges",
    "hosts",
    "egress",
    "credentials",
    "manifests",
    "images",
    "tars",
    "unpack",
    "dns-questions",
    "dns-replies",
    "guest-frames",
    "guest-messages",
];
/// How long one target runs unless told.
const SECONDS: &str = "60";
/// As cargo-fuzz has it, less the sanitizers, which want a nightly compiler.
const FLAGS: &str = "-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares -C codegen-units=1 --cfg fuzzing";
/// Longest input, in bytes.
const MAX_LEN: &str = "16384";

/// Runs a target, or all in turn; `--keep` takes what was learnt into the seeds instead.
pub(crate) fn fuzz(args: &[OsString]) -> Result<ExitCode> {
    let (flags, words): (Vec<_>, Vec<_>) = args
        .iter()
        .map(|word| word.to_str().context("arguments are plain text"))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .partition(|word| word.starts_with('-'));
    let keep = flags == ["--keep"];
    let usage = "usage: cargo xtask fuzz [--keep] [TARGET] [SECONDS]";
    if !(flags.is_empty() || keep) || words.len() > 2 {
        bail!(usage);
    }
    let is_number = |word: &str| word.chars().all(|c| c.is_ascii_digit());
    let seconds = words
        .iter()
        .copied()
        .find(|word| is_number(word))
        .unwrap_or(SECONDS);
    let targets: Vec<&str> = match words.iter().copied().find(|word| !is_number(word)) {
        Some(name) if TARGETS.contains(&name) => vec![name],
        Some(name) => bail!(
            "no target {name}: there are {}\n{usage}",
            TARGETS.join(", ")
        ),
        None => TARGETS.to_vec(),
    };
    let program = build()?;
    for name in targets {
        let corpus = folder(&format!("corpus/{name}"))?;
        let seeds = root().join("fuzz/seeds").join(name);
        let mut command = Command::new(&program);
        command.env("HULL_FUZZ_TARGET", name);
        if keep {
            let learnt = folder(&format!("kept/{name}"))?;
            fs::remove_dir_all(&learnt).and_then(|()| fs::create_dir(&learnt))?;
            run(command
                .args(["-set_cover_merge=1", "-rss_limit_mb=4096"])
                .arg(&learnt)
                .arg(&seeds)
                .arg(&corpus))?;
            adopt(&learnt, &seeds)?;
        } else {
            println!("fuzz {name} for {seconds} s");
            let found = folder("found")?.join(format!("{name}-"));
            run(command
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-max_len={MAX_LEN}"))
                .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
                .arg(format!("-artifact_prefix={}", found.display()))
                .arg(&corpus)
                .arg(&seeds))
            .with_context(|| {
                format!(
                    "{name}: the input that shows it lies in {}*",
                    found.display()
                )
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder below `target/fuzz/`, made if it is missing.
fn folder(name: &str) -> Result<PathBuf> {
    let path = target().join("fuzz").join(name);
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// Builds the fuzzers' one program with coverage.
fn build() -> Result<PathBuf> {
    let triple = host_triple()?;
    let mut command = cargo(["build", "--release", "--quiet", "--manifest-path"]);
    command
        .arg(root().join("fuzz/Cargo.toml"))
        .args(["--target", &triple])
        // In place of the flags for static programs, too.
        .env("RUSTFLAGS", FLAGS)
        .env("CARGO_TARGET_DIR", target().join("fuzz"));
    run(&mut command)?;
    Ok(target().join("fuzz").join(triple).join("release/fuzz"))
}

/// Adds inputs to the seeds that are not among them.
fn adopt(from: &Path, seeds: &Path) -> Result<()> {
    let list = |dir: &Path| -> Result<Vec<PathBuf>> {
        Ok(fs::read_dir(dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect())
    };
    let known: Vec<Vec<u8>> = list(seeds)?
        .iter()
        .map(fs::read)
        .collect::<Result<_, _>>()?;
    let mut added = 0;
    for path in list(from)? {
        let bytes = fs::read(&path)?;
        if !known.contains(&bytes) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.get(..12).unwrap_or(&name);
            fs::write(seeds.join(name), bytes)?;
            added += 1;
        }
    }
    println!("{}: {added} seeds more", seeds.display());
    Ok(())
}
