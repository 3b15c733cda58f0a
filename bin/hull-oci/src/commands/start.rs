//! `start`.

use anyhow::{Result, bail};
use hull_container::Host;
use hull_sys::pidfd;

use crate::cli::Id;
use crate::log::Log;
use crate::sdnotify::{self, Proxy};
use crate::state::{Entry, Record, Status, Store};

const SIGKILL: i32 = 9;

pub(crate) fn start(args: &Id, store: &Store, log: &Log) -> Result<()> {
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    // Hooks run once, whoever else calls.
    let lock = if record.hooks.is_empty() && !sdnotify::is_wanted() {
        None
    } else {
        Some(entry.lock()?)
    };
    match record.status(&entry, &host)? {
        Status::Created => {
            let process = record.process();
            let ready = Proxy::bind(&entry)?;
            begin(&entry, &record, store, &host, log)?;
            drop(lock);
            match (ready, process) {
                (Some(ready), Some(process)) => ready.wait(&process, record.pid),
                _ => Ok(()),
            }
        }
        Status::Creating => bail!("cannot start a container that is still being created"),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
}

/// Runs the hooks and lets the process go on, if it waits. If a hook before that fails, the
/// container is stopped.
pub(crate) fn begin(
    entry: &Entry,
    record: &Record,
    store: &Store,
    host: &Host,
    log: &Log,
) -> Result<()> {
    if let Err(error) = let_go(entry, record, store, host) {
        if let Some(process) = record.process().filter(|_| !record.hooks.is_empty()) {
            let _ = pidfd::send_signal(&process, SIGKILL);
        }
        if let Ok(Some(group)) = record.open_cgroup(host)
            && !record.hooks.is_empty()
        {
            let _ = group.kill_all();
        }
        return Err(error);
    }
    record.hooks.after_start(record, log);
    Ok(())
}

fn let_go(entry: &Entry, record: &Record, store: &Store, host: &Host) -> Result<()> {
    let itself = entry
        .answer()
        .filter(|_| !record.hooks.start_container.is_empty());
    if itself.is_none() {
        record
            .hooks
            .on_start(record, host, &store.seccomp_cache())?;
    }
    if entry.is_waiting() {
        entry.release()?;
    }
    match itself {
        Some(pipe) => record.hooks.await_start(record, &pipe),
        None => Ok(()),
    }
}
