//! `kill`.

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_sys::{Errno, pidfd, signal};
use rustix::process::Pid;

use crate::cli::Kill;
use crate::state::{Status, Store};

const SIGKILL: i32 = 9;

pub(crate) fn kill(args: &Kill, store: &Store) -> Result<()> {
    // Number 0 asks whether it is there.
    let number = match args.signal.as_str() {
        "0" => 0,
        text => signal::from_name(text).with_context(|| format!("unknown signal {text:?}"))?,
    };
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    if args.all {
        for pid in record.pids(&host)? {
            let Some(handle) = Pid::from_raw(pid).and_then(|pid| pidfd::open(pid).ok()) else {
                continue;
            };
            send(&handle, number)?;
        }
    } else {
        let Some(process) = record.process() else {
            bail!("container not running")
        };
        send(&process, number)?;
    }
    // What is frozen dies only once it goes on. Whoever waits for the end may have taken the group
    // away meanwhile: then it was not.
    if number == SIGKILL
        && let Ok(Status::Paused) = record.status(&entry, &host)
        && let Some(group) = record.open_cgroup(&host)?
    {
        group.thaw()?;
    }
    Ok(())
}

fn send(process: &std::os::fd::OwnedFd, number: i32) -> Result<()> {
    match pidfd::send_signal(process, number) {
        // It ended meanwhile.
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send signal {number}")),
    }
}
