//! Use-cases of containers, one file each.

pub mod archive;
mod archive_path;
mod archive_root;
pub mod attach;
pub(crate) mod caps;
pub mod commit;
pub mod create;
pub(crate) mod devices;
pub(crate) mod entry;
pub mod exec;
pub(crate) mod exit;
pub(crate) mod health;
pub mod list;
pub mod logs;
pub(crate) mod machine;
pub mod observe;
pub(crate) mod plan;
pub(crate) mod registry;
pub mod remove;
pub(crate) mod rootfs;
pub mod start;
pub mod stop;
pub mod storage;
mod top_guest;
pub mod update;
mod volumes_from;

pub(crate) use plan::hostname;

use std::collections::BTreeMap;

use hull_model::spec::{ContainerSpec, NetworkMode, PublishSpec};
use hull_model::{Error, Result};
use hull_state::ContainerRecord;

use crate::Engine;
use crate::filters::Filters;

impl Engine {
    /// A copy of a container's record.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn container(&self, key: &str) -> Result<ContainerRecord> {
        Ok(self.containers.find(key)?.record())
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// `Conflict` if it is taken.
    pub async fn rename(&self, key: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name);
        hull_model::name::validate("container", name)?;
        let container = self.containers.find(key)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        if record.name == name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.containers.reserve(name, &record.id)?;
        let old = std::mem::replace(&mut record.name, name.to_owned());
        if let Err(error) = self.store(&record) {
            self.containers.release(name, &record.id);
            return Err(error);
        }
        container.set(record.clone());
        self.tell_renamed(&record);
        self.containers.release(&old, &record.id);
        let mut facts = attributes(&record);
        facts.insert("oldName".into(), format!("/{old}"));
        self.events.emit("container", "rename", &record.id, facts);
        Ok(())
    }
}

/// The facts that events of a container carry.
pub(crate) fn attributes(record: &ContainerRecord) -> BTreeMap<String, String> {
    let mut facts = record.spec.labels.clone();
    facts.insert("image".into(), record.spec.image.clone());
    facts.insert("name".into(), record.name.clone());
    facts
}

/// The network's name as lists and filters show it.
pub fn network_name(mode: &NetworkMode) -> &str {
    match mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Container(other) | NetworkMode::Network(other) => other,
    }
}

/// The ports to publish, those of `-P` included.
pub(crate) fn ports_wanted(spec: &ContainerSpec) -> Vec<PublishSpec> {
    let mut wanted = spec.published.clone();
    if spec.publish_all {
        for port in &spec.exposed_ports {
            if !wanted.iter().any(|w| w.covers(*port)) {
                let any = std::net::Ipv4Addr::UNSPECIFIED;
                wanted.push(PublishSpec {
                    container: *port,
                    host_ip: any,
                    host_port: 0,
                    host_port_end: 0,
                    more: 0,
                });
            }
        }
    }
    wanted
}

/// Whether the `until` filter (a duration such as `24h`, a date or seconds since 1970) lets
/// something of that age through.
pub(crate) fn created_before(filters: &Filters, created_ns: u64) -> Result<bool> {
    for value in filters.values("until") {
        let limit = crate::system::time::parse(value).ok_or_else(|| {
            Error::invalid(format!(
                "invalid filter 'until={value}': want a duration or a date"
            ))
        })?;
        if created_ns as i64 >= limit {
            return Ok(false);
        }
    }
    Ok(true)
}
