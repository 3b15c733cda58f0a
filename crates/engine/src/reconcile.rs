//! The start of a daemon: what the records say is compared with what the kernel still shows.
//!
//! ```text
//!  record   shim answers   exit.json   →
//!  yes      running                       adopted, runs on
//!  yes      ended          (or yes)       recorded as ended while nobody looked
//!  running  no             no             killed (by hand or a power failure): 137 or 255
//!  no       any            any            killed and swept: its create or remove was cut short
//! ```

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hull_model::spec::{Isolation, RestartPolicy};
use hull_proto::message::EXIT_FILE;
use hull_proto::{ExitStatus, Reply, Request, Status};
use hull_snapshot::Snapshotter;
use hull_state::{ContainerRecord, ContainerState};
use tokio::sync::mpsc;

use crate::Engine;
use crate::clock::now_ns;
use crate::containers::entry::Container;
use crate::containers::{exit, health};
use crate::settings::Settings;
use crate::shim::{Notice, Shim};

/// How long a shim may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where it may be waiting for a guest that is busy.
const PATIENCE_WITH_MACHINES: Duration = Duration::from_secs(30);
/// Exit code where nobody saw the end, as Docker reports it.
const UNSEEN: i32 = 255;

/// A container as it was found.
pub(crate) struct Found {
    record: ContainerRecord,
    shim: Option<(Arc<Shim>, mpsc::UnboundedReceiver<Notice>, Status)>,
    exit: Option<ExitStatus>,
}

impl Found {
    pub(crate) fn record(&self) -> &ContainerRecord {
        &self.record
    }

    /// Its processes run.
    pub(crate) fn live(&self) -> bool {
        self.shim
            .as_ref()
            .is_some_and(|(_, _, status)| status.pid.is_some() && status.exit.is_none())
    }
}

/// Asks every shim that may still be there.
pub(crate) async fn find(settings: &Settings, records: Vec<ContainerRecord>) -> Vec<Found> {
    let mut found = Vec::with_capacity(records.len());
    for record in records {
        let dir = settings.sandbox_dir(&record.id);
        let exit = fs::read(dir.join(EXIT_FILE))
            .ok()
            .and_then(|b| serde_json::from_slice(&b).ok());
        let patience = match record.spec.isolation {
            Isolation::Container => PATIENCE,
            Isolation::Vm => PATIENCE_WITH_MACHINES,
        };
        let shim = ask(&dir, patience).await;
        found.push(Found { record, shim, exit });
    }
    found
}

async fn ask(
    dir: &Path,
    patience: Duration,
) -> Option<(Arc<Shim>, mpsc::UnboundedReceiver<Notice>, Status)> {
    let (shim, notices) = Shim::connect(dir).await.ok()?;
    match tokio::time::timeout(patience, shim.call(Request::Status, &[])).await {
        Ok(Ok(Reply::Status(status))) => Some((shim, notices, status)),
        _ => None,
    }
}

impl Engine {
    /// Takes over what was found and sweeps what belongs to nobody.
    pub(crate) async fn adopt(self: &Arc<Self>, found: Vec<Found>) {
        let ids: HashSet<String> = found.iter().map(|f| f.record.id.clone()).collect();
        let groups = self.sweep(&ids).await;
        for one in found {
            let id = one.record.id.clone();
            if let Err(error) = self.containers.reserve(&one.record.name, &id) {
                tracing::error!(error = %error.chain(), id, "two records have one name: the second is left alone");
                continue;
            }
            self.adopt_one(one, &groups).await;
        }
    }

