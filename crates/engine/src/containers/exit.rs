//! The end of a run: it is recorded, its network is freed, and its policy decides what follows.

use std::sync::Arc;
use std::time::Duration;

use hull_model::Result;
use hull_model::spec::RestartPolicy;
use hull_proto::message::EXIT_FILE;
use hull_proto::{Event, ExitStatus, Request};
use hull_state::{ContainerRecord, ContainerState};
use tokio::sync::mpsc;

use super::attributes;
use super::entry::{Container, lock};
use crate::Engine;
use crate::clock::now_ns;
use crate::shim::Notice;

/// First pause before a restart by policy; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// Longest pause.
const LAST_DELAY: Duration = Duration::from_secs(60);
/// A run this long counts as a success and resets the pause.
const STEADY: Duration = Duration::from_secs(10);
/// Exit code of a container whose shim was killed: the payload got SIGKILL.
const KILLED: i32 = 137;

/// Hears a shim until its container ended.
pub(crate) async fn monitor(
    engine: Arc<Engine>,
    container: Arc<Container>,
    mut notices: mpsc::UnboundedReceiver<Notice>,
) {
    let mut ended = None;
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Event(Event::Exited(status)) => {
                ended = Some(status);
                break;
            }
            Notice::Event(Event::ExecExited { id, code }) => engine.exec_ended(&id, code),
            Notice::Event(Event::Oom) => {
                let record = container.record();
                engine
                    .events
                    .emit("container", "oom", &container.id, attributes(&record));
            }
            Notice::Event(Event::Warning(text)) => {
                tracing::warn!(container = %container.id, "{text}")
            }
            Notice::Closed => break,
        }
    }
    let status = match ended.or_else(|| read_exit(&engine, &container.id)) {
        Some(status) => status,
        None => {
            tracing::warn!(container = %container.id, "its shim died: the container is stopped");
            engine.kill_cgroup(&container.record()).await;
            ExitStatus {
                code: KILLED,
                oom_killed: false,
                finished_at_ns: now_ns(),
            }
        }
    };
    if let Err(error) = engine.ended(&container, status).await {
        tracing::error!(error = %error.chain(), container = %container.id, "cannot record an exit");
    }
}

/// The exit record that a shim left.
pub(crate) fn read_exit(engine: &Engine, id: &str) -> Option<ExitStatus> {
    let bytes = std::fs::read(engine.settings.sandbox_dir(id).join(EXIT_FILE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

impl Engine {
    /// Records the end of a run and acts on it.
    pub(crate) async fn ended(
        self: &Arc<Self>,
        container: &Arc<Container>,
        status: ExitStatus,
    ) -> Result<()> {
        let _op = container.op.lock().await;
        let mut record = container.record();
        if let Some(task) = lock(&container.health).take() {
            task.abort();
        }
        let was = record.clone();
        self.release_egress(&record);
        if let Some(endpoint) = record.endpoint.take() {
            self.free_endpoint(&endpoint);
        }
        self.free_places(&std::mem::take(&mut record.places));
        record.state = ContainerState::Exited;
        record.exit_code = status.code;
        record.oom_killed = status.oom_killed;
        record.finished_at_ns = status.finished_at_ns;
        let again = self.restart_delay(&record);
        if again.is_some() {
            record.state = ContainerState::Restarting;
            record.restart_count += 1;
        }
        container.set(record.clone());
        // What is to vanish needs no record of its end: a kill before the removal finds exit.json.
        let removal = record.spec.auto_remove && again.is_none();
        let recorded = removal || self.record_end(&record);
        // Whoever waits for the removal reads the code, too: it is known before.
        container.runs.send_if_modified(|r| {
            r.code = status.code;
            false
        });
        if let Some(shim) = container.shim() {
            container.set_shim(None);
            // The exit is on record: the shim need not wait for us any longer.
            tokio::spawn(async move { shim.call(Request::Forget, &[]).await });
        }
        self.execs_of_ended(&container.id);
        let mut facts = attributes(&record);
        facts.insert("exitCode".into(), status.code.to_string());
        facts.insert(
            "execDuration".into(),
            (status.finished_at_ns.saturating_sub(record.started_at_ns) / 1_000_000_000)
                .to_string(),
        );
        self.events.emit("container", "die", &container.id, facts);
        self.tell_left(&was);
        let removed = if removal {
            self.remove_locked(container, true).await
        } else {
            Ok(())
        };
        if !removal && recorded {
            let dir = self.settings.sandbox_dir(&container.id);
            let _ = std::fs::remove_dir_all(dir);
        }
        container.runs.send_modify(|r| {
            r.ended += 1;
            r.running = again.is_some();
            r.code = status.code;
        });
        if let Some(delay) = again {
            self.restart_later(container, delay);
        }
        removed
    }

    /// Writes the end down. Where the disk has no room it is announced all the same: exit.json
    /// stays and tells the next daemon.
    fn record_end(&self, record: &ContainerRecord) -> bool {
        match self.store_soon(record) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(error = %error.chain(), container = %record.id, "its end is not on record yet");
                false
            }
        }
    }

    /// Whether and when the policy wants it again.
    fn restart_delay(&self, record: &ContainerRecord) -> Option<Duration> {
        let wanted = match record.spec.restart {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { max } => {
                record.exit_code != 0 && (max == 0 || record.restart_count < max)
            }
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        };
        if !wanted || record.stopped_by_user || self.stopping() {
            return None;
        }
        let ran = Duration::from_nanos(record.finished_at_ns.saturating_sub(record.started_at_ns));
        if ran >= STEADY {
            return Some(FIRST_DELAY);
        }
        Some(
            FIRST_DELAY
                .saturating_mul(1 << record.restart_count.min(10))
                .min(LAST_DELAY),
        )
    }

    pub(crate) fn restart_later(self: &Arc<Self>, container: &Arc<Container>, delay: Duration) {
        let (engine, restarted) = (Arc::clone(self), Arc::clone(container));
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _op = restarted.op.lock().await;
            lock(&restarted.restart).take();
            let record = restarted.record();
            if record.state == ContainerState::Restarting
                && let Err(error) = engine.run(&restarted, record).await
            {
                tracing::error!(error = %error.chain(), container = %restarted.id, "cannot restart");
            }
        });
        *lock(&container.restart) = Some(task.abort_handle());
    }
}
