//! One process with its streams and the clients of them.
//!
//! ```text
//! running ──ended──▶ draining ──streams at their end, or DRAIN_LIMIT──▶ flushing ──▶ closed
//!                    (log is complete)                   (clients get what waits, FLUSH_LIMIT)
//! ```

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hull_proto::Attach;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;

use super::client::{Client, Sent};
use super::input::Input;
use super::poller::{Poller, Watch};
use crate::contract::Process;
use crate::log::{Lines, Log, Trouble};

/// How long output is still read after the end of the process when something else, such as a
/// background process of the same terminal, keeps the stream open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// How long clients may read nothing of the rest before they are dropped. Long, because nothing
/// is held back any more and somebody may be reading it page by page.
const FLUSH_LIMIT: Duration = Duration::from_secs(300);
/// Readings without a pause when a process has ended; a pipe holds less than this.
const DRAIN_READS: usize = 64;
/// Bytes of the header of a Docker stream frame.
pub(crate) const HEADER: usize = 8;
/// Wanted size of an output pipe: enough that a burst of a thousand lines does not stop the
/// payload, little enough that hundreds of containers do not exhaust the user's pipe pages.
const PIPE_SIZE: usize = 128 << 10;
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// What the session needs from its server for one step.
pub(crate) struct Io<'a> {
    /// Where descriptors are watched.
    pub(crate) poller: &'a mut Poller,
    /// Scratch space, longer than [`HEADER`].
    pub(crate) buffer: &'a mut [u8],
    /// Monotonic time.
    pub(crate) now: Instant,
    /// Wall clock, ns since 1970.
    pub(crate) wall_ns: u64,
}

/// How a process is served.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// Id of the exec session; none is the first process.
    pub(crate) exec: Option<String>,
    /// Clients may write its input.
    pub(crate) input: bool,
    /// The first client that ends its input ends the process's.
    pub(crate) close_input: bool,
    /// Output is logged.
    pub(crate) log: Option<Log>,
}

#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    watch: Watch,
    lines: Lines,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Draining(Instant),
    /// Until then; what the clients had taken when that was set.
    Flushing(Instant, u64),
}

/// A process and its streams.
#[derive(Debug)]
pub(crate) struct Session {
    /// Process id.
    pub(crate) pid: u32,
    /// Id of the exec session; none is the first process.
    pub(crate) exec: Option<String>,
    /// Exit code and wall time of the end.
    pub(crate) ended: Option<(i32, u64)>,
    /// Its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// Our own copy of the terminal's other side: without it the kernel would report a hang-up
    /// whenever the payload has closed it for a moment.
    terminal_peer: Option<OwnedFd>,
    outputs: [Option<Output>; 2],
    input: Input,
    close_input: bool,
    clients: Vec<Client>,
    log: Option<Log>,
    phase: Phase,
}

