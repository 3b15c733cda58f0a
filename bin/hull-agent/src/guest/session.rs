//! A process of the container, and its streams on the channel.
//!
//! ```text
//! running ──reaped──▶ its last output is taken, or DRAIN_LIMIT ──Ended──▶ outputs at their end ──▶ gone
//! ```

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hull_proto::guest::{
    Channel, DRAIN_LIMIT_MS, GuestEvent, GuestMessage, MAX_REPLY, Receiving, Sending, StreamId,
    WireError, wire,
};
use hull_sandbox::Process;
use hull_sandbox::serve::input::Input;
use hull_sandbox::serve::poller::{Poller, Watch};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::output::{DATA_HIGH, Output};

/// Most bytes read from a stream at once: other streams get their turn.
const CHUNK: usize = 32 << 10;
const DRAIN_LIMIT: Duration = Duration::from_millis(DRAIN_LIMIT_MS);
const OUTPUTS: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

struct Source {
    stream: StreamId,
    fd: OwnedFd,
    watch: Watch,
    credit: Sending,
}

/// How the process ended.
#[derive(Clone, Copy)]
struct Exit {
    code: i32,
    at: Instant,
    told: bool,
}

pub(super) struct Session {
    number: u32,
    pid: u32,
    exit: Option<Exit>,
    terminal: Option<OwnedFd>,
    /// Our own copy of the terminal's other side: without it the kernel would report a hang-up
    /// whenever the processes have closed it for a moment.
    terminal_peer: Option<OwnedFd>,
    input: Input,
    input_credit: Receiving,
    /// The shim was told that nobody reads the input, or has ended it itself.
    input_over: bool,
    sources: [Option<Source>; 2],
}

impl Session {
    /// Takes over a process.
    pub(super) fn new(number: u32, process: Process, poller: &mut Poller) -> Result<Self, Errno> {
        let streams = process.streams;
        let mut source = |channel, fd: Option<OwnedFd>| -> Result<Option<Source>, Errno> {
            let Some(fd) = fd else { return Ok(None) };
            rustix::io::ioctl_fionbio(&fd, true)?;
            Ok(Some(Source {
                stream: StreamId::new(number, channel),
                fd,
                watch: poller.watch(),
                credit: Sending::default(),
            }))
        };
        let (sources, stdin, terminal_peer);
        if let Some(master) = &streams.terminal {
            let copy = || rustix::io::fcntl_dupfd_cloexec(master, 0);
            sources = [source(Channel::Stdout, Some(copy()?))?, None];
            stdin = Some(copy()?);
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            terminal_peer = rustix::pty::ioctl_tiocgptpeer(master, flags).ok();
        } else {
            let [first, second] = OUTPUTS;
            sources = [
                source(first, streams.stdout)?,
                source(second, streams.stderr)?,
            ];
            stdin = streams.stdin;
            if let Some(pipe) = &stdin {
                rustix::io::ioctl_fionbio(pipe, true)?;
            }
            terminal_peer = None;
        }
        Ok(Self {
            number,
            pid: process.pid,
            exit: None,
            terminal: streams.terminal,
            terminal_peer,
            input_over: stdin.is_none(),
            input: Input::new(stdin, poller),
            input_credit: Receiving::default(),
            sources,
        })
    }

    /// Id of the process, as long as it was not reaped.
    pub(super) fn pid(&self) -> Option<u32> {
        self.exit.is_none().then_some(self.pid)
    }

    pub(super) fn owns(&self, token: u64) -> bool {
        self.input.token() == token || self.source_of(token).is_some()
    }

    fn source_of(&self, token: u64) -> Option<usize> {
        self.sources.iter().position(|source| {
            source
                .as_ref()
                .is_some_and(|source| source.watch.token() == token)
        })
    }

    fn source(&mut self, channel: Channel) -> Option<&mut Option<Source>> {
        let at = OUTPUTS.iter().position(|known| *known == channel)?;
        self.sources.get_mut(at)
    }

    fn input_stream(&self) -> StreamId {
        StreamId::new(self.number, Channel::Stdin)
    }

    /// Something is ready.
    pub(super) fn ready(
        &mut self,
        token: u64,
        poller: &Poller,
        buffer: &mut [u8],
        out: &mut Output,
    ) {
        if self.input.token() == token {
            let before = self.input.room();
            self.input.write();
            self.consumed(self.input.room().saturating_sub(before), out);
        } else if let Some(at) = self.source_of(token) {
            self.read(at, poller, buffer, out);
        }
    }

