//! QEMU's monitor (QMP): one JSON object a line, asked now and then.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use serde_json::Value;

use crate::machine::GuestError;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest line that is taken.
const MAX_LINE: usize = 64 << 10;

/// A connection to a monitor.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: OwnedFd,
    received: Vec<u8>,
    greeted: bool,
    next: u64,
    broken: bool,
}

impl Monitor {
    pub(super) fn new(socket: OwnedFd) -> Result<Self, rustix::io::Errno> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            received: Vec::new(),
            greeted: false,
            next: 0,
            broken: false,
        })
    }

    /// Sends a command and waits for its answer.
    pub(super) fn ask(
        &mut self,
        action: &'static str,
        command: &str,
        arguments: Option<Value>,
    ) -> Result<Value, GuestError> {
        let until = Instant::now() + LIMIT;
        if !self.greeted {
            self.command("begin", "qmp_capabilities", None, until)?;
            self.greeted = true;
        }
        self.command(action, command, arguments, until)
    }

    fn command(
        &mut self,
        action: &'static str,
        command: &str,
        arguments: Option<Value>,
        until: Instant,
    ) -> Result<Value, GuestError> {
        let id = self.next;
        self.next += 1;
        let mut asked = serde_json::json!({ "execute": command, "id": id });
        if let (Some(arguments), Some(asked)) = (arguments, asked.as_object_mut()) {
            asked.insert("arguments".into(), arguments);
        }
        self.send(format!("{asked}\n").as_bytes(), until)?;
        loop {
            let line = self.line(until)?;
            // Greetings and events have no id, answers that came too late an older one.
            let Ok(mut answer) = serde_json::from_slice::<Value>(&line) else {
                return Err(self.broke("what it says is no JSON"));
            };
            if answer.get("id").and_then(Value::as_u64) != Some(id) {
                continue;
            }
            if let Some(error) = answer.get("error") {
                let reason = error.get("desc").and_then(Value::as_str);
                let reason = reason.unwrap_or("no reason given");
                return Err(GuestError::Refused {
                    action,
                    reason: reason.chars().take(200).collect(),
                });
            }
            return Ok(answer
                .get_mut("return")
                .map(Value::take)
                .unwrap_or_default());
        }
    }

    fn send(&mut self, mut bytes: &[u8], until: Instant) -> Result<(), GuestError> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                Err(_) => return Err(GuestError::Ended),
            }
        }
        Ok(())
    }

    fn line(&mut self, until: Instant) -> Result<Vec<u8>, GuestError> {
        let mut seen = 0;
        loop {
            let fresh = self.received.get(seen..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                return Ok(self.received.drain(..=seen + at).collect());
            }
            seen = self.received.len();
            if seen > MAX_LINE {
                return Err(self.broke("what it says has no end"));
            }
            if self.broken {
                return Err(GuestError::Silent("it said nonsense before"));
            }
            let mut buffer = [0; 4096];
            match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, 0)) => return Err(GuestError::Ended),
                Ok((_, count)) => self
                    .received
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.wait(PollFlags::IN, until)?,
                Err(_) => return Err(GuestError::Ended),
            }
        }
    }

    fn broke(&mut self, how: &'static str) -> GuestError {
        self.broken = true;
        self.received = Vec::new();
        GuestError::Silent(how)
    }

    fn wait(&self, flags: PollFlags, until: Instant) -> Result<(), GuestError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(GuestError::Silent("its time is up"));
        }
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.socket, flags)];
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(_) => Err(GuestError::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn monitor(answers: &'static [&'static str]) -> Monitor {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut lines = BufReader::new(theirs).lines();
            writeln!(writer, r#"{{"QMP": {{"version": {{}}}}}}"#).unwrap();
            for answer in answers {
                let Some(Ok(line)) = lines.next() else { return };
                let asked: Value = serde_json::from_str(&line).unwrap();
                let answer = answer.replace("ID", &asked["id"].to_string());
                let _ = writer.write_all(answer.as_bytes());
            }
            let _ = lines.next();
        });
        Monitor::new(ours.into()).unwrap()
    }

    const GREETED: &str = "{\"return\": {}, \"id\": ID}\n";

    #[test]
    fn ask_takes_the_answer_of_its_own_number() {
        let mut monitor = monitor(&[
            GREETED,
            "{\"event\": \"STOP\"}\n{\"return\": 1, \"id\": 99}\n{\"return\": {\"actual\": 7}, \"id\": ID}\n",
            GREETED,
        ]);
        let answer = monitor.ask("tell", "query-balloon", None).unwrap();
        assert_eq!(answer["actual"], 7);
        monitor.ask("stop", "stop", None).unwrap();
    }

    #[test]
    fn ask_refused_says_what_and_why() {
        let mut monitor = monitor(&[
            GREETED,
            "{\"error\": {\"class\": \"X\", \"desc\": \"no balloon\"}, \"id\": ID}\n",
        ]);
        let text = monitor
            .ask("resize", "balloon", None)
            .unwrap_err()
            .to_string();
        assert_eq!(text, "the hypervisor refuses to resize: no balloon");
    }

    #[test]
    fn ask_nonsense_or_the_end_is_an_error() {
        for answer in [&["nonsense\n"][..], &[GREETED][..]] {
            assert!(monitor(answer).ask("stop", "stop", None).is_err());
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut monitor = Monitor::new(ours.into()).unwrap();
        assert!(monitor.ask("stop", "stop", None).is_err());
    }

    #[test]
    fn line_without_end_is_bounded() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || while theirs.write_all(&[b'x'; 4096]).is_ok() {});
        let mut monitor = Monitor::new(ours.into()).unwrap();
        assert!(matches!(
            monitor.ask("stop", "stop", None),
            Err(GuestError::Silent(_))
        ));
        assert!(monitor.received.capacity() == 0);
        drop(monitor);
        writer.join().unwrap();
    }
}
