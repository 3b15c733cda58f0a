//! The streams of one process in a guest: pipes on our side, frames with credit on the other.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use hull_proto::guest::{Channel, Receiving, Sending, StreamId, WireError, wire};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::contract::{Stdio, Streams};
use crate::serve::poller::{Poller, Watch};

/// From our pipe to the guest.
#[derive(Debug)]
struct Inlet {
    fd: Option<OwnedFd>,
    watch: Watch,
    sending: Sending,
    end_sent: bool,
}

/// From the guest to our pipe.
#[derive(Debug)]
struct Outlet {
    fd: Option<OwnedFd>,
    watch: Watch,
    /// Bytes that the pipe did not take yet: no more than there was credit for.
    pending: VecDeque<u8>,
    receiving: Receiving,
    /// The guest has no more.
    ended: bool,
    stopped: bool,
}

/// A process with its streams.
#[derive(Debug)]
pub(super) struct Session {
    /// Number by which the server knows it.
    pub(super) pid: u32,
    number: u32,
    inlet: Option<Inlet>,
    outlets: [Option<Outlet>; 2],
    /// Its end was told.
    pub(super) ended: bool,
}

const OUTPUTS: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

impl Session {
    /// Makes the pipes that are wanted; returns the server's ends.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(super) fn open(
        number: u32,
        pid: u32,
        stdio: Stdio,
        terminal: bool,
        poller: &mut Poller,
    ) -> Result<(Self, Streams), Errno> {
        let mut session = Self {
            pid,
            number,
            inlet: None,
            outlets: [None, None],
            ended: false,
        };
        let mut theirs = Streams::default();
        let Stdio::Connected { stdin } = stdio else {
            return Ok((session, theirs));
        };
        if terminal {
            // The terminal itself is in the guest: on this side a stream of bytes each way.
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, end) =
                rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            session.inlet = Some(Inlet::new(
                rustix::io::fcntl_dupfd_cloexec(&ours, 0)?,
                poller,
            ));
            session.outlets[0] = Some(Outlet::new(ours, poller));
            theirs.terminal = Some(end);
            return Ok((session, theirs));
        }
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        if stdin {
            let (ours, end) = pipe()?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            session.inlet = Some(Inlet::new(ours, poller));
            theirs.stdin = Some(end);
        }
        for (outlet, end) in session
            .outlets
            .iter_mut()
            .zip([&mut theirs.stdout, &mut theirs.stderr])
        {
            let (read, write) = pipe()?;
            rustix::io::ioctl_fionbio(&write, true)?;
            *outlet = Some(Outlet::new(write, poller));
            *end = Some(read);
        }
        Ok((session, theirs))
    }

    /// Whether an event is for one of its streams.
    pub(super) fn owns(&self, token: u64) -> bool {
        let inlet = self.inlet.as_ref().map(|inlet| inlet.watch.token());
        inlet == Some(token)
            || self
                .outlets
                .iter()
                .flatten()
                .any(|outlet| outlet.watch.token() == token)
    }

    /// Whether nothing will be said about it any more by either side.
    pub(super) fn is_over(&self) -> bool {
        self.ended
            && self.inlet.as_ref().is_none_or(|inlet| inlet.end_sent)
            && self.outlets.iter().flatten().all(Outlet::is_over)
    }

    fn stream(&self, channel: Channel) -> StreamId {
        StreamId::new(self.number, channel)
    }

    fn outlet(&mut self, channel: Channel) -> Option<&mut Outlet> {
        let at = OUTPUTS.iter().position(|output| *output == channel)?;
        self.outlets.get_mut(at)?.as_mut()
    }

    /// Something can be read or written.
    pub(super) fn ready(
        &mut self,
        token: u64,
        flags: EventFlags,
        buffer: &mut [u8],
        poller: &Poller,
        out: &mut Vec<u8>,
    ) {
        let input = self.stream(Channel::Stdin);
        if let Some(inlet) = &mut self.inlet
            && inlet.watch.token() == token
        {
            inlet.read(input, buffer, poller, out);
        }
        for (channel, outlet) in OUTPUTS.into_iter().zip(&mut self.outlets) {
            if let Some(outlet) = outlet
                && outlet.watch.token() == token
            {
                let nobody = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                outlet.write_or_stop(StreamId::new(self.number, channel), nobody, poller, out);
            }
        }
    }

    /// Bytes came from the guest.
    ///
    /// # Errors
    /// If there was no credit for them.
    pub(super) fn data(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        poller: &Poller,
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let Some(outlet) = self.outlet(stream.channel) else {
            return Err(WireError::Credit(stream));
        };
        outlet.receiving.received(stream, bytes.len())?;
        if outlet.fd.is_some() && !outlet.ended {
            outlet.pending.extend(bytes);
            outlet.write(stream, poller, out);
        }
        Ok(())
    }

    /// The guest may be sent more.
    ///
    /// # Errors
    /// If that comes to more than it may be.
    pub(super) fn credit(&mut self, stream: StreamId, bytes: u32) -> Result<(), WireError> {
        match &mut self.inlet {
            Some(inlet) if stream.channel == Channel::Stdin => inlet.sending.granted(stream, bytes),
            _ => Err(WireError::Credit(stream)),
        }
    }

    /// The guest has no more for a stream.
    pub(super) fn end(&mut self, stream: StreamId, poller: &Poller, out: &mut Vec<u8>) {
        if let Some(outlet) = self.outlet(stream.channel) {
            outlet.ended = true;
            outlet.write(stream, poller, out);
        }
    }

    /// The guest wants no more of a stream.
    pub(super) fn stop(&mut self, poller: &Poller, out: &mut Vec<u8>) {
        let stream = self.stream(Channel::Stdin);
        if let Some(inlet) = &mut self.inlet {
            inlet.close(stream, poller, out);
        }
    }

    /// The process has ended.
    pub(super) fn process_ended(&mut self, poller: &Poller, out: &mut Vec<u8>) {
        self.ended = true;
        self.stop(poller, out);
    }

    /// Closes everything: the guest is gone.
    pub(super) fn abandon(&mut self, poller: &Poller) {
        let stream = self.stream(Channel::Stdin);
        self.process_ended(poller, &mut Vec::new());
        // What had come before is still written, as far as the pipe takes it.
        for outlet in self.outlets.iter_mut().flatten() {
            outlet.ended = true;
            outlet.write(stream, poller, &mut Vec::new());
            outlet.write_or_stop(stream, true, poller, &mut Vec::new());
        }
    }

    /// Watches for what is of interest now. `room`: the guest's channel takes more.
    pub(super) fn update_watches(&mut self, poller: &Poller, room: bool) {
        if let Some(Inlet {
            fd: Some(fd),
            watch,
            sending,
            ..
        }) = &mut self.inlet
        {
            let wanted = if room && sending.available() > 0 {
                EventFlags::IN
            } else {
                EventFlags::empty()
            };
            let _ = watch.set(poller, fd, wanted);
        }
        for outlet in self.outlets.iter_mut().flatten() {
            let Some(fd) = &outlet.fd else { continue };
            // That nobody reads any more is always of interest.
            let mut wanted = EventFlags::ERR;
            if !outlet.pending.is_empty() {
                wanted |= EventFlags::OUT;
            }
            let _ = outlet.watch.set(poller, fd, wanted);
        }
    }
}

