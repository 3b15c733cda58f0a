//! `delete`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hull_container::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Delete;
use crate::log::Log;
use crate::state::{Record, Status, Store};

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn delete(args: &Delete, store: &Store, log: &Log) -> Result<()> {
    let (entry, record) = match store.open(&args.id) {
        Ok(found) => found,
        Err(error) => {
            // What a create that was killed left has no record, but must not keep the name.
            if args.force {
                store.entry(&args.id)?.remove()?;
                return Ok(());
            }
            return Err(error);
        }
    };
    let host = Host::detect()?;
    let status = record.status(&entry, &host)?;
    if status != Status::Stopped && !args.force {
        bail!(
            "cannot delete container {} that is not stopped: {}",
            args.id,
            status.name()
        );
    }
    let group = record.open_cgroup(&host)?;
    if let Some(group) = &group {
        group.kill_all()?;
    }
    wait_for_end(&record)?;
    if let Some(group) = group
        && let Err(error) = group.remove()
    {
        log.warn(&error.to_string());
    }
    entry.remove()?;
    Ok(())
}

fn wait_for_end(record: &Record) -> Result<()> {
    let Some(process) = record.process() else {
        return Ok(());
    };
    let deadline = Instant::now() + KILL_TIMEOUT;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(count) if count > 0 => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bail!("process {} of the container does not end", record.pid)
}
