//! Talking to CRIU, which writes processes to files and makes processes of files again: its
//! service, started as a child with one end of a pair of sockets (`criu swrk`).
//!
//! ```text
//! request {type, opts} ──▶
//!                      ◀── notification {script}, with a descriptor for the terminal's
//!        {NOTIFY, ok}  ──▶
//!                      ◀── response {type, success, errno, message}
//! ```
//!
//! Source: images/rpc.proto of CRIU. Descriptors in options are those of the client: CRIU opens
//! them through /proc.

pub(crate) mod opts;
mod wire;

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use hull_sys::fdpass;
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

pub(crate) use wire::Message;
use wire::{Value, fields};

pub(crate) const DUMP: i64 = 1;
pub(crate) const RESTORE: i64 = 2;
pub(crate) const PRE_DUMP: i64 = 4;
const NOTIFY: i64 = 6;
/// Largest message that CRIU sends: 1 KiB by its own limit, and more for what it adds.
const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes at the end of CRIU's log that are looked through for its error.
const LOG_TAIL: usize = 16 * 1024;

/// A notification.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) script: String,
    pub(crate) pid: u32,
    pub(crate) fd: Option<OwnedFd>,
}

/// What CRIU answered in the end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Response {
    kind: u64,
    success: bool,
    pid: u32,
    script: String,
    notice_pid: u32,
    errno: i32,
    message: String,
}

/// A running service.
pub(crate) struct Criu {
    child: Child,
    socket: OwnedFd,
}

impl Criu {
    /// Starts it; it inherits `passed` under their own numbers.
    pub(crate) fn start(program: &OsStr, passed: &[BorrowedFd<'_>]) -> Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .context("cannot make a pair of sockets")?;
        let number = theirs.as_raw_fd().to_string();
        let mut all = vec![theirs.as_fd()];
        all.extend(passed);
        // No other thread starts programs meanwhile.
        for fd in &all {
            rustix::io::fcntl_setfd(fd, FdFlags::empty()).context("cannot pass a descriptor on")?;
        }
        let child = Command::new(program).args(["swrk", &number]).spawn();
        for fd in &all {
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
        match child {
            Ok(child) => Ok(Self {
                child,
                socket: ours,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "checkpoint and restore need CRIU, and {} is not there: install criu, or name it \
                 with --criu",
                program.display()
            ),
            Err(error) => Err(error).with_context(|| format!("cannot start {}", program.display())),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a request and waits for what becomes of it; the process id of what was restored.
    /// `log` is CRIU's log, for errors.
    pub(crate) fn call(
        mut self,
        kind: i64,
        opts: &Message,
        log: &Path,
        mut on: impl FnMut(Notice) -> Result<()>,
    ) -> Result<u32> {
        let mut request = Message::default();
        request.number(1, kind);
        request.nested(2, opts);
        self.send(&request)?;
        let outcome = loop {
            let (response, fd) = match self.receive() {
                Ok(Some(received)) => received,
                Ok(None) => {
                    break Err(anyhow::anyhow!("criu ended without an answer{}", tail(log)));
                }
                Err(error) => break Err(error),
            };
            if i64::try_from(response.kind) == Ok(NOTIFY) {
                let script = response.script.clone();
                let done = on(Notice {
                    script: response.script,
                    pid: response.notice_pid,
                    fd,
                });
                let mut answer = Message::default();
                answer.number(1, NOTIFY);
                answer.flag(3, done.is_ok());
                if let Err(error) = done {
                    // It stops by itself then.
                    let _ = self.send(&answer);
                    break Err(error.context(format!("criu was stopped at {script}")));
                }
                self.send(&answer)?;
                continue;
            }
            break if response.success {
                Ok(response.pid)
            } else {
                let errno = rustix::io::Errno::from_raw_os_error(response.errno.clamp(1, 4095));
                let why = match (response.message.as_str(), response.errno) {
                    ("", 0) => String::new(),
                    ("", _) => format!(": {errno}"),
                    (message, _) => format!(": {message}"),
                };
                Err(anyhow::anyhow!("criu failed{why}{}", tail(log)))
            };
        };
        drop(self.socket);
        // A service that hangs must not make the caller hang.
        if outcome.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        outcome
    }

    fn send(&self, message: &Message) -> Result<()> {
        fdpass::send(&self.socket, message.bytes(), &[]).context("cannot send to criu")?;
        Ok(())
    }

    fn receive(&self) -> Result<Option<(Response, Option<OwnedFd>)>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut fds = Vec::new();
        let count = match fdpass::receive(&self.socket, &mut buffer, &mut fds) {
            Ok(0) | Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => result.context("cannot receive from criu")?,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let response = parse(bytes).context("criu sent what is no response")?;
        Ok(Some((response, fds.pop())))
    }
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let mut response = Response::default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for (field, value) in fields(bytes)? {
        match (field, value) {
            (1, Value::Number(kind)) => response.kind = kind,
            (2, Value::Number(success)) => response.success = success != 0,
            (4, Value::Bytes(restored)) => {
                for (field, value) in fields(restored)? {
                    if let (1, Value::Number(pid)) = (field, value) {
                        // None is -1.
                        response.pid = u32::try_from(pid).unwrap_or(0);
                    }
                }
            }
            (5, Value::Bytes(notice)) => {
                for (field, value) in fields(notice)? {
                    match (field, value) {
                        (1, Value::Bytes(script)) => response.script = text(script),
                        (2, Value::Number(pid)) => {
                            response.notice_pid = u32::try_from(pid).unwrap_or(0)
                        }
                        _ => {}
                    }
                }
            }
            (7, Value::Number(errno)) => response.errno = i32::try_from(errno).unwrap_or(0),
            (9, Value::Bytes(message)) => response.message = text(message),
            _ => {}
        }
    }
    Some(response)
}

/// The last error of CRIU's log, and where that is.
fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL);
    let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned();
    let error = text
        .lines()
        .rev()
        .find(|line| line.contains("Error"))
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    format!("{error} (see {})", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_response_and_notice() {
        let mut restored = Message::default();
        restored.number(1, 77);
        let mut notice = Message::default();
        notice.text(1, "post-restore");
        notice.number(2, 78);
        let mut message = Message::default();
        message.number(1, RESTORE);
        message.flag(2, true);
        message.nested(4, &restored);
        message.nested(5, &notice);
        let response = parse(message.bytes()).expect("response");
        assert_eq!(
            (response.kind, response.success, response.pid),
            (2, true, 77)
        );
        assert_eq!(
            (response.script.as_str(), response.notice_pid),
            ("post-restore", 78)
        );
        let mut none = Message::default();
        none.number(1, -1);
        let mut message = Message::default();
        message.nested(4, &none);
        assert_eq!(parse(message.bytes()), Some(Response::default()));
        assert_eq!(parse(&[0xff]), None);
    }

    #[test]
    fn start_missing_program_says_what_to_install() {
        let Err(error) = Criu::start(OsStr::new("/nonexistent/criu"), &[]) else {
            panic!("started");
        };
        assert!(error.to_string().contains("install criu"), "{error}");
    }
}
