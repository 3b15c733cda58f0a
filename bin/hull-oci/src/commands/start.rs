//! `start`.

use anyhow::{Result, bail};
use hull_container::Host;

use crate::cli::Id;
use crate::state::{Status, Store};

pub(crate) fn start(args: &Id, store: &Store) -> Result<()> {
    let (entry, record) = store.open(&args.id)?;
    match record.status(&entry, &Host::detect()?)? {
        Status::Created => entry.release(),
        Status::Creating => bail!("cannot start a container that is still being created"),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running | Status::Paused => bail!("cannot start an already running container"),
    }
}
