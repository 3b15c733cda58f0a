//! `pause` and `resume`.

use anyhow::{Context as _, Result, bail};
use hull_container::Host;
use hull_sys::cgroup::Cgroup;

use crate::cli::Id;
use crate::state::{Status, Store};

pub(crate) fn pause(args: &Id, store: &Store) -> Result<()> {
    match find(args, store)? {
        (Status::Running | Status::Created, Some(group)) => group
            .freeze()
            .context("cannot freeze the container's processes"),
        (status, _) => bail!("container not running: it is {}", status.name()),
    }
}

pub(crate) fn resume(args: &Id, store: &Store) -> Result<()> {
    match find(args, store)? {
        (Status::Paused, Some(group)) => Ok(group.thaw()?),
        (status, _) => bail!("container not paused: it is {}", status.name()),
    }
}

fn find(args: &Id, store: &Store) -> Result<(Status, Option<Box<dyn Cgroup>>)> {
    let (entry, record) = store.open(&args.id)?;
    let host = Host::detect()?;
    let status = record.status(&entry, &host)?;
    let group = record
        .open_cgroup(&host)
        .context("cannot open the control group")?;
    Ok((status, group))
}
