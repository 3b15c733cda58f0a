//! `run`.

use std::process::ExitCode;

use anyhow::Result;

use super::create::{Manner, make};
use super::exit_code;
use crate::cli::Run;
use crate::log::Log;
use crate::state::Store;
use crate::supervise::{self, Signals};
use crate::systemd;

pub(crate) fn run(args: &Run, store: &Store, log: &Log) -> Result<ExitCode> {
    let manner = Manner {
        hold: false,
        detached: args.detach,
    };
    if args.detach {
        make(&args.create, store, log, &manner)?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::collect()?;
    let made = make(&args.create, store, log, &manner)?;
    let status = supervise::wait(&made.launched.process, &signals);
    // Without a pid namespace of its own, others may have outlived the first.
    if let Err(error) = made.launched.cgroup.kill_all() {
        log.warn(&error.to_string());
    }
    if let Some(unit) = made.unit.filter(|_| !args.keep)
        && let Err(error) = systemd::stop(&unit)
    {
        log.warn(&format!("{error:#}"));
    }
    if !args.keep {
        if let Err(error) = made.launched.cgroup.remove() {
            log.warn(&error.to_string());
        }
        if made.launched.root_mount.is_some() {
            store.open(&args.create.id)?.1.detach_root();
        }
        made.entry.remove()?;
    }
    status.map(exit_code)
}
