//! What the daemon asks for, one method for each request.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use hull_model::ErrorKind;
use hull_proto::message::{Attach, Event, ExecLaunch, Launch, Status};
use hull_proto::{Failure, Reply, Request};
use rustix::event::epoll::EventFlags;

use super::session::{Manner, Session};
use super::{FIRST, FORGET_LIMIT, Server, State, wall_ns};
use crate::contract::{Sandbox, Stdio};
use crate::log::Log;

/// Clients of one process at once.
const MAX_CLIENTS: usize = 256;
/// Exec sessions at once.
const MAX_EXECS: usize = 1024;
const SIGKILL: i32 = 9;

type Answer = Result<Reply, Failure>;

fn conflict(message: impl Into<String>) -> Failure {
    Failure {
        kind: ErrorKind::Conflict,
        message: message.into(),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure {
        kind: ErrorKind::InvalidArgument,
        message: message.into(),
    }
}

impl<S: Sandbox> Server<S> {
    /// Does what was asked.
    pub(super) fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Reply {
        let answer = match request {
            Request::Launch(launch) => self.launch(*launch, fds),
            Request::Exec(exec) => self.exec(*exec, fds),
            Request::Signal { signal, exec } => self.signal(signal, exec.as_deref()),
            Request::KillAll => self.kill_all(),
            Request::Resize { exec, rows, cols } => self.resize(exec.as_deref(), rows, cols),
            Request::Attach(attach) => self.attach(attach, fds),
            Request::Pause => self.pause(),
            Request::Resume => self.resume(),
            Request::Update(resources) => self.running().and_then(|()| {
                for warning in self.sandbox.update(&resources)? {
                    self.announce(&Event::Warning(warning));
                }
                Ok(Reply::Done)
            }),
            Request::Stats => self.running().and_then(|()| {
                self.sandbox
                    .stats()
                    .map(|stats| Reply::Stats(Box::new(stats)))
            }),
            Request::Pids => self
                .running()
                .and_then(|()| self.sandbox.pids().map(Reply::Pids)),
            Request::Processes => self.running().and_then(|()| {
                self.sandbox
                    .processes()
                    .map(|processes| Reply::Processes(Box::new(processes)))
            }),
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Forget => self.forget(),
        };
        answer.unwrap_or_else(Reply::Failed)
    }

    fn running(&self) -> Result<(), Failure> {
        match self.state {
            State::Running { .. } => Ok(()),
            State::Waiting { .. } => Err(conflict("the sandbox was not launched yet")),
            State::Exited { .. } => Err(conflict("the sandbox is not running")),
        }
    }

    fn launch(&mut self, launch: Launch, fds: Vec<OwnedFd>) -> Answer {
        if !matches!(self.state, State::Waiting { .. }) {
            return Err(conflict("the sandbox was launched before"));
        }
        let result = self.try_launch(launch, fds);
        if result.is_err() {
            // A shim serves one launch: it ends once it has said why that failed.
            self.state = State::Exited {
                status: None,
                until: Instant::now() + FORGET_LIMIT,
            };
        }
        result
    }

    fn try_launch(&mut self, launch: Launch, fds: Vec<OwnedFd>) -> Answer {
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let mut sockets = Vec::new();
        for attach in &launch.attach {
            sockets.push((take_fd(&mut fds, attach.fd)?, *attach));
        }
        if sockets.len() > MAX_CLIENTS {
            return Err(invalid("too many clients are attached"));
        }
        // Indices of the plan stay what they are; where a socket was, nothing may point to.
        let fds = fill(fds)?;
        let log = match &launch.log {
            None => None,
            Some(wish) => Some(Log::open(wish).map_err(|error| Failure {
                kind: ErrorKind::Internal,
                message: format!("cannot open log {}: {error}", wish.path.display()),
            })?),
        };
        let stdio = Stdio::Connected {
            stdin: launch.open_stdin,
        };
        let mut process = self.sandbox.launch(&launch.plan, fds, stdio)?;
        self.started_at_ns = wall_ns();
        if let Some(fd) = self.sandbox.watch() {
            self.backend
                .set(&self.poller, fd, EventFlags::IN)
                .map_err(streams_failed)?;
        }
        let (pid, warnings) = (process.pid, std::mem::take(&mut process.warnings));
        let manner = Manner {
            exec: None,
            input: launch.open_stdin,
            close_input: launch.stdin_once,
            log,
        };
        let mut session = match Session::new(process, manner, &mut self.poller) {
            Ok(session) => session,
            Err(errno) => {
                let _ = self.sandbox.delete();
                return Err(streams_failed(errno));
            }
        };
        for (socket, attach) in sockets {
            session.attach(socket, attach, &mut self.poller);
        }
        self.sessions.insert(FIRST, session);
        self.state = State::Running { paused: false };
        Ok(Reply::Started { pid, warnings })
    }

    fn exec(&mut self, exec: ExecLaunch, fds: Vec<OwnedFd>) -> Answer {
        self.running()?;
        if self.is_paused() {
            return Err(conflict("the sandbox is paused, unpause it before exec"));
        }
        if self.sessions.len() > MAX_EXECS {
            return Err(Failure {
                kind: ErrorKind::Unavailable,
                message: format!("more than {MAX_EXECS} exec sessions run"),
            });
        }
        if self.find_exec(&exec.id).is_some() {
            return Err(conflict(format!("exec session {} runs already", exec.id)));
        }
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let client = match exec.attach {
            None => None,
            Some(attach) => Some((take_fd(&mut fds, attach.fd)?, attach)),
        };
        let stdio = match &client {
            None => Stdio::Null,
            Some((_, attach)) => Stdio::Connected {
                stdin: attach.stdin,
            },
        };
        let mut process = self.sandbox.exec(&exec, stdio)?;
        let (pid, warnings) = (process.pid, std::mem::take(&mut process.warnings));
        let input = client.as_ref().is_some_and(|(_, attach)| attach.stdin);
        let manner = Manner {
            exec: Some(exec.id),
            input,
            close_input: true,
            log: None,
        };
        let mut session = Session::new(process, manner, &mut self.poller).map_err(|errno| {
            let _ = self.sandbox.signal(pid, SIGKILL);
            streams_failed(errno)
        })?;
        if let Some((socket, attach)) = client {
            session.attach(socket, attach, &mut self.poller);
        }
        let key = self.next_session;
        self.next_session += 1;
        self.sessions.insert(key, session);
        Ok(Reply::Started { pid, warnings })
    }

    fn find_exec(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions
            .values_mut()
            .find(|session| session.exec.as_deref() == Some(id))
    }

    /// The session of an exec, or the first one, while its process runs.
    fn live_session(&mut self, exec: Option<&str>) -> Result<&mut Session, Failure> {
        self.running()?;
        let found = match exec {
            Some(id) => self.find_exec(id),
            None => self.sessions.get_mut(&FIRST),
        };
        found
            .filter(|session| session.is_running())
            .ok_or_else(|| match exec {
                Some(id) => Failure {
                    kind: ErrorKind::NotFound,
                    message: format!("no exec session {id} runs"),
                },
                None => conflict("the sandbox is not running"),
            })
    }

    /// A first process that ended a moment ago counts as reached: whoever sends a signal cannot
    /// know, and what he wanted of it will be seen from its exit.
    fn signal(&mut self, signal: i32, exec: Option<&str>) -> Answer {
        if exec.is_none() && self.has_ended() {
            return Ok(Reply::Done);
        }
        let pid = self.live_session(exec)?.pid;
        self.sandbox.signal(pid, signal)?;
        if signal == SIGKILL && exec.is_none() {
            self.thaw();
        }
        Ok(Reply::Done)
    }

    fn kill_all(&mut self) -> Answer {
        if !self.has_ended() {
            self.running()?;
            self.kill_everything();
        }
        Ok(Reply::Done)
    }

    /// Whether the first process ran and is gone.
    fn has_ended(&self) -> bool {
        match &self.state {
            State::Waiting { .. } => false,
            State::Running { .. } => self
                .sessions
                .get(&FIRST)
                .is_none_or(|first| !first.is_running()),
            State::Exited { status, .. } => status.is_some(),
        }
    }

    fn resize(&mut self, exec: Option<&str>, rows: u16, cols: u16) -> Answer {
        let pid = self.live_session(exec)?.pid;
        let terminal = self
            .sessions
            .values()
            .find(|session| session.is_running() && session.pid == pid)
            .and_then(|session| session.terminal.as_ref())
            .ok_or_else(|| conflict("the process has no terminal"))?;
        self.sandbox.resize(pid, terminal.as_fd(), rows, cols)?;
        Ok(Reply::Done)
    }

    fn attach(&mut self, attach: Attach, fds: Vec<OwnedFd>) -> Answer {
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let socket = take_fd(&mut fds, attach.fd)?;
        self.live_session(None)?;
        let session = self
            .sessions
            .get_mut(&FIRST)
            .ok_or_else(|| conflict("not running"))?;
        if session.clients() >= MAX_CLIENTS {
            return Err(Failure {
                kind: ErrorKind::Unavailable,
                message: format!("{MAX_CLIENTS} clients are attached already"),
            });
        }
        session.attach(socket, attach, &mut self.poller);
        Ok(Reply::Done)
    }

    fn is_paused(&self) -> bool {
        matches!(self.state, State::Running { paused: true, .. })
    }

    fn pause(&mut self) -> Answer {
        self.live_session(None)?;
        if self.is_paused() {
            return Err(conflict("the sandbox is already paused"));
        }
        self.sandbox.pause()?;
        if let State::Running { paused, .. } = &mut self.state {
            *paused = true;
        }
        Ok(Reply::Done)
    }

    /// What is not frozen goes on anyway: a kill thaws, and its sender may not know.
    fn resume(&mut self) -> Answer {
        if !self.has_ended() {
            self.running()?;
        }
        if self.is_paused() {
            self.sandbox.resume()?;
            if let State::Running { paused, .. } = &mut self.state {
                *paused = false;
            }
        }
        Ok(Reply::Done)
    }

    fn status(&self) -> Status {
        let (paused, exit) = match &self.state {
            State::Waiting { .. } => return Status::default(),
            State::Running { paused } => (*paused, None),
            State::Exited { status, .. } => (false, status.clone()),
        };
        let first = self.sessions.get(&FIRST);
        Status {
            pid: first
                .filter(|first| first.is_running())
                .map(|first| first.pid),
            started_at_ns: self.started_at_ns,
            paused,
            exit,
            execs: self
                .sessions
                .values()
                .filter(|session| session.is_running())
                .filter_map(|session| Some((session.exec.clone()?, session.pid)))
                .collect(),
        }
    }

    fn forget(&mut self) -> Answer {
        match self.state {
            State::Running { .. } => Err(conflict("the sandbox still runs")),
            State::Waiting { .. } => {
                self.state = State::Exited {
                    status: None,
                    until: Instant::now() + FORGET_LIMIT,
                };
                self.forgotten = true;
                Ok(Reply::Done)
            }
            State::Exited { .. } => {
                self.forgotten = true;
                Ok(Reply::Done)
            }
        }
    }
}

fn streams_failed(errno: rustix::io::Errno) -> Failure {
    Failure {
        kind: ErrorKind::Internal,
        message: format!("cannot serve the streams of the process: {errno}"),
    }
}

/// Takes the descriptor with this index out of those that came with a frame.
fn take_fd(fds: &mut [Option<OwnedFd>], index: usize) -> Result<OwnedFd, Failure> {
    fds.get_mut(index).and_then(Option::take).ok_or_else(|| {
        invalid(format!(
            "the request names descriptor {index}, which was not sent along"
        ))
    })
}

/// Puts something harmless where a descriptor was taken out, so that the others keep their index.
fn fill(fds: Vec<Option<OwnedFd>>) -> Result<Vec<OwnedFd>, Failure> {
    fds.into_iter()
        .map(|fd| match fd {
            Some(fd) => Ok(fd),
            None => std::fs::File::open("/dev/null")
                .map(OwnedFd::from)
                .map_err(|error| Failure {
                    kind: ErrorKind::Internal,
                    message: format!("cannot open /dev/null: {error}"),
                }),
        })
        .collect()
}
