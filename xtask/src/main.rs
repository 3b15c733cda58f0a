//! Build, run, test, lint and bench: the commands a developer of Hull types.

#![allow(clippy::print_stdout, reason = "a program for the terminal prints")]

mod apt;
mod bench;
mod build;
mod fuzz;
mod guest_kernel;
mod lint;
mod process;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  build            build the static binaries into target/dist/
  hull ARGS...     build if needed, then run target/dist/hull ARGS (alias: cargo hull)
  test [--machine] [FILTER]
                   install what the tests need, make fixtures, run every test
                   --machine: those alone that boot a machine of their own
                   FILTER is a test name's part, or a suite's file name in tests/tests
  lint             rustfmt, clippy, file sizes, dependency directions
  fuzz [--keep] [TARGET] [SECONDS]
                   throw made-up input at a parser (config, process, seccomp, mounts)
                   --keep: take what was learnt into fuzz/seeds
  fixtures         make the images and root file systems the tests use
  guest-kernel [--pack]
                   build the kernel that virtual machines boot, unless it is there
                   --pack: also the archive that hull kernel install takes
  bench NAME       run a bench of benches/ (start, oci, pull, net)";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<_> = args.collect();
    match command.to_str() {
        Some("build") => {
            build::build(build::Noise::Loud)?;
            Ok(ExitCode::SUCCESS)
        }
        Some("hull") => build::run_hull(&rest),
        Some("test") => test::test(&rest),
        Some("lint") => lint::lint(),
        Some("fixtures") => {
            apt::install_missing()?;
            test::fixtures()?;
            Ok(ExitCode::SUCCESS)
        }
        Some("guest-kernel") => guest_kernel::guest_kernel(&rest),
        Some("fuzz") => fuzz::fuzz(&rest),
        Some("bench") => bench::bench(&rest),
        Some("help" | "--help" | "-h") => {
            eprintln!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("unknown command {command:?}\n{USAGE}"),
    }
}
