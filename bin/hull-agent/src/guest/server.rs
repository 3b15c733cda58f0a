//! The agent's loop: one thread that waits for the shim, the processes and their streams.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use hull_model::ErrorKind;
use hull_proto::ExecLaunch;
use hull_proto::guest::{
    BootTimes, Channel, Decoder, FIRST_SESSION, Failed, Frame, GuestCall, GuestEvent, GuestExec,
    GuestLaunch, GuestMessage, GuestReply, GuestRequest, GuestStdio, Hello, MAX_CALL, MAX_REPLY,
    MAX_SESSIONS, VERSION, WireError, wire,
};
use hull_proto::plan::Namespace;
use hull_sandbox::serve::poller::{Poller, Watch};
use hull_sandbox::{Container, Process, Sandbox, Stdio};
use hull_sys::{netns, pidfd, signal};
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::output::{CALLS_HIGH, Output};
use super::session::Session;
use super::{Trouble, prepare, processes, uptime_ns};

/// Most bytes read at once, from the channel or a process.
const BUFFER: usize = 64 << 10;
/// Readings of the channel before others get their turn.
const READINGS: usize = 16;
/// How long killed processes may take to end, and the last bytes to be taken.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long nobody may be there at the other end in the beginning.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_PAUSE: Duration = Duration::from_millis(1);
/// Where compiled filters are kept: a plan's folder is one of the host's.
pub(super) const SECCOMP_CACHE: &str = "/run/hull-seccomp";

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum End {
    /// The shim asked for it: it waits for the answer.
    Asked,
    /// The channel broke, or the peer a rule.
    Lost(String),
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        let reason = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::Lost(format!("{error}{}", reason.unwrap_or_default()))
    }
}

pub(super) struct Server {
    channel: OwnedFd,
    signals: OwnedFd,
    poller: Poller,
    channel_watch: Watch,
    signals_watch: Watch,
    oom: Option<(OwnedFd, Watch)>,
    oom_kills: u64,
    decoder: Decoder,
    output: Output,
    buffer: Vec<u8>,
    container: Container,
    sessions: BTreeMap<u32, Session>,
    prepared: bool,
    launched: bool,
    /// The peer was there.
    connected: bool,
    /// Number of the call that asked for the end.
    shutdown: Option<u64>,
}

impl Server {
    /// Greets the shim; the greeting is sent by [`Self::run`].
    pub(super) fn new(
        channel: OwnedFd,
        signals: OwnedFd,
        started_ns: u64,
    ) -> Result<Self, Trouble> {
        let mut poller = Poller::new().map_err(Trouble::at("make an event loop"))?;
        let (channel_watch, mut signals_watch) = (poller.watch(), poller.watch());
        signals_watch
            .set(&poller, &signals, EventFlags::IN)
            .map_err(Trouble::at("watch for the end of processes"))?;
        let mut container = Container::new();
        container.ask_host();
        let kernel = rustix::system::uname();
        let hello = GuestMessage::Hello(Hello {
            version: VERSION,
            kernel: kernel.release().to_string_lossy().into_owned(),
            boot: BootTimes {
                started_ns,
                ready_ns: uptime_ns(),
            },
        });
        let mut output = Output::default();
        wire::put_message(&mut output.bytes, &hello, MAX_REPLY)
            .map_err(Trouble::at("greet the shim"))?;
        Ok(Self {
            channel,
            signals,
            poller,
            channel_watch,
            signals_watch,
            oom: None,
            oom_kills: 0,
            decoder: Decoder::new(MAX_CALL),
            output,
            buffer: vec![0; BUFFER],
            container,
            sessions: BTreeMap::new(),
            prepared: false,
            launched: false,
            connected: false,
            shutdown: None,
        })
    }

    /// Serves until the guest is to go.
    pub(super) fn run(&mut self) -> Result<End, Trouble> {
        let until = Instant::now() + CONNECT_LIMIT;
        loop {
            if let Err(end) = self.flush() {
                return Ok(end);
            }
            let limit = self
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            let events = self
                .poller
                .wait(limit)
                .map_err(Trouble::at("wait for events"))?;
            for (token, flags) in events {
                if let Err(end) = self.ready(token, flags, until) {
                    return Ok(end);
                }
                if self.shutdown.is_some() {
                    return Ok(End::Asked);
                }
            }
            if let Err(error) = self.tick() {
                return Ok(error.into());
            }
        }
    }

