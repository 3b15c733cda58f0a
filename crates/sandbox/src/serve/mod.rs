//! The shim's loop: one thread that waits for the daemon, the process, its streams and clients.
//!
//! ```text
//! waiting ──Launch──▶ running ──first process ended, output logged, exit.json──▶ exited
//!    │  └──Launch failed─────────────────────────────────────────────────────────▶ │
//!    │ nobody asks for LAUNCH_LIMIT, or who connected is gone                      │ Forget, or
//!    ▼                                                                             ▼ nobody there
//!   end                                                                           end
//! ```
//!
//! The daemon may come and go at any moment: nothing here depends on it being there. If the shim
//! itself is killed, the kernel kills the first process (`PDEATHSIG`) and the daemon, which finds
//! no `exit.json`, removes the rest.

mod client;
mod control;
mod exit;
pub mod input;
pub mod poller;
mod queue;
mod requests;
mod session;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hull_proto::Message;
use hull_proto::message::{Event, ExitStatus};
use hull_sys::signal;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use self::control::Connection;
use self::poller::{Poller, Watch};
use self::session::{HEADER, Io, Session};
use crate::contract::Sandbox;
use crate::log::Trouble;

/// How long a shim waits for its launch.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);
/// How long it stays after the end for a connected daemon that does not say [`Forget`].
///
/// [`Forget`]: hull_proto::Request::Forget
const FORGET_LIMIT: Duration = Duration::from_secs(30);
/// How long after the last request memory is given back; also the pause after a failed accept.
const IDLE: Duration = Duration::from_secs(1);
/// Control connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Most bytes read from a stream at once, with the frame header before them.
const BUFFER: usize = HEADER + (32 << 10);

/// Why the loop could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A step of setting it up failed.
    #[error("cannot set up the event loop: {step}")]
    Setup {
        /// Which step.
        step: &'static str,
        /// The system's reason.
        #[source]
        source: Errno,
    },
    /// Waiting failed.
    #[error("cannot wait for events")]
    Wait(#[source] Errno),
}

/// What a server is made from.
#[derive(Debug)]
pub struct Setup {
    /// The listening control socket.
    pub listener: OwnedFd,
    /// Gives out SIGCHLD, which is blocked.
    pub signals: OwnedFd,
    /// Folder in which the exit is recorded.
    pub dir: PathBuf,
    /// Is told what nobody else can be told.
    pub report: fn(&str),
}

#[derive(Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Running {
        paused: bool,
    },
    Exited {
        status: Option<ExitStatus>,
        until: Instant,
    },
}

/// Serves one sandbox.
pub struct Server<S> {
    sandbox: S,
    setup: Setup,
    poller: Poller,
    buffer: Vec<u8>,
    listener: Watch,
    signals: Watch,
    backend: Watch,
    oom: Option<(OwnedFd, Watch)>,
    oom_watched: bool,
    oom_kills: u64,
    connections: Vec<Connection>,
    had_connection: bool,
    /// The first process is 0.
    sessions: BTreeMap<u64, Session>,
    next_session: u64,
    state: State,
    started_at_ns: u64,
    forgotten: bool,
    give_back_at: Option<Instant>,
    accept_at: Option<Instant>,
}

/// Key of the first process's session.
const FIRST: u64 = 0;

impl<S: Sandbox> Server<S> {
    /// Makes a server that waits for its launch.
    ///
    /// # Errors
    /// If the sockets cannot be watched.
    pub fn new(sandbox: S, setup: Setup) -> Result<Self, ServeError> {
        let failed = |step| move |source| ServeError::Setup { step, source };
        let mut poller = Poller::new().map_err(failed("epoll"))?;
        let (mut listener, mut signals, mut backend) =
            (poller.watch(), poller.watch(), poller.watch());
        rustix::io::ioctl_fionbio(&setup.listener, true).map_err(failed("listener"))?;
        listener
            .set(&poller, &setup.listener, EventFlags::IN)
            .map_err(failed("listener"))?;
        signals
            .set(&poller, &setup.signals, EventFlags::IN)
            .map_err(failed("signals"))?;
        if let Some(fd) = sandbox.watch() {
            backend
                .set(&poller, fd, EventFlags::IN)
                .map_err(failed("back end"))?;
        }
        Ok(Self {
            sandbox,
            setup,
            poller,
            buffer: Vec::new(),
            listener,
            signals,
            backend,
            oom: None,
            oom_watched: false,
            oom_kills: 0,
            connections: Vec::new(),
            had_connection: false,
            sessions: BTreeMap::new(),
            next_session: FIRST + 1,
            state: State::Waiting {
                until: Instant::now() + LAUNCH_LIMIT,
            },
            started_at_ns: 0,
            forgotten: false,
            give_back_at: None,
            accept_at: None,
        })
    }

