//! The channel to the agent of a guest: calls and their answers, and every session's streams.
//!
//! The agent may be anybody: whoever rules the guest speaks in its name. What breaks a rule ends
//! the channel, and with it the guest. What it can make this side keep is bounded: a frame, what
//! the streams have credit for, the answers that are waited for, and a few warnings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;

use hull_model::ErrorKind;
use hull_proto::Failure;
use hull_proto::guest::{
    Decoder, Frame, GuestCall, GuestEvent, GuestMessage, GuestReply, GuestRequest, MAX_CALL,
    MAX_REPLY, MAX_SESSIONS, VERSION, WireError, wire,
};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::streams::Session;
use crate::contract::{Stdio, Streams};
use crate::serve::poller::{Poller, Watch};

/// Readings of the channel before others get their turn.
const READINGS: usize = 16;
/// Input of processes is not read while so much waits for the guest, bytes.
const OUT_HIGH: usize = 256 << 10;
/// Warnings that a guest may give in its life.
const MAX_WARNINGS: u32 = 64;
/// Longest text of a guest's that is shown, bytes.
const MAX_TEXT: usize = 1024;

/// What the agent told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A session's process ended.
    Ended {
        /// Its number.
        session: u32,
        /// The server's number of the process.
        pid: u32,
        /// Exit code.
        code: i32,
    },
    /// So many were killed for want of memory.
    Oom(u64),
    /// Something for the user.
    Warning(String),
}

/// Why the channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It is closed.
    #[error("its agent is gone")]
    Closed,
    /// The agent broke a rule.
    #[error("its agent does not keep to the protocol: {0}")]
    Rule(#[from] WireError),
    /// Another build.
    #[error("its agent speaks version {0} of the protocol, not {VERSION}")]
    Version(u32),
    /// Messages at the wrong time.
    #[error("its agent does not keep to the protocol: {0}")]
    Order(&'static str),
}

/// The channel.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    watch: Watch,
    decoder: Decoder,
    out: Vec<u8>,
    sent: usize,
    sessions: BTreeMap<u32, Session>,
    next_seq: u64,
    expected: BTreeSet<u64>,
    replies: BTreeMap<u64, GuestReply>,
    news: VecDeque<News>,
    warnings: u32,
    greeted: bool,
}

