//! Changing limits and the restart policy of a container, running or not.

use hull_model::spec::RestartPolicy;
use hull_model::{Error, Resources, Result};
use hull_proto::Request;

use super::attributes;
use crate::{Engine, PortChange};

impl Engine {
    /// Changes limits and published ports; fields that are `None` stay as they are.
    ///
    /// # Errors
    /// `InvalidArgument` if the host refuses a value, `Unavailable` if a port is taken; then nothing is changed.
    pub async fn update(
        &self,
        key: &str,
        wanted: Resources,
        restart: Option<RestartPolicy>,
        ports: PortChange,
    ) -> Result<Vec<String>> {
        let container = self.containers.find(key)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        if restart.is_some_and(|r| r != RestartPolicy::No) && record.spec.auto_remove {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let old = &record.spec.resources;
        let merged = Resources {
            memory: wanted.memory.or(old.memory),
            memory_swap: wanted.memory_swap.or(old.memory_swap),
            memory_reservation: wanted.memory_reservation.or(old.memory_reservation),
            nano_cpus: wanted.nano_cpus.or(old.nano_cpus),
            cpu_period: wanted.cpu_period.or(old.cpu_period),
            cpu_quota: wanted.cpu_quota.or(old.cpu_quota),
            cpu_shares: wanted.cpu_shares.or(old.cpu_shares),
            cpuset_cpus: wanted
                .cpuset_cpus
                .clone()
                .or_else(|| old.cpuset_cpus.clone()),
            cpuset_mems: wanted
                .cpuset_mems
                .clone()
                .or_else(|| old.cpuset_mems.clone()),
            pids_limit: wanted.pids_limit.or(old.pids_limit),
            blkio_weight: wanted.blkio_weight.or(old.blkio_weight),
            memory_swappiness: wanted.memory_swappiness.or(old.memory_swappiness),
            oom_kill_disable: wanted.oom_kill_disable || old.oom_kill_disable,
        };
        if let (Some(memory), Some(swap)) = (merged.memory, merged.memory_swap)
            && memory > 0
            && swap > 0
            && swap < memory
        {
            return Err(Error::conflict(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        record.spec.resources = merged.clone();
        if let Some(restart) = restart {
            record.spec.restart = restart;
        }
        let undo = self.change_ports(&mut record, &ports)?;
        if let (true, Some(shim)) = (record.state.is_running(), container.shim()) {
            let updated = shim.call(Request::Update(Box::new(merged)), &[]).await;
            if let Err(error) = updated {
                self.undo_ports(&record, undo);
                return Err(error);
            }
        }
        if let Err(error) = self.store(&record) {
            self.undo_ports(&record, undo);
            return Err(error);
        }
        container.set(record.clone());
        self.events
            .emit("container", "update", &record.id, attributes(&record));
        Ok(Vec::new())
    }
}
