//! `xtask build` and `cargo hull`: the static binaries, side by side in `target/dist/`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow};

use crate::process::{cargo, host_triple, root, run, target};

/// The programs Hull consists of; they find each other by sitting in one folder.
pub(crate) const BINARIES: [&str; 4] = ["hull", "hull-shim", "hull-agent", "hull-oci"];

/// Whether cargo's progress is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noise {
    /// Show cargo's progress.
    Loud,
    /// Show errors alone.
    Quiet,
}

/// Where finished binaries lie.
pub(crate) fn dist() -> PathBuf {
    target().join("dist")
}

/// Builds the binaries in release mode and leaves them, stripped, in `target/dist/`.
pub(crate) fn build(noise: Noise) -> Result<PathBuf> {
    let mut command = cargo(["build", "--release"]);
    for name in BINARIES {
        command.args(["--package", name]);
    }
    if noise == Noise::Quiet {
        command.arg("--quiet");
    }
    run(&mut command)?;

    let built = target().join(host_triple()?).join("release");
    let dist = dist();
    fs::create_dir_all(&dist).with_context(|| format!("cannot make {}", dist.display()))?;
    for name in BINARIES {
        install(&built.join(name), &dist.join(name))?;
    }
    Ok(dist)
}

/// Copies one program by rename, so that a running one is never written to, and only if it changed.
fn install(from: &Path, to: &Path) -> Result<()> {
    let stamp = stamp_of(from)?;
    // Outside the folder of programs, which users may copy whole.
    let stamps = target().join("dist-stamps");
    fs::create_dir_all(&stamps).with_context(|| format!("cannot make {}", stamps.display()))?;
    let stamp_file = stamps.join(to.file_name().unwrap_or_default());
    if to.exists() && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp) {
        return Ok(());
    }
    let temporary = to.with_extension(format!("new-{}", std::process::id()));
    fs::copy(from, &temporary).with_context(|| format!("cannot copy {}", from.display()))?;
    // A missing `strip` costs disk space, nothing else.
    let stripped = Command::new("strip")
        .arg("--strip-all")
        .arg(&temporary)
        .status();
    if !stripped.is_ok_and(|status| status.success()) {
        eprintln!(
            "xtask: strip did not work, {} keeps its symbols",
            to.display()
        );
    }
    fs::rename(&temporary, to).with_context(|| format!("cannot install {}", to.display()))?;
    fs::write(&stamp_file, stamp).with_context(|| format!("cannot write {}", stamp_file.display()))
}

/// What changes when cargo links a program anew.
fn stamp_of(path: &Path) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("{} was not built", path.display()))?;
    let modified = meta
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(format!("{} {}\n", meta.len(), modified.as_nanos()))
}

/// Builds if needed and becomes `target/dist/hull` with the arguments given.
pub(crate) fn run_hull(args: &[OsString]) -> Result<ExitCode> {
    let hull = dist().join("hull");
    let noise = if hull.exists() {
        Noise::Quiet
    } else {
        eprintln!("xtask: building Hull; the first time takes a few minutes");
        Noise::Loud
    };
    build(noise)?;
    // The user's own folder stays current: paths in ARGS are relative to it.
    let error = Command::new(&hull).args(args).exec();
    Err(anyhow!(error).context(format!(
        "cannot run {} (built from {})",
        hull.display(),
        root().display()
    )))
}
