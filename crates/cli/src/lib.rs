//! Hull's command line: Docker's verbs, flags, output and exit codes over the Engine API.
//!
//! [`main`] parses the arguments, builds the one command they name, and runs it on a current-thread
//! runtime. Each command is a file under `commands/`: its arguments, whose comments are the help
//! text, and one function.

mod app;
mod commands;
mod context;
#[doc(hidden)]
pub mod credentials;
mod daemon_start;
mod error;
mod format;
mod help;
mod output;
mod parse;
mod progress;
mod registry;
mod remote;
mod spec;
mod streams;
mod template;
mod tree;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

/// What the binary brings along.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// Serves as the daemon; takes what follows `hull daemon`.
    pub daemon: fn(Vec<OsString>) -> ExitCode,
    /// The version to report.
    pub version: &'static str,
}

/// Runs the command line `args` (with the program's name first) and gives the exit code.
pub fn main(args: impl IntoIterator<Item = OsString>, hooks: &Hooks) -> ExitCode {
    app::run(args.into_iter().collect(), hooks)
}
