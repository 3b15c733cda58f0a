//! `state`: what the runtime specification says about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hull_container::Host;
use serde::Serialize;

use super::print;
use crate::cli::Id;
use crate::state::{Entry, Record, Status, Store};

/// The state as printed, with runc's further fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    pub(crate) oci_version: String,
    pub(crate) id: String,
    pub(crate) pid: u32,
    pub(crate) status: &'static str,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
}

impl Shown {
    pub(crate) fn new(entry: &Entry, record: Record, host: &Host) -> Result<Self> {
        let status = record.status(entry, host)?;
        Ok(Self {
            oci_version: record.oci_version,
            id: record.id,
            pid: if status == Status::Stopped {
                0
            } else {
                record.pid
            },
            status: status.name(),
            bundle: record.bundle,
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner: record.owner,
        })
    }
}

pub(crate) fn state(args: &Id, store: &Store) -> Result<()> {
    let (entry, record) = store.open(&args.id)?;
    let shown = Shown::new(&entry, record, &Host::detect()?)?;
    let text = serde_json::to_string_pretty(&shown).context("cannot write the state")?;
    print(&format!("{text}\n"))
}
