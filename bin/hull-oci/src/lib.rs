//! OCI runtime command line: containers out of bundles, without a daemon.
//!
//! The container crate does the work; here is the command line of the runtime specification (as
//! runc spells it), the translation of config.json, and a record on disk that outlives each call.

mod cli;
mod commands;
mod console;
mod criu;
mod descriptors;
mod hooks;
mod join;
mod log;
mod netdev;
mod notify;
pub mod parse;
mod quick;
mod rdt;
mod rootless;
mod sdnotify;
mod spec;
mod state;
mod supervise;
mod systemd;
mod usage;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use anyhow::Context as _;

use cli::Command;
use log::Log;

/// What runc ends with when it fails itself.
const EXIT_FAILURE: u8 = 1;

/// The program: reads its arguments, does what they say, tells how it went.
pub fn main() -> ExitCode {
    // Before anything else, so that nothing is done twice.
    let sealed = if may_make() { Some(seal()) } else { None };
    let cli = match quick::read(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that went away is no reason for another status.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_FAILURE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let log = match Log::open(&cli.globals) {
        Ok(log) => log,
        Err(error) => {
            Log::stderr().error(&format!("{error:#}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    let outcome = if makes(&cli.command) {
        // What read the command line is not needed any more.
        hull_sys::memory::unmap_code();
        sealed.unwrap_or_else(seal)
    } else {
        Ok(())
    };
    let outcome = outcome.and_then(|()| commands::run(cli, &log));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            log.error(&format!("{error:#}"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Whether the command becomes a container's process.
fn makes(command: &Command) -> bool {
    matches!(
        command,
        Command::Create(_) | Command::Run(_) | Command::Exec(_)
    )
}

/// The same by the look of the command line: a word too many costs a start and no more.
fn may_make() -> bool {
    const NAMES: [&str; 3] = ["create", "run", "exec"];
    let mut words = std::env::args_os().skip(1);
    words.any(|word| NAMES.iter().any(|name| word == *name))
}

/// Runs this program anew from a handle that cannot be written to, before it becomes a
/// container's: an image may name /proc/self/exe as its command (CVE-2019-5736).
fn seal() -> anyhow::Result<()> {
    let text = |bytes: OsString| CString::new(bytes.into_vec()).ok();
    let arguments = std::env::args_os().filter_map(text).collect();
    let environment = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name)
        })
        .collect();
    hull_sys::sealed::reexecute(arguments, environment)
        .context("cannot protect this program's file from the container")
}
