//! The commands, one file each.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command, Rootless};
use crate::log::Log;
use crate::rootless;
use crate::state::Store;

/// What `exec` ends with when there is no process to tell the status of, as in runc.
const EXIT_EXEC_FAILED: u8 = 255;

/// Runs the command; its code is what the program ends with.
pub(crate) fn run(cli: Cli, log: &Log) -> Result<ExitCode> {
    let root = match cli.globals.root {
        Some(root) => root,
        None => rootless::default_root()?,
    };
    let mut store = Store::new(&root);
    store.systemd = cli.globals.systemd_cgroup;
    store.rootless = match cli.globals.rootless {
        Rootless::Auto => None,
        Rootless::True => Some(true),
        Rootless::False => Some(false),
    };
    if cli.globals.debug {
        let name = format!("{:?}", cli.command);
        // Only the name: environments may hold secrets.
        let name = name.split('(').next().unwrap_or_default();
        log.debug(&format!("hull-oci {} {name}", env!("CARGO_PKG_VERSION")));
    }
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Create(args) => create::create(&args, &store, log).map(done),
        Command::Start(args) => start::start(&args, &store, log).map(done),
        Command::Run(args) => run::run(&args, &store, log),
        Command::State(args) => state::state(&args, &store).map(done),
        Command::Kill(args) => kill::kill(&args, &store).map(done),
        Command::Delete(args) => delete::delete(&args, &store, log).map(done),
        Command::Exec(args) => exec::exec(&args, &store, log).or_else(|error| {
            log.error(&format!("exec failed: {error:#}"));
            Ok(ExitCode::from(EXIT_EXEC_FAILED))
        }),
        Command::List(args) => list::list(&args, &store).map(done),
        Command::Ps(args) => ps::ps(&args, &store).map(done),
        Command::Pause(args) => pause::pause(&args, &store).map(done),
        Command::Resume(args) => pause::resume(&args, &store).map(done),
        Command::Update(args) => update::update(&args, &store, log).map(done),
        Command::Events(args) => events::events(&args, &store).map(done),
        Command::Spec(args) => spec::spec(&args).map(done),
        Command::Features => features::features().map(done),
        Command::Checkpoint(args) => {
            checkpoint::checkpoint(&args, &store, cli.globals.criu.as_os_str(), log).map(done)
        }
        Command::Restore(args) => {
            restore::restore(&args, &store, cli.globals.criu.as_os_str(), log)
        }
    }
}

/// Writes to standard output; a reader that went away is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// An exit status as the program's own.
pub(crate) fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX))
}
