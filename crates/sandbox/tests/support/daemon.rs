//! The daemon's side of the protocol, for tests.

#![allow(unreachable_pub, reason = "included by several test files")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use hull_proto::message::{Attach, Call, Event, ExitStatus, Status};
use hull_proto::{Decoder, Message, Reply, Request, encode};
use hull_sys::fdpass;

/// Nothing in these tests takes longer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A control connection.
pub struct Daemon {
    pub socket: UnixStream,
    decoder: Decoder,
    seq: u64,
    pub events: VecDeque<Event>,
}

impl Daemon {
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).expect("connect to the shim");
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            socket,
            decoder: Decoder::default(),
            seq: 0,
            events: VecDeque::new(),
        }
    }

    pub fn call(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Reply {
        self.seq += 1;
        let bytes = encode(&Call {
            seq: self.seq,
            request,
        })
        .unwrap();
        let sent = fdpass::send(&self.socket, &bytes, fds).unwrap();
        self.socket.write_all(&bytes[sent..]).unwrap();
        loop {
            match self.next().expect("a reply") {
                Message::Reply { seq, reply } if seq == self.seq => return reply,
                Message::Reply { .. } => panic!("reply to nothing"),
                Message::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Next message; none at the end of the connection.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.decoder.next_message().unwrap() {
                return Some(message);
            }
            let mut buffer = [0; 4096];
            let count = self.socket.read(&mut buffer).expect("a message in time");
            if count == 0 {
                return None;
            }
            self.decoder.push(&buffer[..count]);
        }
    }

    pub fn event(&mut self) -> Event {
        if let Some(event) = self.events.pop_front() {
            return event;
        }
        match self.next() {
            Some(Message::Event(event)) => event,
            other => panic!("not an event: {other:?}"),
        }
    }

    /// Waits for the end of the first process.
    pub fn exited(&mut self) -> ExitStatus {
        loop {
            if let Event::Exited(status) = self.event() {
                return status;
            }
        }
    }

    /// Waits for the end of an exec session.
    pub fn exec_exited(&mut self, wanted: &str) -> i32 {
        loop {
            if let Event::ExecExited { id, code } = self.event()
                && id == wanted
            {
                return code;
            }
        }
    }

    pub fn status(&mut self) -> Status {
        match self.call(Request::Status, &[]) {
            Reply::Status(status) => status,
            other => panic!("not a status: {other:?}"),
        }
    }

    pub fn attach(&mut self, stdin: bool) -> UnixStream {
        let (ours, theirs) = stream_pair();
        let attach = Attach {
            fd: 0,
            stdin,
            stdout: true,
            stderr: true,
        };
        let reply = self.call(Request::Attach(attach), &[theirs.as_fd()]);
        assert!(matches!(reply, Reply::Done), "{reply:?}");
        ours
    }
}

pub fn stream_pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(LIMIT)).unwrap();
    (ours, theirs)
}

pub fn started(reply: Reply) -> u32 {
    match reply {
        Reply::Started { pid, .. } => pid,
        other => panic!("not started: {other:?}"),
    }
}

/// Reads an attach stream to its end: stdout and stderr.
pub fn demultiplex(mut stream: UnixStream) -> (Vec<u8>, Vec<u8>) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("attach stream ends");
    let (mut outputs, mut rest) = ([Vec::new(), Vec::new()], all.as_slice());
    while let Some((header, after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        outputs[usize::from(header[0]) - 1].extend_from_slice(&after[..length]);
        rest = &after[length..];
    }
    assert!(rest.is_empty(), "half a frame at the end");
    let [out, err] = outputs;
    (out, err)
}

/// Texts of a json-file log: stream and text of each record.
pub fn log_records(path: &Path) -> Vec<(String, String)> {
    let content = std::fs::read_to_string(path).unwrap_or_default();
    content
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            (
                value["stream"].as_str().unwrap().to_owned(),
                value["log"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
