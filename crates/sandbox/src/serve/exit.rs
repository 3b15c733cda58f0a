//! The end of processes, and of the sandbox with its first one.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use hull_proto::message::{EXIT_FILE, Event, ExitStatus};

use super::session::Session;
use super::{FIRST, FORGET_LIMIT, Server, State};
use crate::contract::Sandbox;

impl<S: Sandbox> Server<S> {
    /// Takes the processes that ended.
    pub(super) fn reap(&mut self) {
        while let Some((pid, code)) = self.sandbox.ended() {
            let found = self
                .sessions
                .iter()
                .find(|(_, session)| session.is_running() && session.pid == pid)
                .map(|(key, _)| *key);
            // Others were re-parented to us and need no more than being reaped.
            let Some(key) = found else { continue };
            if key == FIRST && self.sandbox.outlives_first() {
                self.kill_everything();
            }
            if let Some((session, mut io)) = self.session_io(key) {
                let trouble = session.end(code, &mut io);
                self.log_trouble(trouble);
            }
        }
    }

    /// Kills all processes; frozen ones are thawed so that they can die.
    pub(super) fn kill_everything(&mut self) {
        if let Err(failure) = self.sandbox.kill_all() {
            (self.setup.report)(&failure.message);
        }
        self.thaw();
    }

    pub(super) fn thaw(&mut self) {
        if let State::Running { paused, .. } = &mut self.state
            && *paused
        {
            match self.sandbox.resume() {
                Ok(()) => *paused = false,
                Err(failure) => (self.setup.report)(&failure.message),
            }
        }
    }

    /// Announces those whose output is complete. The first process comes last.
    pub(super) fn finish_sessions(&mut self) {
        let keys: Vec<u64> = self.sessions.keys().rev().copied().collect();
        for key in keys {
            let execs_run = self
                .sessions
                .iter()
                .any(|(key, session)| *key != FIRST && session.is_running());
            if key == FIRST && execs_run && !self.sandbox.outlives_first() {
                // The kernel lets no init end before its namespace is empty: they are next.
                self.reap();
            }
            let Some((session, mut io)) = self.session_io(key) else {
                continue;
            };
            if let Some((code, at_ns, trouble)) = session.take_drained(&mut io) {
                let exec = session.exec.clone();
                self.log_trouble(trouble);
                match exec {
                    Some(id) => self.announce(&Event::ExecExited { id, code }),
                    None => self.first_ended(code, at_ns),
                }
            }
            if self.sessions.get(&key).is_some_and(Session::is_closed) {
                self.sessions.remove(&key);
            }
        }
    }

    /// The first process is gone and its output is logged: records it, tells it, cleans up.
    fn first_ended(&mut self, code: i32, finished_at_ns: u64) {
        self.check_oom();
        let status = ExitStatus {
            code,
            oom_killed: self.oom_kills > 0,
            finished_at_ns,
        };
        if let Err(error) = record(&self.setup.dir, &status) {
            (self.setup.report)(&format!(
                "cannot record the exit in {}: {error}",
                self.setup.dir.display()
            ));
        }
        self.announce(&Event::Exited(status.clone()));
        self.oom = None;
        // Exec sessions cannot outlive the sandbox.
        let left: Vec<u64> = self
            .sessions
            .keys()
            .copied()
            .filter(|key| *key != FIRST)
            .collect();
        if let Err(failure) = self.sandbox.delete() {
            (self.setup.report)(&failure.message);
        }
        self.reap();
        for key in left {
            if let Some((session, mut io)) = self.session_io(key)
                && session.is_running()
            {
                session.end(128 + libc_sigkill(), &mut io);
            }
        }
        self.state = State::Exited {
            status: Some(status),
            until: Instant::now() + FORGET_LIMIT,
        };
    }
}

fn libc_sigkill() -> i32 {
    rustix::process::Signal::KILL.as_raw()
}

/// Writes the exit record so that a reader sees all of it or nothing.
fn record(dir: &Path, status: &ExitStatus) -> std::io::Result<()> {
    let (path, fresh) = (dir.join(EXIT_FILE), dir.join(format!("{EXIT_FILE}.new")));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec(status)?)?;
    drop(file);
    std::fs::rename(fresh, path)
}
