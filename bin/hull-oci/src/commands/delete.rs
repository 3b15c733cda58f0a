//! `delete`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hull_container::Host;
use hull_sys::pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::Delete;
use crate::log::Log;
use crate::spec;
use crate::state::{Record, Status, Store};
use crate::systemd;

const SIGKILL: i32 = 9;
/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often, and how far apart, a half made container is looked at before it is removed.
const STRAGGLER_LOOKS: u32 = 6;
const STRAGGLER_PAUSE: Duration = Duration::from_millis(10);
/// Tries to remove a control group; each takes its time by itself.
const REMOVE_TRIES: u32 = 2;

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
    // As in runc: what was never started needs no force.
    if !matches!(status, Status::Stopped | Status::Created) && !args.force {
        bail!(
            "cannot delete container {} that is not stopped: {}",
            args.id,
            status.name()
        );
    }
    remove_group(&record, &host, status)?;
    wait_for_end(&record)?;
    record.detach_root();
    record.leave_class();
    if entry.remove()? {
        record.hooks.after_delete(&record, log);
    }
    Ok(())
}

/// Kills all in the control group and removes it. A process that a killed `create` left on its way
/// joins one hierarchy after the other and may be in none yet: it is given time to show itself.
fn remove_group(record: &Record, host: &Host, status: Status) -> Result<()> {
    if status == Status::Creating {
        for _ in 0..STRAGGLER_LOOKS {
            if let Some(group) = record.open_cgroup(host)? {
                group.kill_all()?;
            }
            std::thread::sleep(STRAGGLER_PAUSE);
        }
    }
    if let Some(unit) = &record.systemd {
        if let Some(group) = record.open_cgroup(host)? {
            group.kill_all()?;
        }
        // What is removed by hand below counts as stopped, should systemd not be there any more.
        let stopped = systemd::stop(unit);
        if record.open_cgroup(host)?.is_some() {
            stopped?;
        }
    }
    if record.cgroup.is_empty() {
        // No group to kill: the first process takes the others of its pid namespace along.
        if let Some(process) = record.process() {
            let _ = pidfd::send_signal(&process, SIGKILL);
        }
        return Ok(());
    }
    let mut tries = 0;
    while let Some(group) = record.open_cgroup(host)? {
        tries += 1;
        match group.kill_all().and_then(|()| group.remove()) {
            Err(error) if tries >= REMOVE_TRIES => return Err(error.into()),
            Err(_) | Ok(()) => {}
        }
    }
    spec::remove_parents(&record.cgroup, host);
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