    async fn adopt_one(self: &Arc<Self>, found: Found, groups: &HashSet<String>) {
        let live = found.live();
        let Found {
            mut record,
            shim,
            exit,
        } = found;
        match shim {
            Some((shim, notices, status)) if live => {
                let pid = status.pid.unwrap_or_default();
                record.state = if status.paused {
                    ContainerState::Paused { pid }
                } else {
                    ContainerState::Running { pid }
                };
                if record.started_at_ns < status.started_at_ns {
                    record.started_at_ns = status.started_at_ns;
                }
                let container = Container::new(record.clone());
                container.set_shim(Some(shim));
                self.containers.insert(Arc::clone(&container));
                self.announce(&record);
                for (exec, pid) in status.execs {
                    self.exec_adopt(&record.id, &exec, pid);
                }
                if let Err(error) = self.store_soon(&record) {
                    tracing::error!(error = %error.chain(), id = record.id, "cannot record a running container");
                }
                health::begin(self, &container, &record);
                tokio::spawn(exit::monitor(Arc::clone(self), container, notices));
            }
            shim => {
                let seen = exit.or_else(|| shim.as_ref().and_then(|(_, _, s)| s.exit.clone()));
                let container = Container::new(record.clone());
                self.containers.insert(Arc::clone(&container));
                let ran = record.state.is_running();
                if ran || seen.is_some() {
                    if seen.is_none() {
                        self.kill_cgroup(&record).await;
                    }
                    let code = UNSEEN;
                    let status = seen.unwrap_or(ExitStatus {
                        code,
                        oom_killed: false,
                        finished_at_ns: now_ns(),
                    });
                    container.set_shim(shim.map(|(shim, _, _)| shim));
                    if let Err(error) = self.ended(&container, status).await {
                        tracing::error!(error = %error.chain(), id = record.id, "cannot record an exit");
                    }
                } else {
                    self.settle(&container, record, groups).await;
                }
            }
        }
    }

    /// A container that did not run: leftovers of a start that was cut short go; what was about
    /// to be restarted or always runs is started.
    async fn settle(
        self: &Arc<Self>,
        container: &Arc<Container>,
        mut record: ContainerRecord,
        groups: &HashSet<String>,
    ) {
        if groups.contains(&record.id) || !record.spec.cgroup_parent.is_empty() {
            self.kill_cgroup(&record).await;
        }
        let _ = fs::remove_dir_all(self.settings.sandbox_dir(&record.id));
        if record.spec.auto_remove && record.state == ContainerState::Exited {
            let _op = container.op.lock().await;
            if let Err(error) = self.remove_locked(container, true).await {
                tracing::error!(error = %error.chain(), id = record.id, "cannot remove");
            }
            return;
        }
        let wanted = match record.spec.restart {
            RestartPolicy::Always => record.started_at_ns > 0,
            RestartPolicy::UnlessStopped => record.started_at_ns > 0 && !record.stopped_by_user,
            RestartPolicy::OnFailure { .. } | RestartPolicy::No => {
                record.state == ContainerState::Restarting
            }
        };
        if wanted {
            record.state = ContainerState::Restarting;
            container.set(record);
            self.restart_later(container, Duration::ZERO);
        }
    }

    /// Removes sandboxes, control groups, folders and layers that belong to no record. Gives the
    /// names of the control groups that belong to one.
    async fn sweep(self: &Arc<Self>, known: &HashSet<String>) -> HashSet<String> {
        for name in names(&self.settings.run_dir.join("s")) {
            if !known.iter().any(|id| id.starts_with(&name)) {
                let dir = self.settings.run_dir.join("s").join(&name);
                if let Some((shim, _, status)) = ask(&dir, PATIENCE_WITH_MACHINES).await {
                    tracing::warn!(
                        name,
                        pid = status.pid,
                        "a sandbox without a record is stopped"
                    );
                    let _ = shim.call(Request::KillAll, &[]).await;
                    let _ = shim.call(Request::Forget, &[]).await;
                }
                let _ = fs::remove_dir_all(&dir);
            }
        }
        let parent = self.settings.cgroup_parent.clone();
        let (kept, strays): (HashSet<String>, HashSet<String>) =
            crate::system::cgroup::children(&parent)
                .into_iter()
                .partition(|name| known.contains(name));
        let outcome = tokio::task::spawn_blocking(move || {
            for group in strays {
                let path = format!("/{}/{group}", parent.trim_matches('/'));
                if let Err(error) = crate::system::cgroup::kill_and_remove(&path) {
                    tracing::error!(error = %error.chain(), path, "cannot sweep a control group");
                }
            }
        });
        if let Err(error) = outcome.await {
            tracing::error!(%error, "sweeping control groups was interrupted");
        }
        for name in names(&self.settings.data_dir.join("container")) {
            if !known.contains(&name) {
                let _ = fs::remove_dir_all(self.settings.container_dir(&name));
            }
        }
        // Moved out of sight before the first request: later ones make layers of their own.
        if let Err(error) = self.sweep_layers(known) {
            tracing::error!(%error, "cannot sweep writable layers");
        }
        self.janitor.delete(Vec::new());
        kept
    }

    fn sweep_layers(&self, known: &HashSet<String>) -> Result<(), hull_snapshot::SnapshotError> {
        let list = self.snapshots.list()?;
        list.iter()
            .filter(|id| !known.contains(*id))
            .try_for_each(|id| self.snapshots.remove(id))
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}