impl Inlet {
    fn new(fd: OwnedFd, poller: &mut Poller) -> Self {
        Self {
            fd: Some(fd),
            watch: poller.watch(),
            sending: Sending::default(),
            end_sent: false,
        }
    }

    fn read(&mut self, stream: StreamId, buffer: &mut [u8], poller: &Poller, out: &mut Vec<u8>) {
        let Some(fd) = &self.fd else { return };
        let length = self.sending.available().min(buffer.len());
        let space = buffer.get_mut(..length).unwrap_or_default();
        if space.is_empty() {
            return;
        }
        match rustix::io::read(fd, &mut *space) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => self.close(stream, poller, out),
            Ok(count) => {
                self.sending.sent(count);
                wire::put_data(out, stream, space.get(..count).unwrap_or_default());
            }
        }
    }

    fn close(&mut self, stream: StreamId, poller: &Poller, out: &mut Vec<u8>) {
        if let Some(fd) = &self.fd {
            let _ = self.watch.set(poller, fd, EventFlags::empty());
        }
        self.fd = None;
        if !std::mem::replace(&mut self.end_sent, true) {
            wire::put_end(out, stream);
        }
    }
}

impl Outlet {
    fn new(fd: OwnedFd, poller: &mut Poller) -> Self {
        Self {
            fd: Some(fd),
            watch: poller.watch(),
            pending: VecDeque::new(),
            receiving: Receiving::default(),
            ended: false,
            stopped: false,
        }
    }

    fn is_over(&self) -> bool {
        self.ended && self.fd.is_none()
    }

    /// Writes what waits, and gives the guest credit for it.
    fn write(&mut self, stream: StreamId, poller: &Poller, out: &mut Vec<u8>) {
        self.write_or_stop(stream, false, poller, out);
    }

    /// As [`Self::write`], unless `nobody` reads the pipe any more.
    fn write_or_stop(
        &mut self,
        stream: StreamId,
        nobody: bool,
        poller: &Poller,
        out: &mut Vec<u8>,
    ) {
        let Some(fd) = &self.fd else { return };
        let mut failed = nobody;
        while !self.pending.is_empty() && !failed {
            match rustix::io::write(fd, self.pending.as_slices().0) {
                Ok(count) => {
                    self.pending.drain(..count);
                    if let Some(credit) = self.receiving.taken(count)
                        && !self.ended
                    {
                        wire::put_credit(out, stream, credit);
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => failed = true,
            }
        }
        // A terminal's socket is open a second time: closing it takes out of the poller nothing.
        if failed || self.ended {
            let _ = self.watch.set(poller, fd, EventFlags::empty());
            self.fd = None;
        }
        if failed {
            self.pending = VecDeque::new();
            if !self.ended && !std::mem::replace(&mut self.stopped, true) {
                wire::put_stop(out, stream);
            }
        }
        self.pending.shrink_to(0);
    }
}
