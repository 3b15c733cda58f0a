//! `xtask test`: everything that must hold, in one command.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, root, run, shown, target};
use crate::{apt, build};

/// Tests that run at the same time inside one suite: they wait more than they compute.
const PARALLEL: &str = "4";
/// The suites that boot machines of their own.
const MACHINE: [&str; 2] = ["machine", "other_kernel"];
/// The whole run is cut off here, so that a hang is a failure and not a stuck machine.
const DEADLINE: Duration = Duration::from_secs(36 * 60);

/// Totals over all test programs.
#[derive(Default)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

/// Installs, builds, makes fixtures and runs all tests, or those whose name or suite matches.
pub(crate) fn test(args: &[OsString]) -> Result<ExitCode> {
    let started = Instant::now();
    let (flags, names): (Vec<_>, Vec<_>) = args
        .iter()
        .map(|word| word.to_str().context("a filter is plain text"))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .partition(|word| word.starts_with('-'));
    let machine = flags == ["--machine"];
    if names.len() > 1 || !(flags.is_empty() || machine) {
        bail!("usage: cargo xtask test [--machine] [FILTER]");
    }
    let filter = names.first().map(|&name| name.to_owned());
    if !is_root()? {
        bail!("the tests make namespaces, mounts and cgroups: run cargo xtask test as root");
    }
    apt::install_missing()?;
    // Most tests wait more than they compute: the kernel that some of them boot is built meanwhile.
    let _kernel = filter.is_none().then(Kernel::begin).transpose()?;
    build::build(build::Noise::Loud)?;
    fixtures()?;

    let mut totals = Totals::default();
    let suite = filter.as_deref().filter(|name| {
        root()
            .join("tests/tests")
            .join(format!("{name}.rs"))
            .exists()
            || root()
                .join("tests/tests")
                .join(name)
                .join("main.rs")
                .exists()
    });
    let mut all_ok = true;
    if machine {
        let mut suites = vec!["--package", "hull-tests"];
        for name in MACHINE {
            suites.extend(["--test", name]);
        }
        all_ok &= cargo_test(&suites, filter.as_deref(), started, &mut totals)?;
        let conformance = ["--package", "hull-oci-tests", "--test", "guest"];
        all_ok &= cargo_test(&conformance, filter.as_deref(), started, &mut totals)?;
    } else if let Some(suite) = suite {
        all_ok &= cargo_test(
            &["--package", "hull-tests", "--test", suite],
            None,
            started,
            &mut totals,
        )?;
    } else {
        let filter = filter.as_deref();
        // First those that take long and mostly need no kernel.
        all_ok &= cargo_test(&["--package", "hull-tests"], filter, started, &mut totals)?;
        let units = [
            "--workspace",
            "--exclude",
            "hull-tests",
            "--lib",
            "--bins",
            "--tests",
        ];
        all_ok &= cargo_test(&units, filter, started, &mut totals)?;
    }

    println!();
    for failure in &totals.failures {
        println!("FAILED {failure}");
    }
    if totals.passed + totals.failed == 0 {
        println!("no test matches");
        all_ok = false;
    }
    println!(
        "ran for {} s, {} ignored",
        started.elapsed().as_secs(),
        totals.ignored
    );
    println!("{} passed, {} failed", totals.passed, totals.failed);
    Ok(if all_ok && totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The guest kernel in the making; who needs it before it is made waits for it, by a lock.
struct Kernel(Child);

impl Kernel {
    fn begin() -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(program).arg("guest-kernel");
        let command = command.stdin(Stdio::null()).process_group(0);
        Ok(Self(command.spawn().context("cannot start nice")?))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let group = format!("-{}", self.0.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        }
        let _ = self.0.wait();
    }
}

/// Makes images and root file systems ahead of the tests, so that no test pays for them.
pub(crate) fn fixtures() -> Result<()> {
    // All of the kit's programs: tests mount the probe into containers.
    run(&mut cargo([
        "build",
        "--release",
        "--package",
        "hull-testkit",
        "--bins",
    ]))?;
    let mut command = cargo([
        "run",
        "--release",
        "--quiet",
        "--package",
        "hull-testkit",
        "--bin",
        "hull-fixtures",
    ]);
    command.env("HULL_TARGET", target());
    run(&mut command)
}

fn is_root() -> Result<bool> {
    let out = Command::new("id")
        .arg("-u")
        .output()
        .context("cannot run id")?;
    Ok(out.stdout.trim_ascii() == b"0")
}

/// Runs one `cargo test`, passing its output through and counting; false if anything failed.
fn cargo_test(
    selection: &[&str],
    filter: Option<&str>,
    started: Instant,
    totals: &mut Totals,
) -> Result<bool> {
    let mut command = cargo(["test", "--release", "--no-fail-fast"]);
    command
        .args(selection)
        .arg("--")
        .arg("--test-threads")
        .arg(PARALLEL);
    if let Some(filter) = filter {
        command.arg(filter);
    }
    command
        .env("HULL_DIST", build::dist())
        .env("HULL_TARGET", target())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    println!("$ {}", shown(&command));
    let mut child = command.spawn().context("cannot start cargo test")?;
    let stdout = child.stdout.take().context("no pipe from cargo test")?;

    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    loop {
        let left = DEADLINE.saturating_sub(started.elapsed());
        match lines.recv_timeout(left) {
            Ok(line) => {
                println!("{line}");
                count(&line, totals);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // The child leads a process group of its own, so this reaches the test programs too.
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                println!("xtask: cut off after {} s", started.elapsed().as_secs());
                totals
                    .failures
                    .push(format!("{} (deadline)", shown(&command)));
                return Ok(false);
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok(status.success())
}

/// Adds one line of a test program's output to the totals.
fn count(line: &str, totals: &mut Totals) {
    if let Some(rest) = line.strip_prefix("test result: ") {
        totals.passed += number_before(rest, " passed");
        totals.failed += number_before(rest, " failed");
        totals.ignored += number_before(rest, " ignored");
    } else if let Some(name) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.strip_suffix(" ... FAILED"))
    {
        totals.failures.push(name.to_owned());
    }
}

/// The number that stands right before a word.
fn number_before(text: &str, word: &str) -> u64 {
    text.find(word)
        .and_then(|at| text.get(..at))
        .and_then(|head| head.rsplit(' ').next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_result_line_adds_its_numbers() {
        let mut totals = Totals::default();
        count(
            "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s",
            &mut totals,
        );
        count("test lifecycle_stop ... FAILED", &mut totals);
        assert_eq!((totals.passed, totals.failed, totals.ignored), (12, 3, 1));
        assert_eq!(totals.failures, ["lifecycle_stop"]);
    }
}
