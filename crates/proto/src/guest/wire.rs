//! Frames of a guest's channel: bytes to values and back, without any input or output.
//!
//! ```text
//! ┌──────┬─────────┬────────────┬────────────┬────────
//! │ kind │ 0  0  0 │ stream LE32│ length LE32│ body …
//! └──────┴─────────┴────────────┴────────────┴────────
//! kind 1 message   stream 0        JSON
//!      2 data      session·4+n     bytes as they are, 1 to MAX_DATA
//!      3 credit    session·4+n     LE32: how many bytes more may be sent
//!      4 end       session·4+n     nothing: the sender has no more
//!      5 stop      session·4+n     nothing: the receiver wants no more
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MAX_CREDIT, MAX_DATA, MAX_SESSIONS};

/// Length of a frame's header.
pub const HEADER: usize = 12;
/// Room that a decoder keeps between large frames.
const KEPT_ROOM: usize = 2 * MAX_DATA;

const MESSAGE: u8 = 1;
const DATA: u8 = 2;
const CREDIT: u8 = 3;
const END: u8 = 4;
const STOP: u8 = 5;

/// What makes a channel of no more use. The peer broke a rule: a shim ends the guest, an agent
/// powers off.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No such kind of frame.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
    /// A header's bytes that must be zero are not.
    #[error("frame with bits set that have no meaning")]
    Reserved,
    /// No such stream, or a message on one.
    #[error("frame for stream {0:#x}, which cannot be")]
    Stream(u32),
    /// A body that is too long, or not as long as its kind asks for.
    #[error("frame of kind {kind} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The length.
        length: usize,
    },
    /// The message is none this version understands.
    #[error("message that cannot be understood")]
    Json(#[source] serde_json::Error),
    /// A message of our own is too large.
    #[error("message of {length} bytes: at most {limit} can be sent")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// More was sent than there was credit for, or more credit was given than may be.
    #[error("credit of stream {0:?} was overdrawn or overflows")]
    Credit(StreamId),
}

/// One of the streams of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// To the process; also what is typed at a terminal.
    Stdin,
    /// From it; also all of a terminal's output.
    Stdout,
    /// From it.
    Stderr,
}

/// A stream's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The session, below [`MAX_SESSIONS`].
    pub session: u32,
    /// Which of its streams.
    pub channel: Channel,
}

impl StreamId {
    /// The stream of a session.
    #[must_use]
    pub fn new(session: u32, channel: Channel) -> Self {
        Self { session, channel }
    }

    fn number(self) -> u32 {
        let channel = match self.channel {
            Channel::Stdin => 0,
            Channel::Stdout => 1,
            Channel::Stderr => 2,
        };
        (self.session % MAX_SESSIONS) << 2 | channel
    }

    fn from_number(number: u32) -> Result<Self, WireError> {
        let channel = match number & 3 {
            0 => Channel::Stdin,
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            _ => return Err(WireError::Stream(number)),
        };
        let session = number >> 2;
        if session >= MAX_SESSIONS {
            return Err(WireError::Stream(number));
        }
        Ok(Self { session, channel })
    }
}

/// A frame that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A control message, still JSON: see [`parse`].
    Message(&'a [u8]),
    /// Bytes of a stream, never none.
    Data(StreamId, &'a [u8]),
    /// So many more bytes may be sent on the stream.
    Credit(StreamId, u32),
    /// The sender of the stream has no more.
    End(StreamId),
    /// The receiver of the stream wants no more; what is still under way is thrown away. The
    /// sender answers with `End`.
    Stop(StreamId),
}

/// Reads a control message.
///
/// # Errors
/// If it is none of the type.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(json).map_err(WireError::Json)
}

/// Appends a control message to `out`.
///
/// # Errors
/// If it is longer than `limit` ([`super::MAX_CALL`] or [`super::MAX_REPLY`]); `out` is then as
/// before.
pub fn put_message<T: Serialize>(
    out: &mut Vec<u8>,
    message: &T,
    limit: usize,
) -> Result<(), WireError> {
    let start = out.len();
    out.extend([0; HEADER]);
    let written = serde_json::to_writer(&mut *out, message).map_err(WireError::Json);
    let length = out.len() - start - HEADER;
    if written.is_err() || length > limit {
        out.truncate(start);
        return written.and(Err(WireError::TooLarge { length, limit }));
    }
    if let Some(place) = out.get_mut(start..start + HEADER) {
        place.copy_from_slice(&header(MESSAGE, 0, length));
    }
    Ok(())
}

