//! Stopping, killing, freezing: signals and the freezer.

use std::sync::Arc;
use std::time::Duration;

use hull_model::{Error, ErrorKind, Result};
use hull_proto::Request;
use hull_state::{ContainerRecord, ContainerState};

use super::attributes;
use super::create::signal_number;
use super::entry::{Container, lock};
use crate::Engine;
use crate::shim::Shim;

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const STOP_TIMEOUT: i64 = 10;
/// How long a kill may take to be reported before the control group is killed by ourselves.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks a container to stop and kills it after `timeout` seconds (negative: never).
    ///
    /// # Errors
    /// `NotModified` if it does not run.
    pub async fn stop(
        self: &Arc<Self>,
        key: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<()> {
        let container = self.containers.find(key)?;
        self.stop_container(&container, timeout, signal).await
    }

    pub(crate) async fn stop_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<()> {
        let number = match signal {
            Some(text) => Some(parse_signal(text)?),
            None => None,
        };
        let record = {
            let _op = container.op.lock().await;
            let mut record = container.record();
            let was = record.stopped_by_user;
            record.stopped_by_user = true;
            if record.state == ContainerState::Restarting {
                if let Some(timer) = lock(&container.restart).take() {
                    timer.abort();
                }
                record.state = ContainerState::Exited;
                container.runs.send_modify(|r| {
                    r.running = false;
                    r.ended += 1;
                });
            } else if !record.state.is_running() {
                return Err(Error::new(
                    ErrorKind::NotModified,
                    "container is already stopped",
                ));
            }
            if record.stopped_by_user != was || record.state == ContainerState::Exited {
                container.set(record.clone());
                self.store_soon(&record)?;
            }
            record
        };
        if !record.state.is_running() {
            return Ok(());
        }
        let Some(shim) = container.shim() else {
            return Ok(());
        };
        let mut runs = container.runs.subscribe();
        let ended = runs.borrow_and_update().ended;
        let signal = number.unwrap_or_else(|| stop_signal(&record));
        let timeout = timeout.or(record.spec.stop_timeout).unwrap_or(STOP_TIMEOUT);
        send(&shim, signal).await?;
        // A frozen process cannot act on a signal.
        if let ContainerState::Paused { .. } = record.state {
            shim.call(Request::Resume, &[]).await?;
        }
        let over = async { runs.wait_for(|r| r.ended > ended).await.map(drop) };
        if timeout < 0 {
            let _ = over.await;
        } else if tokio::time::timeout(Duration::from_secs(timeout.unsigned_abs()), over)
            .await
            .is_err()
        {
            self.kill_hard(container, &shim, ended).await?;
        }
        self.events
            .emit("container", "stop", &container.id, attributes(&record));
        Ok(())
    }

    /// SIGKILL to everything, then by our own hand if nobody reports the end.
    pub(crate) async fn kill_hard(
        self: &Arc<Self>,
        container: &Arc<Container>,
        shim: &Arc<Shim>,
        ended: u64,
    ) -> Result<()> {
        if let Err(error) = shim.call(Request::KillAll, &[]).await {
            tracing::warn!(error = %error.chain(), container = %container.id, "the shim cannot kill: doing so directly");
        }
        let mut runs = container.runs.subscribe();
        let over = runs.wait_for(|r| r.ended > ended);
        if tokio::time::timeout(KILL_PATIENCE, over).await.is_ok() {
            return Ok(());
        }
        self.kill_cgroup(&container.record()).await;
        let mut runs = container.runs.subscribe();
        match tokio::time::timeout(KILL_PATIENCE, runs.wait_for(|r| r.ended > ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "the container does not die: a process of it is stuck in the kernel (see its state in `ps -o stat,wchan`)",
            )),
        }
    }

    /// Stops if it runs, then starts.
    ///
    /// # Errors
    /// As stop and start.
    pub async fn restart(
        self: &Arc<Self>,
        key: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<()> {
        let container = self.containers.find(key)?;
        // A container that is removed by its exit cannot come again: keep it through the stop.
        let auto_remove = container.with(|r| r.spec.auto_remove);
        if auto_remove {
            container.change(|r| r.spec.auto_remove = false);
        }
        let stopped = self.stop_container(&container, timeout, signal).await;
        if auto_remove {
            container.change(|r| r.spec.auto_remove = true);
        }
        match stopped {
            Err(error) if error.kind() != ErrorKind::NotModified => return Err(error),
            _ => {}
        }
        self.start(&container.id).await?;
        self.events.emit(
            "container",
            "restart",
            &container.id,
            attributes(&container.record()),
        );
        Ok(())
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub async fn kill(self: &Arc<Self>, key: &str, signal: &str) -> Result<()> {
        let number = parse_signal(if signal.is_empty() { "KILL" } else { signal })?;
        let container = self.containers.find(key)?;
        let record = container.record();
        let shim = match (record.state.is_running(), container.shim()) {
            (true, Some(shim)) => shim,
            _ => {
                return Err(Error::conflict(format!(
                    "cannot kill container: {key}: container {} is not running",
                    record.id
                )));
            }
        };
        const SIGKILL: i32 = 9;
        if number == SIGKILL || number == stop_signal(&record) {
            container.change(|r| r.stopped_by_user = true);
        }
        if number == SIGKILL
            && let ContainerState::Paused { .. } = record.state
        {
            shim.call(Request::KillAll, &[]).await?;
            shim.call(Request::Resume, &[])
                .await
                .map(drop)
                .or_else(ignore_gone)?;
        }
        send(&shim, number).await?;
        let mut facts = attributes(&record);
        facts.insert("signal".into(), number.to_string());
        self.events.emit("container", "kill", &container.id, facts);
        if number == SIGKILL {
            let mut runs = container.runs.subscribe();
            let ended = container.runs.borrow().ended;
            let still = container.with(|r| r.state.is_running());
            if still {
                let _ = tokio::time::timeout(
                    KILL_PATIENCE,
                    runs.wait_for(|r| r.ended > ended || !r.running),
                )
                .await;
            }
        }
        Ok(())
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// `Conflict` if it does not run or is frozen already.
    pub async fn pause(self: &Arc<Self>, key: &str) -> Result<()> {
        self.freeze(key, true).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// `Conflict` if it is not frozen.
    pub async fn unpause(self: &Arc<Self>, key: &str) -> Result<()> {
        self.freeze(key, false).await
    }

    async fn freeze(self: &Arc<Self>, key: &str, on: bool) -> Result<()> {
        let container = self.containers.find(key)?;
        let _op = container.op.lock().await;
        let mut record = container.record();
        let id = &record.id;
        let (request, state, action) = match (record.state, on) {
            (ContainerState::Running { pid }, true) => {
                (Request::Pause, ContainerState::Paused { pid }, "pause")
            }
            (ContainerState::Paused { pid }, false) => {
                (Request::Resume, ContainerState::Running { pid }, "unpause")
            }
            (ContainerState::Paused { .. }, true) => {
                return Err(Error::conflict(format!("container {id} is already paused")));
            }
            (ContainerState::Running { .. }, false) => {
                return Err(Error::conflict(format!("Container {id} is not paused")));
            }
            _ => return Err(Error::conflict(format!("Container {id} is not running"))),
        };
        let shim = container
            .shim()
            .ok_or_else(|| Error::conflict(format!("Container {id} is not running")))?;
        shim.call(request, &[]).await?;
        record.state = state;
        container.set(record.clone());
        self.store_soon(&record)?;
        self.events
            .emit("container", action, &container.id, attributes(&record));
        Ok(())
    }

    /// Kills what is left in a container's control group.
    pub(crate) async fn kill_cgroup(&self, record: &ContainerRecord) {
        let path = super::plan::cgroup_path(record, &self.settings.cgroup_parent);
        let outcome =
            tokio::task::spawn_blocking(move || crate::system::cgroup::kill_and_remove(&path))
                .await;
        if let Ok(Err(error)) = outcome {
            tracing::error!(error = %error.chain(), container = %record.id, "cannot clear its control group");
        }
    }
}

fn ignore_gone(error: Error) -> Result<()> {
    if error.kind() == ErrorKind::Unavailable {
        Ok(())
    } else {
        Err(error)
    }
}

async fn send(shim: &Arc<Shim>, signal: i32) -> Result<()> {
    shim.call(Request::Signal { signal, exec: None }, &[])
        .await
        .map(drop)
        .or_else(ignore_gone)
}

fn parse_signal(text: &str) -> Result<i32> {
    signal_number(text).ok_or_else(|| Error::invalid(format!("Invalid signal: {text}")))
}

fn stop_signal(record: &ContainerRecord) -> i32 {
    const SIGTERM: i32 = 15;
    signal_number(&record.spec.stop_signal).unwrap_or(SIGTERM)
}
