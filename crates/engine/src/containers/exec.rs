//! Further processes in a running container.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use hull_model::{Error, Result};
use hull_proto::message::Attach;
use hull_proto::plan::{PlanUser, SeccompPlan};
use hull_proto::{ExecLaunch, Reply, Request};
use hull_state::ContainerState;
use tokio::sync::watch;

use super::attach::AttachStream;
use super::entry::lock;
use super::{attributes, caps, plan};
use crate::Engine;
use crate::random;
use crate::shim::stream_pair;
use crate::system::descriptors;

/// Ended sessions kept for `exec inspect`.
const KEPT: usize = 256;
/// Sessions of one container.
const MAX_SESSIONS: usize = 4096;

/// A wish to run a process.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// User; empty is the container's.
    pub user: String,
    /// Folder; empty is the container's.
    pub working_dir: String,
    /// With a terminal.
    pub tty: bool,
    /// Streams.
    pub attach_stdin: bool,
    /// Streams.
    pub attach_stdout: bool,
    /// Streams.
    pub attach_stderr: bool,
    /// Every capability, no filter.
    pub privileged: bool,
    /// For inspect.
    pub detach_keys: String,
}

/// A session.
#[derive(Debug, Clone)]
pub struct ExecRecord {
    /// Its id.
    pub id: String,
    /// Container.
    pub container: String,
    /// The wish.
    pub spec: ExecSpec,
    /// It runs.
    pub running: bool,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Its process, as the host sees it.
    pub pid: u32,
}

/// How to start a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    /// Do not attach.
    pub detach: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Execs(Mutex<HashMap<String, Session>>);

#[derive(Debug)]
struct Session {
    record: ExecRecord,
    order: u64,
    ended: watch::Sender<Option<i32>>,
}