/// Appends bytes of a stream, in as many frames as they take.
pub fn put_data(out: &mut Vec<u8>, stream: StreamId, bytes: &[u8]) {
    for part in bytes.chunks(MAX_DATA) {
        out.extend(header(DATA, stream.number(), part.len()));
        out.extend_from_slice(part);
    }
}

/// Appends credit for a stream.
pub fn put_credit(out: &mut Vec<u8>, stream: StreamId, bytes: u32) {
    out.extend(header(CREDIT, stream.number(), 4));
    out.extend(bytes.to_le_bytes());
}

/// Appends the end of a stream.
pub fn put_end(out: &mut Vec<u8>, stream: StreamId) {
    out.extend(header(END, stream.number(), 0));
}

/// Appends that no more of a stream is wanted.
pub fn put_stop(out: &mut Vec<u8>, stream: StreamId) {
    out.extend(header(STOP, stream.number(), 0));
}

fn header(kind: u8, stream: u32, length: usize) -> [u8; HEADER] {
    let [s0, s1, s2, s3] = stream.to_le_bytes();
    // All lengths are below 2^32 by their limits.
    let [l0, l1, l2, l3] = (length as u32).to_le_bytes();
    [kind, 0, 0, 0, s0, s1, s2, s3, l0, l1, l2, l3]
}

/// Collects bytes as they arrive and gives out whole frames. Holds the begin of one frame and what
/// was pushed last: whoever takes all frames after each push has no more than that.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    max_message: usize,
    broken: bool,
}

impl Decoder {
    /// Control messages may be so long: [`super::MAX_REPLY`] for a shim, [`super::MAX_CALL`] for
    /// an agent.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            max_message,
            broken: false,
        }
    }

    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() <= KEPT_ROOM {
                self.buffer.shrink_to(KEPT_ROOM);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Takes the next whole frame, if one is there.
    ///
    /// # Errors
    /// If the peer broke a rule; there is no next frame after that, and nothing more is kept.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        let pending = self.buffer.get(self.start..).unwrap_or_default();
        let head = match head(pending, self.max_message) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.broken = true;
                self.buffer = Vec::new();
                self.start = 0;
                return Err(error);
            }
        };
        let end = HEADER + head.length;
        if pending.len() < end {
            return Ok(None);
        }
        let from = self.start + HEADER;
        self.start += end;
        let body = self.buffer.get(from..self.start).unwrap_or_default();
        Ok(Some(match head.kind {
            Kind::Message => Frame::Message(body),
            Kind::Data(stream) => Frame::Data(stream, body),
            Kind::Credit(stream) => {
                let bytes = body.first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
                Frame::Credit(stream, bytes.min(MAX_CREDIT + 1))
            }
            Kind::End(stream) => Frame::End(stream),
            Kind::Stop(stream) => Frame::Stop(stream),
        }))
    }
}

enum Kind {
    Message,
    Data(StreamId),
    Credit(StreamId),
    End(StreamId),
    Stop(StreamId),
}

struct Head {
    kind: Kind,
    length: usize,
}

/// Checks a header before its body is waited for.
fn head(bytes: &[u8], max_message: usize) -> Result<Option<Head>, WireError> {
    let Some(&[kind, r0, r1, r2, s0, s1, s2, s3, l0, l1, l2, l3]) = bytes.first_chunk::<HEADER>()
    else {
        return Ok(None);
    };
    if (r0, r1, r2) != (0, 0, 0) {
        return Err(WireError::Reserved);
    }
    let number = u32::from_le_bytes([s0, s1, s2, s3]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let stream = || StreamId::from_number(number);
    let (known, allowed) = match kind {
        MESSAGE if number != 0 => return Err(WireError::Stream(number)),
        MESSAGE => (Kind::Message, 1..=max_message),
        DATA => (Kind::Data(stream()?), 1..=MAX_DATA),
        CREDIT => (Kind::Credit(stream()?), 4..=4),
        END => (Kind::End(stream()?), 0..=0),
        STOP => (Kind::Stop(stream()?), 0..=0),
        other => return Err(WireError::Kind(other)),
    };
    if !allowed.contains(&length) {
        return Err(WireError::Length { kind, length });
    }
    Ok(Some(Head {
        kind: known,
        length,
    }))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
