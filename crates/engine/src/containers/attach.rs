//! Attaching to the streams of a container, resizing its terminal, waiting for its end.

use std::future::Future;
use std::os::fd::AsFd;
use std::sync::Arc;

use hull_model::spec::Attach as Streams;
use hull_model::{Error, Result};
use hull_proto::Request;
use hull_proto::message::Attach;
use hull_state::ContainerState;
use tokio::net::UnixStream;

use super::attributes;
use super::entry::{PendingAttach, Runs, lock};
use crate::Engine;
use crate::shim::stream_pair;

/// A client's stream: bytes as Docker's clients read them, see `hull_proto::message`.
#[derive(Debug)]
pub struct AttachStream {
    /// The socket.
    pub socket: UnixStream,
    /// Raw terminal bytes, else frames.
    pub tty: bool,
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// It does not run; at once if so.
    #[default]
    NotRunning,
    /// The next exit.
    NextExit,
    /// It was removed.
    Removed,
}

/// How a wait ended.
#[derive(Debug, Clone, Default)]
pub struct WaitResult {
    /// Exit code.
    pub code: i32,
    /// Why it could not be started.
    pub error: Option<String>,
}

/// Most clients that may attach before a start.
const MAX_WAITING: usize = 64;

impl Engine {
    /// Joins the streams of a container; before its start, the streams begin with it.
    ///
    /// # Errors
    /// `Conflict` if it has ended or is frozen.
    pub async fn attach(&self, key: &str, streams: Streams) -> Result<AttachStream> {
        let container = self.containers.find(key)?;
        let record = container.record();
        let (theirs, ours) = stream_pair()?;
        match record.state {
            ContainerState::Created | ContainerState::Exited | ContainerState::Restarting => {
                let mut waiting = lock(&container.waiting);
                if waiting.len() >= MAX_WAITING {
                    return Err(Error::conflict(format!(
                        "{MAX_WAITING} clients wait for {} already",
                        record.name
                    )));
                }
                waiting.push(PendingAttach {
                    socket: theirs,
                    streams,
                });
            }
            ContainerState::Paused { .. } => {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    record.id
                )));
            }
            ContainerState::Running { .. } => {
                let shim = container.shim().ok_or_else(|| {
                    Error::conflict(format!("container {} is stopping", record.id))
                })?;
                let attach = Attach {
                    fd: 0,
                    stdin: streams.stdin,
                    stdout: streams.stdout,
                    stderr: streams.stderr,
                };
                shim.call(Request::Attach(attach), &[theirs.as_fd()])
                    .await?;
            }
            ContainerState::Removing | ContainerState::Dead => {
                return Err(Error::conflict(format!(
                    "container {} is marked for removal",
                    record.id
                )));
            }
        }
        self.events
            .emit("container", "attach", &container.id, attributes(&record));
        Ok(AttachStream {
            socket: ours,
            tty: record.spec.tty,
        })
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub async fn resize(&self, key: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.containers.find(key)?;
        let shim = container.shim().ok_or_else(|| {
            Error::conflict(format!(
                "cannot resize a stopped container: {}",
                container.id
            ))
        })?;
        shim.call(
            Request::Resize {
                exec: None,
                rows,
                cols,
            },
            &[],
        )
        .await
        .map(drop)
    }

    /// Registers at once, then waits. The condition is seen even if it comes true before the
    /// future is polled.
    ///
    /// # Errors
    /// `NotFound` for the container.
    pub fn wait(
        self: &Arc<Self>,
        key: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<WaitResult>> + Send + use<>> {
        let container = self.containers.find(key)?;
        let mut runs = container.runs.subscribe();
        let first = runs.borrow().clone();
        Ok(async move {
            let over = |r: &Runs| match condition {
                WaitCondition::NotRunning => !r.running || r.removed,
                WaitCondition::NextExit => r.ended > first.ended || r.removed,
                WaitCondition::Removed => r.removed,
            };
            // The sender lives in the container, which this future keeps alive.
            let _keep = &container;
            match runs.wait_for(over).await {
                Ok(r) => Ok(WaitResult {
                    code: r.code,
                    error: (!r.error.is_empty()).then(|| r.error.clone()),
                }),
                Err(_) => Err(Error::internal(
                    "the daemon stops",
                    std::io::Error::other("interrupted"),
                )),
            }
        })
    }
}
