//! `xtask lint`: rustfmt, clippy, and the house's own rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::process::{cargo, output, root, run};

/// No file grows beyond this.
const MAX_LINES: usize = 800;
/// Packages Cargo.lock may name.
const MAX_PACKAGES: usize = 350;
/// Crates of the daemon half: none may reach the sandbox half's own code.
const DAEMON_HALF: [&str; 12] = [
    "hull-image",
    "hull-kernel",
    "hull-snapshot",
    "hull-network",
    "hull-volume",
    "hull-state",
    "hull-engine",
    "hull-api-types",
    "hull-api",
    "hull-client",
    "hull-cli",
    "hull",
];
/// Crates of the sandbox half: small, synchronous, and knowing nothing of the daemon.
const SANDBOX_HALF: [&str; 7] = [
    "hull-seccomp",
    // Linked by the daemon, too, for its probe: it starts nothing by itself.
    "hull-hypervisor",
    "hull-container",
    "hull-sandbox",
    "hull-shim",
    "hull-agent",
    "hull-oci",
];
/// What the daemon half must not depend on.
const NOT_IN_DAEMON: [&str; 2] = ["hull-container", "hull-sandbox"];
/// What the sandbox half must not depend on.
const NOT_IN_SANDBOX: [&str; 8] = [
    "tokio",
    "hyper",
    "axum",
    "hull-engine",
    "hull-api",
    "hull-image",
    "hull-network",
    "hull-state",
];

/// Runs every check and reports all that fail.
pub(crate) fn lint() -> Result<ExitCode> {
    let mut problems = Vec::new();
    if let Err(error) = run(&mut cargo(["fmt", "--all", "--check"])) {
        problems.push(format!("{error:#}"));
    }
    sources(&mut problems)?;
    lock_file(&mut problems)?;
    directions(&mut problems)?;
    // The release profile, so that what the build already made is used again.
    let clippy = [
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    if let Err(error) = run(&mut cargo(clippy)) {
        problems.push(format!("{error:#}"));
    }
    for problem in &problems {
        eprintln!("lint: {problem}");
    }
    eprintln!("lint: {} problem(s)", problems.len());
    Ok(if problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sizes, first lines, and where `unsafe` may stand.
fn sources(problems: &mut Vec<String>) -> Result<()> {
    let root = root();
    let mut files = Vec::new();
    for folder in ["bin", "crates", "tests", "benches", "fuzz", "xtask"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let shown = file
            .strip_prefix(&root)
            .unwrap_or(&file)
            .display()
            .to_string();
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!(
                "{shown} has {lines} lines, more than {MAX_LINES}: split it by subject"
            ));
        }
        if !text.starts_with("//!") {
            problems.push(format!(
                "{shown} does not say its subject in a first //! line"
            ));
        }
        if !shown.starts_with("crates/sys/") {
            for (number, line) in text.lines().enumerate() {
                if uses_unsafe(line) {
                    problems.push(format!(
                        "{shown}:{} has unsafe code, which lives in crates/sys",
                        number + 1
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether a line opens an unsafe block, function, impl or attribute.
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    // Built of two parts, so that this very line does not count.
    let word = concat!("un", "safe");
    let forms = [
        " {",
        " fn",
        " impl",
        " extern",
        "(no_mangle)",
        "(export_name",
    ];
    forms
        .iter()
        .any(|form| code.contains(&format!("{word}{form}")))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn lock_file(problems: &mut Vec<String>) -> Result<()> {
    if let Err(error) = output(&mut cargo([
        "metadata",
        "--locked",
        "--format-version",
        "1",
    ])) {
        problems.push(format!("Cargo.lock is not up to date: {error:#}"));
    }
    let text = fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let packages = text
        .lines()
        .filter(|line| line.trim() == "[[package]]")
        .count();
    if packages >= MAX_PACKAGES {
        problems.push(format!(
            "Cargo.lock names {packages} packages, the limit is {MAX_PACKAGES}"
        ));
    }
    Ok(())
}

/// The two halves share `model`, `sys` and `proto` only.
fn directions(problems: &mut Vec<String>) -> Result<()> {
    let halves: [(&[&str], &[&str]); 2] = [
        (&DAEMON_HALF, &NOT_IN_DAEMON),
        (&SANDBOX_HALF, &NOT_IN_SANDBOX),
    ];
    for (crates, forbidden) in halves {
        for &package in crates {
            let tree = output(&mut cargo([
                "tree",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
                "--package",
                package,
            ]))?;
            for line in tree.lines() {
                let name = line.split(' ').next().unwrap_or_default();
                if forbidden.contains(&name) {
                    problems.push(format!(
                        "{package} reaches {name}, which belongs to the other half"
                    ));
                }
            }
        }
    }
    problems.dedup();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::uses_unsafe;

    #[test]
    fn uses_unsafe_block_and_fn_found_comment_not() {
        let word = concat!("un", "safe");
        assert!(uses_unsafe(&format!("let x = {word} {{ f() }};")));
        assert!(uses_unsafe(&format!("pub {word} fn f() {{}}")));
        assert!(!uses_unsafe(&format!("// {word} {{ no }}")));
        assert!(!uses_unsafe("safe {"));
    }
}