    /// Serves until the sandbox is no more and nobody wants to know about it.
    ///
    /// # Errors
    /// If the kernel refuses to wait for events.
    pub fn run(mut self) -> Result<(), ServeError> {
        while !self.is_done() {
            let limit = self
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            let events = self.poller.wait(limit).map_err(ServeError::Wait)?;
            // The first reading makes the buffer: a shim that only waits stays small.
            self.buffer.resize(BUFFER, 0);
            for (token, flags) in events {
                self.ready(token, flags);
            }
            self.tick();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        match &self.state {
            State::Waiting { until } => {
                Instant::now() >= *until || (self.had_connection && self.connections.is_empty())
            }
            State::Running { .. } => false,
            State::Exited { status, until } => {
                let told = self.connections.iter().all(Connection::is_flushed);
                // After a launch that failed there is nothing to be asked.
                let free = self.connections.is_empty()
                    || (told && (self.forgotten || status.is_none()))
                    || Instant::now() >= *until;
                free && self.sessions.is_empty()
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let own = match &self.state {
            State::Waiting { until } => Some(*until),
            // While clients still read, their own deadlines count.
            State::Exited { until, .. } => self.sessions.is_empty().then_some(*until),
            State::Running { .. } => None,
        };
        let own = own
            .into_iter()
            .chain(self.give_back_at)
            .chain(self.accept_at);
        self.sessions
            .values()
            .filter_map(Session::deadline)
            .chain(own)
            .min()
    }

    fn ready(&mut self, token: u64, flags: EventFlags) {
        if token == self.listener.token() {
            self.accept();
        } else if token == self.signals.token() {
            while let Ok(Some(_)) = signal::read(&self.setup.signals) {}
            self.reap();
        } else if token == self.backend.token() {
            self.reap();
            self.check_oom();
            for text in self.sandbox.notices() {
                (self.setup.report)(&text);
                self.announce(&Event::Warning(text));
            }
        } else if self
            .oom
            .as_ref()
            .is_some_and(|(_, watch)| watch.token() == token)
        {
            self.oom_noticed();
        } else if let Some(at) = self.connections.iter().position(|c| c.token() == token) {
            self.connection_ready(at, flags);
        } else if let Some(key) = self.session_of(token) {
            let (session, mut io) = match self.session_io(key) {
                Some(both) => both,
                None => return,
            };
            let trouble = session.ready(token, flags, &mut io);
            self.log_trouble(trouble);
        }
    }

    fn session_of(&self, token: u64) -> Option<u64> {
        self.sessions
            .iter()
            .find(|(_, session)| session.owns(token))
            .map(|(key, _)| *key)
    }

    fn session_io(&mut self, key: u64) -> Option<(&mut Session, Io<'_>)> {
        let session = self.sessions.get_mut(&key)?;
        let io = Io {
            poller: &mut self.poller,
            buffer: &mut self.buffer,
            now: Instant::now(),
            wall_ns: wall_ns(),
        };
        Some((session, io))
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let socket = match rustix::net::accept_with(&self.setup.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(_) => {
                    // Out of descriptors: asked again in a while, and not without end at once.
                    let unwatched = EventFlags::empty();
                    let _ = self
                        .listener
                        .set(&self.poller, &self.setup.listener, unwatched);
                    self.accept_at = Some(Instant::now() + IDLE);
                    return;
                }
            };
            if self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            if let Ok(connection) = Connection::new(socket, &mut self.poller) {
                self.had_connection = true;
                self.connections.push(connection);
            }
        }
    }

    fn connection_ready(&mut self, at: usize, flags: EventFlags) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let token = connection.token();
        if flags.contains(EventFlags::OUT) {
            connection.write();
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        for (call, fds) in connection.read(&mut self.buffer) {
            let reply = self.answer(call.request, fds);
            self.give_back_at = Some(Instant::now() + IDLE);
            // Found again: what was answered may have changed the list.
            if let Some(connection) = self.connections.iter_mut().find(|c| c.token() == token) {
                connection.send(&Message::Reply {
                    seq: call.seq,
                    reply,
                });
            }
        }
    }

    /// Tells every control connection.
    fn announce(&mut self, event: &Event) {
        let message = Message::Event(event.clone());
        for connection in &mut self.connections {
            connection.send(&message);
        }
    }

    fn log_trouble(&mut self, trouble: Option<Trouble>) {
        let text = match trouble {
            None => return,
            Some(Trouble::Dropping(reason)) => {
                format!("log lines are being lost, the container runs on: {reason}")
            }
            Some(Trouble::Recovered(count)) => {
                format!("log is written again, {count} lines were lost")
            }
        };
        (self.setup.report)(&text);
        self.announce(&Event::Warning(text));
    }

    fn oom_noticed(&mut self) {
        if let Some((fd, _)) = &self.oom {
            hull_sys::cgroup::drain(fd.as_fd());
        }
        self.check_oom();
    }

    fn check_oom(&mut self) {
        let kills = self.sandbox.oom_kills();
        if kills > self.oom_kills {
            self.oom_kills = kills;
            self.announce(&Event::Oom);
        }
    }

    /// Set up after the launch was answered, so that the answer does not wait for it.
    fn watch_oom(&mut self) {
        if self.oom_watched || !matches!(self.state, State::Running { .. }) {
            return;
        }
        self.oom_watched = true;
        if let Some(fd) = self.sandbox.oom_notice() {
            let mut watch = self.poller.watch();
            if watch.set(&self.poller, &fd, EventFlags::IN).is_ok() {
                self.oom = Some((fd, watch));
            }
        }
    }

    /// What is due at the end of each round.
    fn tick(&mut self) {
        self.watch_oom();
        let now = Instant::now();
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            let _ = self
                .listener
                .set(&self.poller, &self.setup.listener, EventFlags::IN);
        }
        if self.give_back_at.is_some_and(|at| at <= now) {
            // What a launch or an exec needed is not needed by a loop that copies bytes.
            self.give_back_at = None;
            self.buffer = Vec::new();
            hull_sys::memory::give_back();
        }
        let due: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.deadline().is_some_and(|at| at <= now))
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            if let Some((session, mut io)) = self.session_io(key) {
                session.tick(&mut io);
            }
        }
        self.finish_sessions();
        let mut at = 0;
        while let Some(connection) = self.connections.get_mut(at) {
            connection.update_watch(&self.poller);
            if connection.broken {
                self.connections.swap_remove(at).close(&self.poller);
            } else {
                at += 1;
            }
        }
    }
}

/// Nanoseconds since 1970.
fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
