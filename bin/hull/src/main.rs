//! `hull`: the command line, and with `hull daemon` the daemon.

mod flags;
mod listen;
mod pidfile;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    let hooks = hull_cli::Hooks {
        daemon: serve::main,
        version: env!("CARGO_PKG_VERSION"),
    };
    hull_cli::main(std::env::args_os(), &hooks)
}