impl Session {
    /// Takes over a process.
    ///
    /// # Errors
    /// If its streams cannot be watched.
    pub(crate) fn new(
        process: Process,
        manner: Manner,
        poller: &mut Poller,
    ) -> Result<Self, Errno> {
        let streams = process.streams;
        let mut output = |fd: Option<OwnedFd>| -> Result<Option<Output>, Errno> {
            let Some(fd) = fd else { return Ok(None) };
            nonblocking(&fd)?;
            let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_SIZE);
            let mut watch = poller.watch();
            watch.set(poller, &fd, EventFlags::IN)?;
            Ok(Some(Output {
                fd,
                watch,
                lines: Lines::default(),
            }))
        };
        let (first, second, stdin, terminal, terminal_peer);
        if let Some(master) = streams.terminal {
            let copy = || rustix::io::fcntl_dupfd_cloexec(&master, 0);
            first = output(Some(copy()?))?;
            second = None;
            stdin = if manner.input { Some(copy()?) } else { None };
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            terminal_peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
            terminal = Some(master);
        } else {
            first = output(streams.stdout)?;
            second = output(streams.stderr)?;
            stdin = streams.stdin;
            if let Some(pipe) = &stdin {
                nonblocking(pipe)?;
            }
            (terminal, terminal_peer) = (None, None);
        }
        Ok(Self {
            pid: process.pid,
            exec: manner.exec,
            ended: None,
            close_input: manner.close_input && terminal.is_none(),
            terminal,
            terminal_peer,
            outputs: [first, second],
            input: Input::new(stdin, poller),
            clients: Vec::new(),
            log: manner.log,
            phase: Phase::Running,
        })
    }

    /// Every number under which events for this session come.
    pub(crate) fn owns(&self, token: u64) -> bool {
        self.input.token() == token
            || self
                .outputs
                .iter()
                .flatten()
                .any(|output| output.watch.token() == token)
            || self.clients.iter().any(|client| client.token() == token)
    }

    /// Whether the process has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Adds a client.
    pub(crate) fn attach(&mut self, socket: OwnedFd, roles: Attach, poller: &mut Poller) {
        self.clients.push(Client::new(socket, roles, poller));
        self.update_watches(poller);
    }

    /// Handles one event.
    pub(crate) fn ready(
        &mut self,
        token: u64,
        flags: EventFlags,
        io: &mut Io<'_>,
    ) -> Option<Trouble> {
        let mut trouble = None;
        if self.input.token() == token {
            self.input.write();
        } else if let Some(stream) = self.stream_of(token) {
            trouble = self.read_output(stream, io).1;
        } else if let Some(at) = self
            .clients
            .iter()
            .position(|client| client.token() == token)
        {
            self.client_ready(at, flags, io);
        }
        self.update_watches(io.poller);
        trouble
    }

    fn stream_of(&self, token: u64) -> Option<usize> {
        self.outputs.iter().position(|output| {
            output
                .as_ref()
                .is_some_and(|output| output.watch.token() == token)
        })
    }

    /// Reads an output once and hands on what came; says whether there may be more.
    fn read_output(&mut self, stream: usize, io: &mut Io<'_>) -> (bool, Option<Trouble>) {
        let Some(Some(output)) = self.outputs.get_mut(stream) else {
            return (false, None);
        };
        let (header, space) = io.buffer.split_at_mut(HEADER);
        let count = match rustix::io::read(&output.fd, &mut *space) {
            Err(Errno::INTR) => return (true, None),
            Err(Errno::AGAIN) => return (false, None),
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(_) => return (false, self.close_output(stream, io)),
            Ok(count) => count,
        };
        let mut trouble = None;
        if let Some(log) = &mut self.log {
            let bytes = space.get(..count).unwrap_or_default();
            let name = STREAMS[stream];
            trouble = log.push(&mut output.lines, name, bytes, io.wall_ns);
            trouble = log.flush().or(trouble);
        }
        let raw = self.terminal.is_some();
        header.copy_from_slice(&frame_header(stream, count));
        let from = if raw { HEADER } else { 0 };
        let frame = io.buffer.get(from..HEADER + count).unwrap_or_default();
        let mut shared: Option<Rc<[u8]>> = None;
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.reads(stream))
        {
            client.give(frame, &mut shared, io.now);
        }
        (true, trouble)
    }

    fn close_output(&mut self, stream: usize, io: &mut Io<'_>) -> Option<Trouble> {
        let mut output = self.outputs.get_mut(stream)?.take()?;
        let _ = output.watch.set(io.poller, &output.fd, EventFlags::empty());
        let log = self.log.as_mut()?;
        let trouble = log.finish(&mut output.lines, STREAMS[stream], io.wall_ns);
        log.flush().or(trouble)
    }

    fn client_ready(&mut self, at: usize, flags: EventFlags, io: &mut Io<'_>) {
        let Some(client) = self.clients.get_mut(at) else {
            return;
        };
        if flags.contains(EventFlags::OUT) && client.receives {
            client.write(io.now);
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            // Both directions are closed, but what it wrote before can still be read.
            client.hang_up();
        }
        if client.sends {
            let limit = if client.writes_stdin() {
                self.input.room()
            } else {
                usize::MAX
            };
            let length = limit.min(io.buffer.len());
            let space = io.buffer.get_mut(..length).unwrap_or_default();
            if space.is_empty() {
                return;
            }
            match client.read(space) {
                Sent::Bytes(count) if client.writes_stdin() => {
                    self.input.take(io.buffer.get(..count).unwrap_or_default());
                }
                Sent::End if client.writes_stdin() && self.close_input => self.input.finish(),
                _ => {}
            }
        }
    }

    /// The process ended: reads the rest of its output.
    pub(crate) fn end(&mut self, code: i32, io: &mut Io<'_>) -> Option<Trouble> {
        self.ended = Some((code, io.wall_ns));
        self.phase = Phase::Draining(io.now + DRAIN_LIMIT);
        self.terminal_peer = None;
        self.input.close(io.poller);
        let trouble = self.drain(io);
        self.update_watches(io.poller);
        trouble
    }

    fn drain(&mut self, io: &mut Io<'_>) -> Option<Trouble> {
        let mut trouble = None;
        for stream in 0..self.outputs.len() {
            for _ in 0..DRAIN_READS {
                let (more, found) = self.read_output(stream, io);
                trouble = trouble.or(found);
                if !more {
                    break;
                }
            }
        }
        trouble
    }

    /// Whether the process ended and all of its output was taken. Asks once: then the rest is
    /// written to the clients and they are closed.
    pub(crate) fn take_drained(&mut self, io: &mut Io<'_>) -> Option<(i32, u64, Option<Trouble>)> {
        let Phase::Draining(until) = self.phase else {
            return None;
        };
        let mut trouble = None;
        if self.outputs.iter().any(Option::is_some) {
            if io.now < until {
                return None;
            }
            trouble = self.drain(io);
            for stream in 0..self.outputs.len() {
                trouble = trouble.or(self.close_output(stream, io));
            }
        }
        self.phase = Phase::Flushing(io.now + FLUSH_LIMIT, self.taken());
        self.log = None;
        self.update_watches(io.poller);
        let (code, at_ns) = self.ended?;
        Some((code, at_ns, trouble))
    }

    /// Whether everything is done and no client is left.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Flushing(..)) && self.clients.is_empty()
    }

    /// Drops clients that are stuck, or that had their time after the end.
    pub(crate) fn tick(&mut self, io: &mut Io<'_>) {
        for client in &mut self.clients {
            client.drop_if_stuck(io.now);
        }
        if let Phase::Flushing(until, before) = self.phase
            && io.now >= until
        {
            let taken = self.taken();
            self.phase = Phase::Flushing(io.now + FLUSH_LIMIT, taken);
            if taken == before {
                self.clients.iter_mut().for_each(Client::hang_up);
            }
        }
        self.update_watches(io.poller);
    }

    fn taken(&self) -> u64 {
        self.clients.iter().map(|client| client.taken).sum()
    }

    /// When [`Self::tick`] or [`Self::take_drained`] is to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Running => None,
            Phase::Draining(until) | Phase::Flushing(until, _) => Some(until),
        };
        self.clients
            .iter()
            .filter_map(Client::deadline)
            .chain(own)
            .min()
    }

    /// Drops who is gone, and watches for what is of interest now.
    fn update_watches(&mut self, poller: &Poller) {
        self.input.update_watch(poller);
        let flushing = matches!(self.phase, Phase::Flushing(..));
        let room = self.input.room() > 0;
        for client in &mut self.clients {
            client.update_watch(poller, room);
        }
        let mut at = 0;
        while let Some(client) = self.clients.get(at) {
            if client.is_gone() || (flushing && client.is_flushed()) {
                self.clients.swap_remove(at).close(poller);
            } else {
                at += 1;
            }
        }
        // Once the process has ended the rest is bounded by the pipe: it is taken at once.
        let held = self.is_running() && self.clients.iter().any(Client::is_holding);
        let wanted = if held {
            EventFlags::empty()
        } else {
            EventFlags::IN
        };
        for output in self.outputs.iter_mut().flatten() {
            let _ = output.watch.set(poller, &output.fd, wanted);
        }
    }
}

fn nonblocking(fd: &OwnedFd) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(fd, true)
}

/// Header of a frame of Docker's attach stream: stream number, three zeros, big-endian length.
fn frame_header(stream: usize, count: usize) -> [u8; HEADER] {
    let [a, b, c, d] = (count as u32).to_be_bytes();
    [stream as u8 + 1, 0, 0, 0, a, b, c, d]
}
