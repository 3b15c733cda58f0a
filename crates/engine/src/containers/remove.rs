//! Removing containers, one and many.

use std::sync::Arc;

use hull_model::{Error, ErrorKind, Result};
use hull_snapshot::Snapshotter;
use hull_state::{ContainerRecord, ContainerState};

use super::entry::{Container, lock};
use super::{attributes, created_before};
use crate::Engine;
use crate::filters::Filters;

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// With its unnamed volumes.
    pub volumes: bool,
}

/// What a prune did.
#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    /// Ids or names removed.
    pub deleted: Vec<String>,
    /// Bytes freed.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// `Conflict` if it runs and `force` is off.
    pub async fn remove(self: &Arc<Self>, key: &str, options: RemoveOptions) -> Result<()> {
        let container = self.containers.find(key)?;
        let record = container.record();
        if record.state.is_running() || record.state == ContainerState::Restarting {
            if !options.force {
                let state = record.state.as_str();
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{}\": container is {state}: stop the container before removing or force remove",
                    record.name
                )));
            }
            match self.force_end(&container, &record).await {
                // With --rm its exit removed it already.
                Err(error) if error.kind() != ErrorKind::NotModified => return Err(error),
                _ => {}
            }
        }
        let _op = container.op.lock().await;
        if container.runs.borrow().removed {
            return Ok(());
        }
        if container.with(|r| r.state.is_running()) {
            return Err(Error::conflict(format!(
                "container \"/{}\" was started meanwhile: try again",
                record.name
            )));
        }
        self.remove_locked(&container, options.volumes).await
    }

    async fn force_end(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &ContainerRecord,
    ) -> Result<()> {
        container.change(|r| r.stopped_by_user = true);
        if record.state == ContainerState::Restarting {
            return self.stop_container(container, Some(0), None).await;
        }
        let ended = container.runs.borrow().ended;
        match container.shim() {
            Some(shim) if container.with(|r| r.state.is_running()) => {
                self.kill_hard(container, &shim, ended).await
            }
            _ => Ok(()),
        }
    }

    /// The removal itself. The caller holds `op` and knows that it does not run.
    pub(crate) async fn remove_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        volumes: bool,
    ) -> Result<()> {
        let record = container.record();
        if let Some(timer) = lock(&container.restart).take() {
            timer.abort();
        }
        lock(&container.waiting).clear();
        // The record goes first: what a kill leaves behind belongs to no record and is swept at
        // the next start. The other way round a record would lie.
        self.forget(&record)?;
        self.containers.remove(container);
        container.change(|r| r.state = ContainerState::Removing);
        if let Some(id) = &record.image_id {
            self.images.store.used(id);
        }
        self.execs_of_removed(&record.id);
        if let Err(error) = self.snapshots.remove(&record.id) {
            tracing::warn!(%error, "cannot remove a writable layer: the next start sweeps it");
        }
        if volumes {
            self.remove_anonymous_volumes(&record);
        }
        let dirs = [
            self.settings.container_dir(&record.id),
            self.settings.sandbox_dir(&record.id),
        ];
        container.runs.send_modify(|r| {
            r.removed = true;
            r.running = false;
        });
        self.events
            .emit("container", "destroy", &record.id, attributes(&record));
        // Deleting what was written takes as long as there was much: after the reply.
        self.janitor.delete(dirs.into());
        Ok(())
    }

    /// Removes all containers that do not run.
    ///
    /// # Errors
    /// For an unknown filter.
    pub async fn prune_containers(self: &Arc<Self>, filters: &Filters) -> Result<PruneReport> {
        filters.allow_only(&["until", "label", "label!"])?;
        // A malformed time is an error before anything goes.
        created_before(filters, 0)?;
        let mut report = PruneReport::default();
        for container in self.containers.all() {
            let record = container.record();
            let idle = matches!(
                record.state,
                ContainerState::Created | ContainerState::Exited | ContainerState::Dead
            );
            if !idle
                || !filters.match_labels(&record.spec.labels)
                || !created_before(filters, record.created_at_ns)?
            {
                continue;
            }
            let size = self.writable_size(&record.id);
            if self
                .remove(&record.id, RemoveOptions::default())
                .await
                .is_ok()
            {
                report.deleted.push(record.id);
                report.reclaimed += size;
            }
        }
        self.tell_pruned("container", report.reclaimed);
        Ok(report)
    }
}
