//! OCI runtime command line: containers out of bundles, without a daemon.
//!
//! The container crate does the work; here is the command line of the runtime specification (as
//! runc spells it), the translation of config.json, and a record on disk that outlives each call.

mod cli;
mod commands;
mod console;
mod log;
mod spec;
mod state;
mod supervise;

use std::process::ExitCode;

use clap::Parser as _;

use cli::Cli;
use log::Log;

/// What runc ends with when it fails itself.
const EXIT_FAILURE: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log = match Log::open(&cli.globals) {
        Ok(log) => log,
        Err(error) => {
            Log::stderr().error(&format!("{error:#}"));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match commands::run(cli, &log) {
        Ok(code) => code,
        Err(error) => {
            log.error(&format!("{error:#}"));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