impl Engine {
    /// Records a session. Nothing runs yet.
    ///
    /// # Errors
    /// `Conflict` if the container does not run or is frozen.
    pub fn exec_create(&self, key: &str, spec: ExecSpec) -> Result<String> {
        let container = self.containers.find(key)?;
        match container.with(|r| r.state) {
            ContainerState::Running { .. } => {}
            ContainerState::Paused { .. } => {
                return Err(Error::conflict(format!(
                    "Container {} is paused, unpause the container before exec",
                    container.id
                )));
            }
            _ => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    container.id
                )));
            }
        }
        if spec.cmd.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        let text = spec
            .cmd
            .iter()
            .chain(&spec.env)
            .chain([&spec.user, &spec.working_dir]);
        if text.into_iter().any(|t| t.contains('\0')) {
            return Err(Error::invalid(
                "a NUL byte is in the command, environment, user or working directory",
            ));
        }
        let id = random::id();
        let line = spec.cmd.join(" ");
        let record = ExecRecord {
            id: id.clone(),
            container: container.id.clone(),
            spec,
            running: false,
            exit_code: None,
            pid: 0,
        };
        let mut execs = lock(&self.execs.0);
        if execs
            .values()
            .filter(|s| s.record.container == container.id)
            .count()
            >= MAX_SESSIONS
        {
            return Err(Error::conflict(format!(
                "container {} has {MAX_SESSIONS} exec sessions",
                container.id
            )));
        }
        let order = execs.values().map(|s| s.order).max().unwrap_or(0) + 1;
        if execs.len() >= KEPT {
            let oldest = execs
                .values()
                .filter(|s| s.record.exit_code.is_some())
                .min_by_key(|s| s.order);
            if let Some(id) = oldest.map(|s| s.record.id.clone()) {
                execs.remove(&id);
            }
        }
        execs.insert(
            id.clone(),
            Session {
                record,
                order,
                ended: watch::Sender::new(None),
            },
        );
        drop(execs);
        self.events.emit(
            "container",
            format!("exec_create: {line}"),
            &container.id,
            attributes(&container.record()),
        );
        Ok(id)
    }

    /// Starts a session; gives its stream unless detached.
    ///
    /// # Errors
    /// `CommandNotFound`, `CommandNotExecutable`; `Conflict` if it ran already.
    pub async fn exec_start(
        self: &Arc<Self>,
        id: &str,
        start: ExecStart,
    ) -> Result<Option<AttachStream>> {
        let session = {
            let mut execs = lock(&self.execs.0);
            let session = execs.get_mut(id).ok_or_else(|| no_session(id))?;
            if session.record.running || session.record.exit_code.is_some() {
                return Err(Error::conflict(format!(
                    "Error: Exec command {id} is already running"
                )));
            }
            session.record.running = true;
            session.record.clone()
        };
        let outcome = self.exec_run(&session, start).await;
        if let Err(error) = &outcome {
            let code = match error.kind() {
                hull_model::ErrorKind::CommandNotFound => 127,
                _ => 126,
            };
            self.exec_ended(id, code);
        }
        outcome
    }

    async fn exec_run(
        self: &Arc<Self>,
        session: &ExecRecord,
        start: ExecStart,
    ) -> Result<Option<AttachStream>> {
        let spec = &session.spec;
        let container = self.containers.find(&session.container)?;
        let record = container.record();
        let shim = match (record.state, container.shim()) {
            (ContainerState::Running { .. }, Some(shim)) => shim,
            _ => {
                return Err(Error::conflict(format!(
                    "container {} is not running",
                    record.id
                )));
            }
        };
        let mut process = plan::base_process(&record.spec)?;
        process.args.clone_from(&spec.cmd);
        process.env = plan::environment(&record);
        // Whom it links to may have ended since; then it learns nothing of it, as it has of old.
        self.add_link_environment(&record, &mut process.env).ok();
        if spec.tty && !record.spec.tty {
            plan::set_env(&mut process.env, "TERM=xterm");
        }
        for entry in &spec.env {
            plan::set_env(&mut process.env, entry);
        }
        if !spec.user.is_empty() {
            process.user = PlanUser::Name(spec.user.clone());
        }
        if !spec.working_dir.is_empty() {
            process.cwd.clone_from(&spec.working_dir);
        }
        descriptors::inherit(&mut process.rlimits, self.nofile.as_ref());
        process.tty = spec.tty;
        process.console_size = start.console_size;
        process.oom_score_adj = record.spec.oom_score_adj;
        process.seccomp = plan::seccomp(&record.spec);
        if spec.privileged {
            process.capabilities = caps::all();
            process.seccomp = SeccompPlan::Unconfined;
        }
        let (attach, theirs, ours) = if start.detach {
            (None, None, None)
        } else {
            let (theirs, ours) = stream_pair()?;
            let attach = Attach {
                fd: 0,
                stdin: spec.attach_stdin,
                stdout: spec.attach_stdout,
                stderr: spec.attach_stderr,
            };
            (Some(attach), Some(theirs), Some(ours))
        };
        let launch = ExecLaunch {
            id: session.id.clone(),
            process,
            attach,
            privileged: spec.privileged,
            seccomp_cache: self.settings.run_dir.join("seccomp"),
        };
        let fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();
        self.events.emit(
            "container",
            format!("exec_start: {}", spec.cmd.join(" ")),
            &record.id,
            attributes(&record),
        );
        let reply = shim.call(Request::Exec(Box::new(launch)), &fds).await?;
        if let Reply::Started { pid, .. } = reply
            && let Some(session) = lock(&self.execs.0).get_mut(&session.id)
        {
            session.record.pid = pid;
        }
        Ok(ours.map(|socket| AttachStream {
            socket,
            tty: spec.tty,
        }))
    }

    /// A session as it is.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecRecord> {
        lock(&self.execs.0)
            .get(id)
            .map(|s| s.record.clone())
            .ok_or_else(|| no_session(id))
    }

    /// Ids of a container's sessions that run.
    pub fn execs_of(&self, container: &str) -> Vec<String> {
        let execs = lock(&self.execs.0);
        execs
            .values()
            .filter(|s| s.record.container == container && s.record.running)
            .map(|s| s.record.id.clone())
            .collect()
    }

    /// Waits for the end of a session.
    pub async fn exec_wait(&self, id: &str) -> Option<i32> {
        let mut ended = lock(&self.execs.0).get(id)?.ended.subscribe();
        let code = ended.wait_for(Option::is_some).await.ok()?;
        *code
    }

    /// Sets the size of a session's terminal.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it does not run.
    pub async fn exec_resize(&self, id: &str, rows: u16, cols: u16) -> Result<()> {
        let record = self.exec_inspect(id)?;
        let shim = self.containers.find(&record.container)?.shim();
        let shim = shim
            .filter(|_| record.running)
            .ok_or_else(|| Error::conflict("cannot resize a stopped exec session"))?;
        shim.call(
            Request::Resize {
                exec: Some(id.to_owned()),
                rows,
                cols,
            },
            &[],
        )
        .await
        .map(drop)
    }

    /// Signals a session.
    pub(crate) async fn exec_kill(&self, id: &str, signal: i32) -> Result<()> {
        let record = self.exec_inspect(id)?;
        match self.containers.find(&record.container)?.shim() {
            Some(shim) => shim
                .call(
                    Request::Signal {
                        signal,
                        exec: Some(id.to_owned()),
                    },
                    &[],
                )
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    pub(crate) fn exec_ended(&self, id: &str, code: i32) {
        let container = {
            let mut execs = lock(&self.execs.0);
            let Some(session) = execs.get_mut(id) else {
                return;
            };
            session.record.running = false;
            session.record.exit_code = Some(code);
            session.ended.send_replace(Some(code));
            session.record.container.clone()
        };
        if let Ok(container) = self.containers.find(&container) {
            let mut facts = attributes(&container.record());
            facts.insert("execID".into(), id.to_owned());
            facts.insert("exitCode".into(), code.to_string());
            self.events
                .emit("container", "exec_die", &container.id, facts);
        }
    }

    /// The container ended: so did its sessions.
    pub(crate) fn execs_of_ended(&self, container: &str) {
        const KILLED: i32 = 137;
        for id in self.execs_of(container) {
            self.exec_ended(&id, KILLED);
        }
    }

    /// The container is gone: so are its sessions.
    pub(crate) fn execs_of_removed(&self, container: &str) {
        lock(&self.execs.0).retain(|_, s| s.record.container != container);
    }

    /// A session found running in a shim by a daemon that did not start it.
    pub(crate) fn exec_adopt(&self, container: &str, id: &str, pid: u32) {
        let record = ExecRecord {
            id: id.to_owned(),
            container: container.to_owned(),
            spec: ExecSpec::default(),
            running: true,
            exit_code: None,
            pid,
        };
        lock(&self.execs.0).insert(
            id.to_owned(),
            Session {
                record,
                order: 0,
                ended: watch::Sender::new(None),
            },
        );
    }
}

fn no_session(id: &str) -> Error {
    Error::not_found(format!("No such exec instance: {id}"))
}
