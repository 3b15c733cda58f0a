//! `xtask bench NAME`: runs one program of benches/.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, host_triple, root, run, target};
use crate::{apt, build};

/// Builds Hull and the bench and runs it; results land in `target/bench/`.
pub(crate) fn bench(args: &[OsString]) -> Result<ExitCode> {
    let Some((name, rest)) = args.split_first() else {
        bail!("say which bench: cargo xtask bench start, oci, pull or net");
    };
    let name = name.to_str().context("a bench's name is plain text")?;
    if !root()
        .join("benches/src/bin")
        .join(format!("{name}.rs"))
        .exists()
    {
        bail!("there is no bench {name}; see benches/src/bin");
    }
    apt::install_missing()?;
    build::build(build::Noise::Loud)?;
    run(&mut cargo([
        "build",
        "--release",
        "--package",
        "hull-benches",
    ]))?;
    let program = target().join(host_triple()?).join("release").join(name);
    let mut command = std::process::Command::new(program);
    command
        .args(rest)
        .current_dir(root())
        .env("HULL_DIST", build::dist())
        .env("HULL_TARGET", target());
    run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