    /// Bytes for the process.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Output) -> Result<(), WireError> {
        self.input_credit
            .received(self.input_stream(), bytes.len())?;
        let waiting = |input: &Input| hull_sandbox::serve::input::LIMIT - input.room();
        let before = waiting(&self.input);
        self.input.take(bytes);
        let after = waiting(&self.input);
        self.consumed((before + bytes.len()).saturating_sub(after), out);
        Ok(())
    }

    /// The process took so much of its input: the shim may send more.
    fn consumed(&mut self, bytes: usize, out: &mut Output) {
        if let Some(more) = self.input_credit.taken(bytes) {
            wire::put_credit(&mut out.bytes, self.input_stream(), more);
        }
    }

    /// The shim has no more input. A terminal stays as it is: its users end input by a key.
    pub(super) fn finish_input(&mut self) {
        self.input_over = true;
        if self.terminal.is_none() {
            self.input.finish();
        }
    }

    /// The shim may be sent more of an output.
    pub(super) fn granted(&mut self, stream: StreamId, bytes: u32) -> Result<(), WireError> {
        match self.source(stream.channel) {
            Some(Some(source)) => source.credit.granted(stream, bytes),
            // It crossed the end of the stream.
            _ => Ok(()),
        }
    }

    /// The shim wants no more of an output: as if its reader had gone.
    pub(super) fn stop(&mut self, channel: Channel, poller: &Poller, out: &mut Output) {
        if let Some(source) = self.source(channel).and_then(Option::take) {
            close(source, poller, out);
        }
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) -> Option<Result<(), Errno>> {
        let size = Winsize {
            ws_row: rows,
            ws_col: cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        self.terminal.as_ref().map(|fd| tcsetwinsize(fd, size))
    }

    /// Reads an output once, as far as there is credit; says whether there may be more.
    fn read(&mut self, at: usize, poller: &Poller, buffer: &mut [u8], out: &mut Output) -> bool {
        let Some(slot) = self.sources.get_mut(at) else {
            return false;
        };
        let Some(source) = slot else { return false };
        let length = source.credit.available().min(CHUNK).min(buffer.len());
        let space = buffer.get_mut(..length).unwrap_or_default();
        if space.is_empty() {
            return false;
        }
        match rustix::io::read(&source.fd, &mut *space) {
            Err(Errno::INTR) => true,
            Err(Errno::AGAIN) => false,
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(_) => {
                if let Some(source) = slot.take() {
                    close(source, poller, out);
                }
                false
            }
            Ok(count) => {
                let bytes = space.get(..count).unwrap_or_default();
                wire::put_data(&mut out.bytes, source.stream, bytes);
                source.credit.sent(count);
                true
            }
        }
    }

    /// The process was reaped.
    pub(super) fn end(&mut self, code: i32, now: Instant, poller: &Poller) {
        self.exit = Some(Exit {
            code,
            at: now,
            told: false,
        });
        self.terminal_peer = None;
        self.input.close(poller);
        self.input_over = true;
    }

    /// Takes the last output of a process that ended, and tells of the end after it.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        poller: &Poller,
        buffer: &mut [u8],
        out: &mut Output,
    ) -> Result<(), WireError> {
        let Some(exit) = self.exit.filter(|exit| !exit.told) else {
            return Ok(());
        };
        let mut held_back = false;
        for at in 0..self.sources.len() {
            while out.waiting() < DATA_HIGH && self.read(at, poller, buffer, out) {}
            held_back |= self.sources.get(at).is_some_and(|source| {
                let rest = source.as_ref();
                rest.is_some_and(|source| source.credit.available() == 0)
            });
        }
        held_back |= out.waiting() >= DATA_HIGH;
        if held_back && now < exit.at + DRAIN_LIMIT {
            return Ok(());
        }
        self.exit = Some(Exit { told: true, ..exit });
        let event = GuestMessage::Event(GuestEvent::Ended {
            session: self.number,
            code: exit.code,
        });
        wire::put_message(&mut out.bytes, &event, MAX_REPLY)
    }

    /// When [`Self::drain`] is due at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.exit.filter(|exit| !exit.told);
        waiting.map(|exit| exit.at + DRAIN_LIMIT)
    }

    /// Whether its number is free again.
    pub(super) fn is_over(&self) -> bool {
        self.exit.is_some_and(|exit| exit.told) && self.sources.iter().all(Option::is_none)
    }

    /// Watches for what is of interest now, and tells the shim if nobody reads the input.
    pub(super) fn update_watches(&mut self, poller: &Poller, out: &mut Output) {
        let room = out.waiting() < DATA_HIGH;
        for source in self.sources.iter_mut().flatten() {
            let wanted = if room && source.credit.available() > 0 {
                EventFlags::IN
            } else {
                EventFlags::empty()
            };
            let _ = source.watch.set(poller, &source.fd, wanted);
        }
        if !self.input_over && self.input.is_closed() {
            self.input_over = true;
            wire::put_stop(&mut out.bytes, self.input_stream());
        }
        self.input.update_watch(poller);
    }
}

fn close(mut source: Source, poller: &Poller, out: &mut Output) {
    let _ = source.watch.set(poller, &source.fd, EventFlags::empty());
    wire::put_end(&mut out.bytes, source.stream);
}