    /// Writes what waits, and watches for what is of interest now.
    fn flush(&mut self) -> Result<(), End> {
        let Self {
            sessions,
            poller,
            output,
            ..
        } = self;
        for session in sessions.values_mut() {
            session.update_watches(poller, output);
        }
        self.write()?;
        let mut wanted = EventFlags::empty();
        if self.output.waiting() > 0 {
            wanted |= EventFlags::OUT;
        }
        if self.output.waiting() < CALLS_HIGH {
            wanted |= EventFlags::IN;
        }
        self.channel_watch
            .set(&self.poller, &self.channel, wanted)
            .map_err(|errno| End::Lost(format!("it cannot be watched: {errno}")))
    }

    fn write(&mut self) -> Result<(), End> {
        match self.output.write_to(&self.channel) {
            Ok(()) => Ok(()),
            Err(errno) if self.connected => Err(End::Lost(errno.to_string())),
            Err(_) => Ok(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.sessions.values().filter_map(Session::deadline).min()
    }

    fn ready(&mut self, token: u64, flags: EventFlags, until: Instant) -> Result<(), End> {
        if token == self.channel_watch.token() {
            return self.channel_ready(flags, until);
        }
        if token == self.signals_watch.token() {
            while let Ok(Some(_)) = signal::read(&self.signals) {}
            self.reap();
            return Ok(());
        }
        let is_oom = |(_, watch): &(OwnedFd, Watch)| watch.token() == token;
        if self.oom.as_ref().is_some_and(is_oom) {
            if let Some((fd, _)) = &self.oom {
                hull_sys::cgroup::drain(fd.as_fd());
            }
            return self.check_oom().map_err(End::from);
        }
        if let Some(session) = self.sessions.values_mut().find(|s| s.owns(token)) {
            session.ready(token, &self.poller, &mut self.buffer, &mut self.output);
        }
        Ok(())
    }

    fn channel_ready(&mut self, flags: EventFlags, until: Instant) -> Result<(), End> {
        if flags.contains(EventFlags::HUP) && !flags.contains(EventFlags::IN) {
            if self.connected || Instant::now() >= until {
                return Err(End::Lost("the host has closed it".into()));
            }
            // A port of which the host's side is not open yet says so without end.
            std::thread::sleep(CONNECT_PAUSE);
            return Ok(());
        }
        self.connected = true;
        if flags.contains(EventFlags::OUT) {
            self.write()?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::ERR) {
            return Ok(());
        }
        for _ in 0..READINGS {
            let count = match rustix::io::read(&self.channel, &mut self.buffer[..]) {
                Ok(0) => return Err(End::Lost("the host has closed it".into())),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(End::Lost(errno.to_string())),
            };
            self.decoder
                .push(self.buffer.get(..count).unwrap_or_default());
            self.take_frames()?;
            if self.shutdown.is_some() || self.output.waiting() >= CALLS_HIGH {
                break;
            }
        }
        Ok(())
    }

    fn take_frames(&mut self) -> Result<(), End> {
        // Out of the way while what it gives out is handled.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(MAX_CALL));
        while let Some(frame) = decoder.next_frame()? {
            self.take(frame)?;
            if self.shutdown.is_some() {
                return Ok(());
            }
        }
        self.decoder = decoder;
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<(), End> {
        let stream = match frame {
            Frame::Message(json) => {
                let call: GuestCall = wire::parse(json)?;
                return self.call(call);
            }
            Frame::Data(stream, _)
            | Frame::Credit(stream, _)
            | Frame::End(stream)
            | Frame::Stop(stream) => stream,
        };
        let is_input = stream.channel == Channel::Stdin;
        if is_input != matches!(frame, Frame::Data(..) | Frame::End(_)) {
            let what = format!("frame against the direction of stream {stream:?}");
            return Err(End::Lost(what));
        }
        // What is for a session that is over crossed its end.
        let Some(session) = self.sessions.get_mut(&stream.session) else {
            return Ok(());
        };
        match frame {
            Frame::Data(_, bytes) => session.take(bytes, &mut self.output)?,
            Frame::End(_) => session.finish_input(),
            Frame::Credit(_, bytes) => session.granted(stream, bytes)?,
            Frame::Stop(_) => session.stop(stream.channel, &self.poller, &mut self.output),
            Frame::Message(_) => {}
        }
        Ok(())
    }

    fn call(&mut self, call: GuestCall) -> Result<(), End> {
        if matches!(call.request, GuestRequest::Shutdown) {
            self.kill_all();
            self.shutdown = Some(call.seq);
            return Ok(());
        }
        let reply = self.answer(call.request).unwrap_or_else(GuestReply::Failed);
        self.reply(call.seq, reply).map_err(End::from)
    }

    fn reply(&mut self, seq: u64, reply: GuestReply) -> Result<(), WireError> {
        let message = GuestMessage::Reply { seq, reply };
        match wire::put_message(&mut self.output.bytes, &message, MAX_REPLY) {
            Err(WireError::TooLarge { .. }) => {
                let reply = GuestReply::Failed(failed(
                    ErrorKind::Internal,
                    "the answer is too large for the channel".into(),
                ));
                let message = GuestMessage::Reply { seq, reply };
                wire::put_message(&mut self.output.bytes, &message, MAX_REPLY)
            }
            result => result,
        }
    }

    fn answer(&mut self, request: GuestRequest) -> Result<GuestReply, Failed> {
        let mut warnings = Vec::new();
        match request {
            GuestRequest::Prepare(plan) => {
                if std::mem::replace(&mut self.prepared, true) {
                    return Err(conflict("the guest is prepared already"));
                }
                warnings = prepare::run(&plan).map_err(internal)?;
            }
            GuestRequest::Launch(launch) => return self.launch(*launch),
            GuestRequest::Exec(exec) => return self.exec(*exec),
            GuestRequest::Signal { session, signal } => {
                let pid = self.sessions.get(&session).and_then(Session::pid);
                let gone = || failed(ErrorKind::NotFound, "the process has ended".into());
                self.container.signal(pid.ok_or_else(gone)?, signal)?;
            }
            GuestRequest::KillAll => self.container.kill_all()?,
            GuestRequest::Resize {
                session,
                rows,
                cols,
            } => {
                let none = || conflict("the process has no terminal");
                let session = self.sessions.get(&session).ok_or_else(none)?;
                let result = session.resize(rows, cols).ok_or_else(none)?;
                let what = Trouble::at("resize the terminal");
                result.map_err(|errno| internal(what(errno)))?;
            }
            GuestRequest::Pause => self.container.pause()?,
            GuestRequest::Resume => self.container.resume()?,
            GuestRequest::Update(resources) => warnings = self.container.update(&resources)?,
            GuestRequest::Stats => return self.stats(),
            GuestRequest::Processes => {
                let pids = self.container.pids()?;
                return Ok(GuestReply::Processes(processes::list(&pids)));
            }
            GuestRequest::Files(files) => prepare::write_files(&files).map_err(internal)?,
            GuestRequest::Clock(ns) => prepare::set_clock(ns).map_err(internal)?,
            GuestRequest::Sync => rustix::fs::sync(),
            // Seen to before.
            GuestRequest::Shutdown => {}
        }
        Ok(GuestReply::Done { warnings })
    }

    fn stats(&mut self) -> Result<GuestReply, Failed> {
        Ok(GuestReply::Stats(Box::new(self.container.stats()?)))
    }

    fn launch(&mut self, launch: GuestLaunch) -> Result<GuestReply, Failed> {
        if std::mem::replace(&mut self.launched, true) {
            return Err(conflict("the guest has its container already"));
        }
        let mut plan = launch.plan;
        let mut descriptors = Vec::new();
        if plan.namespaces.net == Namespace::Host {
            // The guest's network is the container's own: its parameters are the plan's to set.
            let own = netns::current_network()
                .map_err(|errno| internal(Trouble::at("open the network namespace")(errno)))?;
            plan.namespaces.net = Namespace::Fd(descriptors.len());
            descriptors.push(own);
        }
        plan.seccomp_cache = SECCOMP_CACHE.into();
        let launched = self
            .container
            .launch(&plan, descriptors, stdio(launch.stdio));
        if launched.is_err() {
            self.launched = false;
        }
        let reply = self.keep(FIRST_SESSION, launched?)?;
        if let Some(fd) = self.container.oom_notice() {
            let mut watch = self.poller.watch();
            if watch.set(&self.poller, &fd, EventFlags::IN).is_ok() {
                self.oom = Some((fd, watch));
            }
        }
        Ok(reply)
    }

    fn exec(&mut self, exec: GuestExec) -> Result<GuestReply, Failed> {
        if exec.session >= MAX_SESSIONS || exec.session == FIRST_SESSION {
            let text = format!("no session can have the number {}", exec.session);
            return Err(failed(ErrorKind::InvalidArgument, text));
        }
        if self.sessions.contains_key(&exec.session) {
            let text = format!("session {} is in use", exec.session);
            return Err(conflict(&text));
        }
        let launch = ExecLaunch {
            process: exec.process,
            privileged: exec.privileged,
            seccomp_cache: if exec.seccomp_cache.as_os_str().is_empty() {
                SECCOMP_CACHE.into()
            } else {
                exec.seccomp_cache
            },
            ..ExecLaunch::default()
        };
        let process = self.container.exec(&launch, stdio(exec.stdio))?;
        self.keep(exec.session, process)
    }

    fn keep(&mut self, number: u32, mut process: Process) -> Result<GuestReply, Failed> {
        let uptime_ns = uptime_ns();
        let pid = process.pid;
        let warnings = std::mem::take(&mut process.warnings);
        match Session::new(number, process, &mut self.poller) {
            Ok(session) => {
                self.sessions.insert(number, session);
                Ok(GuestReply::Started {
                    pid,
                    uptime_ns,
                    warnings,
                })
            }
            Err(errno) => {
                // Nobody could reach it.
                let _ = self.container.signal(pid, libc::SIGKILL);
                Err(internal(Trouble::at("watch its streams")(errno)))
            }
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        while let Some((pid, code)) = self.container.ended() {
            let of = |session: &&mut Session| session.pid() == Some(pid);
            if let Some(session) = self.sessions.values_mut().find(of) {
                session.end(code, now, &self.poller);
            }
        }
    }

    fn check_oom(&mut self) -> Result<(), WireError> {
        let kills = self.container.oom_kills();
        if kills <= self.oom_kills {
            return Ok(());
        }
        self.oom_kills = kills;
        let event = GuestMessage::Event(GuestEvent::Oom { kills });
        wire::put_message(&mut self.output.bytes, &event, MAX_REPLY)
    }

    /// What is due at the end of each round.
    fn tick(&mut self) -> Result<(), WireError> {
        let now = Instant::now();
        let any_ended = self.sessions.values().any(|s| s.deadline().is_some());
        if any_ended {
            // The reason comes before the end.
            self.check_oom()?;
        }
        let Self {
            sessions,
            poller,
            buffer,
            output,
            ..
        } = self;
        for session in sessions.values_mut() {
            session.drain(now, poller, buffer, output)?;
        }
        self.sessions.retain(|_, session| !session.is_over());
        Ok(())
    }

    /// Kills the container, waits for its end, for a while, and removes its group.
    pub(super) fn kill_all(&mut self) {
        // Who is frozen could not end.
        let _ = self.container.resume();
        if self.container.kill_all().is_ok() {
            self.await_children();
            let _ = self.container.delete();
        }
    }

    fn await_children(&self) {
        let until = Instant::now() + END_LIMIT;
        loop {
            match pidfd::wait_any() {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(_) => return,
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            wait(&self.signals, PollFlags::IN, rest);
            while let Ok(Some(_)) = signal::read(&self.signals) {}
        }
    }

    /// Answers who asked for the end, and waits until that is taken, for a while.
    pub(super) fn farewell(&mut self) {
        let Some(seq) = self.shutdown else { return };
        let done = GuestReply::Done {
            warnings: Vec::new(),
        };
        let until = Instant::now() + END_LIMIT;
        let mut sent = self.reply(seq, done).is_ok();
        while sent && self.output.waiting() > 0 {
            sent = self.output.write_to(&self.channel).is_ok();
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            if self.output.waiting() > 0 {
                wait(&self.channel, PollFlags::OUT, rest);
            }
        }
    }
}

fn wait(fd: &OwnedFd, flags: PollFlags, limit: Duration) {
    let limit = Timespec {
        tv_sec: limit.as_secs().min(1 << 30) as i64,
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let _ = poll(&mut [PollFd::new(fd, flags)], Some(&limit));
}

fn stdio(plan: GuestStdio) -> Stdio {
    match plan {
        GuestStdio::Null => Stdio::Null,
        GuestStdio::Connected { stdin } => Stdio::Connected { stdin },
    }
}

fn failed(kind: ErrorKind, message: String) -> Failed {
    Failed { kind, message }
}

fn conflict(message: &str) -> Failed {
    failed(ErrorKind::Conflict, message.into())
}

fn internal(trouble: Trouble) -> Failed {
    failed(ErrorKind::Internal, trouble.to_string())
}
