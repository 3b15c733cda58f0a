//! `run`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use hull_sys::pidfd;

use super::create::{Made, Manner, make};
use super::{exit_code, start};
use crate::cli::Run;
use crate::log::Log;
use crate::spec;
use crate::state::Store;
use crate::supervise::{self, Signals};
use crate::systemd;

pub(crate) fn run(args: &Run, store: &Store, log: &Log) -> Result<ExitCode> {
    let manner = Manner {
        hold: false,
        detached: args.detach,
    };
    if args.detach {
        let made = make(&args.create, store, log, &manner)?;
        return match go(&made, store, log) {
            Ok(()) => {
                if let Some(ready) = &made.ready {
                    ready.wait(&made.launched.process.pidfd, made.record.pid)?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                let _ = pidfd::wait(&made.launched.process.pidfd, true);
                clean_up(made, args, log)?;
                Err(error)
            }
        };
    }
    let signals = Signals::collect()?;
    if !args.no_subreaper {
        hull_sys::proc::set_subreaper().context("cannot take in orphans")?;
    }
    let made = make(&args.create, store, log, &manner)?;
    let started = go(&made, store, log);
    let status = supervise::wait(&made.launched.process, &signals, made.ready.as_ref());
    clean_up(made, args, log)?;
    started?;
    status.map(exit_code)
}

/// Runs the hooks around the start, and starts what waits for that.
fn go(made: &Made, store: &Store, log: &Log) -> Result<()> {
    if made.record.hooks.is_empty() {
        return Ok(());
    }
    start::begin(&made.entry, &made.record, store, &made.host, log)
}

/// Takes away what the container leaves.
fn clean_up(made: Made, args: &Run, log: &Log) -> Result<()> {
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
        spec::remove_parents(&made.record.cgroup, &made.host);
        if made.launched.root_mount.is_some() {
            made.record.detach_root();
        }
        made.record.leave_class();
        made.entry.remove()?;
        made.record.hooks.after_delete(&made.record, log);
    }
    Ok(())
}