impl Link {
    /// Takes our end of the channel.
    ///
    /// # Errors
    /// If it is no socket.
    pub(super) fn new(socket: OwnedFd, poller: &mut Poller) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            watch: poller.watch(),
            decoder: Decoder::new(MAX_REPLY),
            out: Vec::new(),
            sent: 0,
            sessions: BTreeMap::new(),
            next_seq: 1,
            expected: BTreeSet::new(),
            replies: BTreeMap::new(),
            news: VecDeque::new(),
            warnings: 0,
            greeted: false,
        })
    }

    /// Puts a call in line; its answer is taken by [`Self::reply`].
    ///
    /// # Errors
    /// If it is too large.
    pub(super) fn call(&mut self, request: GuestRequest) -> Result<u64, Failure> {
        let seq = self.tell(request)?;
        self.expected.insert(seq);
        Ok(seq)
    }

    /// Puts a call in line whose answer nobody wants.
    ///
    /// # Errors
    /// If it is too large.
    pub(super) fn tell(&mut self, request: GuestRequest) -> Result<u64, Failure> {
        let seq = self.next_seq;
        self.next_seq += 1;
        wire::put_message(&mut self.out, &GuestCall { seq, request }, MAX_CALL).map_err(
            |error| Failure {
                kind: ErrorKind::InvalidArgument,
                message: error.to_string(),
            },
        )?;
        Ok(seq)
    }

    /// The answer to a call, once it is there.
    pub(super) fn reply(&mut self, seq: u64) -> Option<GuestReply> {
        self.replies.remove(&seq)
    }

    /// The answer is not waited for any longer.
    pub(super) fn give_up(&mut self, seq: u64) {
        self.expected.remove(&seq);
        self.replies.remove(&seq);
    }

    /// Next thing the agent told.
    pub(super) fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// A number that no session has.
    pub(super) fn free_session(&self) -> Option<u32> {
        (1..MAX_SESSIONS).find(|number| !self.sessions.contains_key(number))
    }

    /// Opens the streams of a session; returns the server's ends of them.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(super) fn open(
        &mut self,
        number: u32,
        pid: u32,
        stdio: Stdio,
        terminal: bool,
        poller: &mut Poller,
    ) -> Result<Streams, Errno> {
        let (session, streams) = Session::open(number, pid, stdio, terminal, poller)?;
        self.sessions.insert(number, session);
        Ok(streams)
    }

    /// Forgets a session whose process was never started.
    pub(super) fn drop_session(&mut self, number: u32) {
        self.sessions.remove(&number);
    }

    /// The session of a process that has not ended.
    pub(super) fn session_of(&self, pid: u32) -> Option<u32> {
        self.sessions
            .iter()
            .find(|(_, session)| session.pid == pid && !session.ended)
            .map(|(number, _)| *number)
    }

    /// Processes that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.sessions
            .iter()
            .filter(|(_, session)| !session.ended)
            .map(|(number, session)| (*number, session.pid))
    }

    /// Handles one event; false if it is for somebody else.
    ///
    /// # Errors
    /// If the channel is of no more use.
    pub(super) fn ready(
        &mut self,
        token: u64,
        flags: EventFlags,
        buffer: &mut [u8],
        poller: &Poller,
    ) -> Result<bool, Broken> {
        if token == self.watch.token() {
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(buffer, poller)?;
            }
            return Ok(true);
        }
        let Some(session) = self.sessions.values_mut().find(|s| s.owns(token)) else {
            return Ok(false);
        };
        session.ready(token, flags, buffer, poller, &mut self.out);
        Ok(true)
    }

    /// Takes what has come, as much as there is but not without end.
    ///
    /// # Errors
    /// If the channel is of no more use.
    pub(super) fn receive(&mut self, buffer: &mut [u8], poller: &Poller) -> Result<(), Broken> {
        for _ in 0..READINGS {
            match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(Broken::Closed),
                Ok((_, count)) => {
                    self.decoder.push(buffer.get(..count).unwrap_or_default());
                    self.take_frames(poller)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Broken::Closed),
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, poller: &Poller) -> Result<(), Broken> {
        // Out of the way while what it gives out is handled.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(MAX_REPLY));
        while let Some(frame) = decoder.next_frame()? {
            self.take(frame, poller)?;
        }
        self.decoder = decoder;
        Ok(())
    }

    fn take(&mut self, frame: Frame<'_>, poller: &Poller) -> Result<(), Broken> {
        let stream = match frame {
            Frame::Message(json) => return self.message(wire::parse(json)?, poller),
            Frame::Data(stream, _)
            | Frame::Credit(stream, _)
            | Frame::End(stream)
            | Frame::Stop(stream) => stream,
        };
        if !self.greeted {
            return Err(Broken::Order("a stream before the greeting"));
        }
        // One that is over was ended by both sides; what else is said of it has no meaning.
        let Some(session) = self.sessions.get_mut(&stream.session) else {
            return Ok(());
        };
        match frame {
            Frame::Data(_, bytes) => session.data(stream, bytes, poller, &mut self.out)?,
            Frame::Credit(_, bytes) => session.credit(stream, bytes)?,
            Frame::End(_) => session.end(stream, poller, &mut self.out),
            Frame::Stop(_) => session.stop(poller, &mut self.out),
            Frame::Message(_) => {}
        }
        self.sessions.retain(|_, session| !session.is_over());
        Ok(())
    }

    fn message(&mut self, message: GuestMessage, poller: &Poller) -> Result<(), Broken> {
        let event = match message {
            GuestMessage::Hello(hello) => {
                if hello.version != VERSION {
                    return Err(Broken::Version(hello.version));
                }
                if std::mem::replace(&mut self.greeted, true) {
                    return Err(Broken::Order("a second greeting"));
                }
                return Ok(());
            }
            _ if !self.greeted => return Err(Broken::Order("a message before the greeting")),
            GuestMessage::Reply { seq, reply } => {
                // Others came too late, or were made up.
                if self.expected.remove(&seq) {
                    self.replies.insert(seq, reply);
                }
                return Ok(());
            }
            GuestMessage::Event(event) => event,
        };
        match event {
            GuestEvent::Ended { session, code } => {
                let live = self.sessions.get_mut(&session).filter(|s| !s.ended);
                if let Some(found) = live {
                    let pid = found.pid;
                    found.process_ended(poller, &mut self.out);
                    self.news.push_back(News::Ended { session, pid, code });
                }
            }
            GuestEvent::Oom { kills } => {
                // Only the last number counts.
                self.news.retain(|news| !matches!(news, News::Oom(_)));
                self.news.push_back(News::Oom(kills));
            }
            GuestEvent::Warning(text) => {
                self.warnings = self.warnings.saturating_add(1);
                if self.warnings <= MAX_WARNINGS {
                    self.news.push_back(News::Warning(shorten(text)));
                }
            }
        }
        self.sessions.retain(|_, session| !session.is_over());
        Ok(())
    }

    /// Sends what waits, and watches for what is of interest now.
    ///
    /// # Errors
    /// If the channel is of no more use.
    pub(super) fn flush(&mut self, poller: &Poller) -> Result<(), Broken> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Broken::Closed),
            }
        }
        if self.sent >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(OUT_HIGH);
            self.sent = 0;
        } else if self.sent > OUT_HIGH {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        let waiting = self.out.len() - self.sent;
        // It is always read: nothing that comes makes this side send more than it brought credit
        // for, so that two full queues never wait for each other.
        let mut wanted = EventFlags::IN;
        if waiting > 0 {
            wanted |= EventFlags::OUT;
        }
        self.watch
            .set(poller, &self.socket, wanted)
            .map_err(|_| Broken::Closed)?;
        for session in self.sessions.values_mut() {
            session.update_watches(poller, waiting < OUT_HIGH);
        }
        self.sessions.retain(|_, session| !session.is_over());
        Ok(())
    }

    /// The guest is gone: closes all streams; returns the processes whose end was not told.
    pub(super) fn abandon(&mut self, poller: &Poller) -> Vec<u32> {
        let left = self.live().map(|(_, pid)| pid).collect();
        for session in self.sessions.values_mut() {
            session.abandon(poller);
        }
        self.sessions.clear();
        left
    }
}

/// A guest's text as it may be shown: not too long, and without what moves a cursor.
pub(super) fn shorten(text: String) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let mut short = String::new();
    for c in text.chars().map(clean) {
        if short.len() + c.len_utf8() > MAX_TEXT {
            short.push('…');
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
