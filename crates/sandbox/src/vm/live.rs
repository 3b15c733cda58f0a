//! A virtual machine that runs: its channel, its console, its end.
//!
//! ```text
//! running ──first process ended──▶ closing ──disks written, or CLOSE_LIMIT──▶ gone
//!    └──agent or hypervisor gone, protocol broken──────────────────────────▶ gone (137)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hull_hypervisor::{Guest, GuestEnd};
use hull_model::ErrorKind;
use hull_proto::Failure;
use hull_proto::guest::{FIRST_SESSION, GuestReply, GuestRequest};
use hull_sys::cgroup::Cgroup;
use rustix::event::epoll::EventFlags;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::boot::{Booted, failed};
use super::console::Console;
use super::link::{Broken, Link, News};
use super::shares::FileServer;
use crate::contract::{Process, Stdio};
use crate::serve::poller::{Poller, Watch};

/// How long a guest may take to write everything to its disks once its first process ended.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a guest may take for what was asked of it.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Exit code of what was killed with the machine.
const KILLED: i32 = 137;
/// Most bytes read at once.
const BUFFER: usize = 32 << 10;

/// The machine.
pub(super) struct Live {
    guest: Box<dyn Guest>,
    guest_watch: Watch,
    link: Link,
    console: Console,
    poller: Poller,
    buffer: Vec<u8>,
    pub(super) group: Box<dyn Cgroup>,
    pub(super) dir: PathBuf,
    /// Who serves the host's files; goes after the guest.
    files: Option<FileServer>,
    files_watch: Watch,
    /// Kept for the taps in it.
    _netns: Option<OwnedFd>,
    pub(super) memory: u64,
    pub(super) paused: bool,
    /// The code of the first process, once it ended, the call that has all written, and how long
    /// that may take.
    closing: Option<(i32, Option<u64>)>,
    timer: OwnedFd,
    timer_watch: Watch,
    until: Option<Instant>,
    gone: bool,
    pub(super) news: Vec<String>,
    pub(super) ended: Vec<(u32, i32)>,
    pub(super) oom_kills: u64,
}

impl Live {
    pub(super) fn new(
        booted: Booted,
        group: Box<dyn Cgroup>,
        dir: PathBuf,
        memory: u64,
    ) -> Result<Self, Failure> {
        let wrong = |errno| failed(format!("cannot watch the virtual machine: {errno}"));
        let mut poller = Poller::new().map_err(wrong)?;
        let link = Link::new(booted.channel, &mut poller).map_err(wrong)?;
        let console = Console::new(booted.console, &mut poller).map_err(wrong)?;
        let (mut guest_watch, mut timer_watch) = (poller.watch(), poller.watch());
        let files_watch = poller.watch();
        guest_watch
            .set(&poller, booted.guest.process(), EventFlags::IN)
            .map_err(wrong)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(wrong)?;
        timer_watch
            .set(&poller, &timer, EventFlags::IN)
            .map_err(wrong)?;
        Ok(Self {
            guest: booted.guest,
            guest_watch,
            link,
            console,
            poller,
            buffer: vec![0; BUFFER],
            group,
            dir,
            files: None,
            files_watch,
            _netns: booted.netns,
            memory,
            paused: false,
            closing: None,
            timer,
            timer_watch,
            until: None,
            gone: false,
            news: Vec::new(),
            ended: Vec::new(),
            oom_kills: 0,
        })
    }

    /// Takes over who serves the host's files.
    pub(super) fn serve_files(&mut self, server: FileServer) -> Result<(), Failure> {
        self.files_watch
            .set(&self.poller, server.process(), EventFlags::IN)
            .map_err(|errno| failed(format!("cannot watch the file server: {errno}")))?;
        self.files = Some(server);
        Ok(())
    }

    /// Readable when [`Self::turn`] has something to do.
    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }

    pub(super) fn pid(&self) -> u32 {
        self.guest.pid()
    }

    pub(super) fn guest(&mut self) -> &mut dyn Guest {
        self.guest.as_mut()
    }

    /// Starts a process: opens its streams, asks for it, and waits for the answer.
    pub(super) fn start(
        &mut self,
        session: u32,
        pid: u32,
        stdio: Stdio,
        terminal: bool,
        request: GuestRequest,
        limit: Duration,
    ) -> Result<Process, Failure> {
        let streams = self
            .link
            .open(session, pid, stdio, terminal, &mut self.poller)
            .map_err(|errno| failed(format!("cannot make pipes for the process: {errno}")))?;
        let reply = self
            .link
            .call(request)
            .and_then(|seq| self.wait(seq, limit));
        match reply {
            Ok(GuestReply::Started { warnings, .. }) => Ok(Process {
                pid,
                streams,
                warnings,
            }),
            other => {
                self.link.drop_session(session);
                Err(match other {
                    Err(failure) => failure,
                    Ok(_) => nonsense(),
                })
            }
        }
    }

    /// A session for one more process.
    pub(super) fn free_session(&self) -> Result<u32, Failure> {
        self.link.free_session().ok_or_else(|| Failure {
            kind: ErrorKind::Unavailable,
            message: "the virtual machine has no room for one more session".into(),
        })
    }

    /// The session of a process that runs.
    pub(super) fn session_of(&self, pid: u32) -> Option<u32> {
        self.link.session_of(pid)
    }

    /// Asks and waits for the answer; what the guest refuses is an error.
    pub(super) fn ask(&mut self, request: GuestRequest) -> Result<GuestReply, Failure> {
        let seq = self.link.call(request)?;
        self.wait(seq, CALL_LIMIT)
    }

    /// Puts a call in line, to be followed by others.
    pub(super) fn queue(&mut self, request: GuestRequest) -> Result<u64, Failure> {
        self.link.call(request)
    }

    /// Asks without waiting.
    pub(super) fn tell(&mut self, request: GuestRequest) {
        // Too large is none of those that are told.
        let _ = self.link.tell(request);
        self.flush();
    }

    /// Waits for an answer, serving everything else meanwhile.
    pub(super) fn wait(&mut self, seq: u64, limit: Duration) -> Result<GuestReply, Failure> {
        let until = Instant::now() + limit;
        loop {
            self.flush();
            match self.link.reply(seq) {
                Some(GuestReply::Failed(failure)) => {
                    return Err(Failure {
                        kind: failure.kind,
                        message: super::link::shorten(failure.message),
                    });
                }
                Some(reply) => return Ok(reply),
                None if self.gone => {
                    // Told here, and not once more.
                    let why = self.news.pop().unwrap_or_else(|| "it ended".into());
                    return Err(failed(format!("cannot run the virtual machine: {why}")));
                }
                None => {}
            }
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                self.link.give_up(seq);
                return Err(failed(format!(
                    "the virtual machine did not answer within {} s{}",
                    limit.as_secs(),
                    self.last_words()
                )));
            }
            self.events(rest);
        }
    }

    /// Does what is to be done now.
    pub(super) fn turn(&mut self) {
        self.events(Duration::ZERO);
        self.flush();
    }

    fn events(&mut self, limit: Duration) {
        let Ok(events) = self.poller.wait(Some(limit)) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        for (token, flags) in events {
            if token == self.console.token() {
                self.console.read(&mut buffer, &self.poller);
            } else if token == self.guest_watch.token() {
                self.check_guest(&mut buffer);
            } else if token == self.files_watch.token() {
                self.files_gone();
            } else if token != self.timer_watch.token() {
                let done = self.link.ready(token, flags, &mut buffer, &self.poller);
                if let Err(broken) = done {
                    self.broke(&broken);
                }
            }
        }
        self.buffer = buffer;
        self.take_news();
        self.check_time();
    }

    fn flush(&mut self) {
        if self.gone {
            return;
        }
        if let Err(broken) = self.link.flush(&self.poller) {
            self.broke(&broken);
        }
    }

    fn take_news(&mut self) {
        while let Some(news) = self.link.news() {
            match news {
                News::Ended { session, code, .. } if session == FIRST_SESSION => self.close(code),
                News::Ended { pid, code, .. } => self.ended.push((pid, code)),
                News::Oom(kills) => self.oom_kills = self.oom_kills.max(kills),
                News::Warning(text) => self.news.push(format!("the guest says: {text}")),
            }
        }
        if let Some((code, Some(seq))) = self.closing
            && self.link.reply(seq).is_some()
        {
            // Everything is on the disks: what the guest does from here on is only its end.
            self.closing = Some((code, None));
            self.guest.stop();
        }
    }

    /// The first process ended: has the guest write what it has to write. The end is told once the
    /// machine is gone, for only then can its disks be used by another.
    fn close(&mut self, code: i32) {
        if self.closing.is_some() {
            return;
        }
        let asked = self.link.call(GuestRequest::Shutdown).ok();
        self.closing = Some((code, asked));
        self.arm(CLOSE_LIMIT);
        self.flush();
    }

    /// The machine must be gone by then.
    pub(super) fn arm(&mut self, limit: Duration) {
        if self.until.is_some() {
            return;
        }
        self.until = Some(Instant::now() + limit);
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: limit.as_secs() as i64,
                tv_nsec: i64::from(limit.subsec_nanos()).max(1),
            },
        };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time);
    }

    fn check_time(&mut self) {
        if self.until.is_some_and(|until| Instant::now() >= until) && !self.gone {
            let _ = self
                .timer_watch
                .set(&self.poller, &self.timer, EventFlags::empty());
            self.guest.stop();
        }
    }

    fn broke(&mut self, broken: &Broken) {
        if self.gone || self.closing.is_some() && matches!(broken, Broken::Closed) {
            // That is how it ends.
            self.guest.stop();
            return;
        }
        // The reason is the hypervisor's own, if it died.
        if matches!(broken, Broken::Closed) {
            for _ in 0..50 {
                if self.guest.ended().is_some() {
                    return self.finish();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let text = format!(
            "the virtual machine is ended: {broken}{}",
            self.last_words()
        );
        self.news.push(text);
        self.guest.stop();
        self.finish();
    }

    /// A guest whose files are gone would wait for them for ever.
    fn files_gone(&mut self) {
        if let Some(server) = &self.files {
            let nothing = EventFlags::empty();
            let _ = self
                .files_watch
                .set(&self.poller, server.process(), nothing);
        }
        // It goes with its guest, too.
        if !self.gone && self.closing.is_none() && self.guest.ended().is_none() {
            let text = "the virtual machine is ended: the server of its volumes died";
            self.news.push(text.into());
            // That it is killed for this needs no words.
            self.until.get_or_insert(Instant::now());
        }
        self.guest.stop();
    }

    fn check_guest(&mut self, buffer: &mut [u8]) {
        if self.gone || self.guest.ended().is_none() {
            return;
        }
        // What the agent said before it went.
        let _ = self.link.receive(buffer, &self.poller);
        self.take_news();
        self.finish();
    }

    /// The machine is no more: tells the end of what has not ended.
    fn finish(&mut self) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        let end = self.guest.ended();
        let _ = self
            .guest_watch
            .set(&self.poller, self.guest.process(), EventFlags::empty());
        let _ = self
            .timer_watch
            .set(&self.poller, &self.timer, EventFlags::empty());
        let first = self.guest.pid();
        if self.closing.is_none() {
            self.explain(end);
        }
        for pid in self.link.abandon(&self.poller) {
            if pid != first {
                self.ended.push((pid, KILLED));
            }
        }
        let code = self.closing.map_or(KILLED, |(code, _)| code);
        self.ended.push((first, code));
    }

    fn explain(&mut self, end: Option<GuestEnd>) {
        let how = match end {
            Some(GuestEnd::PoweredOff) => "the virtual machine powered off",
            Some(GuestEnd::Died(KILLED)) if self.until.is_some() => return,
            Some(GuestEnd::Died(KILLED)) => "the hypervisor was killed",
            Some(GuestEnd::Died(_)) => "the hypervisor failed",
            None => return,
        };
        let text = format!("{how}{}", self.last_words());
        self.news.push(text);
    }

    /// What hypervisor and console said last, for a message.
    fn last_words(&mut self) -> String {
        let complaints = super::link::shorten(self.guest.complaints());
        let console = self.console.last_words();
        let mut text = String::new();
        if !complaints.is_empty() {
            text.push_str(&format!("; it said: {complaints}"));
        }
        if !console.is_empty() {
            text.push_str(&format!("; its console: {console}"));
        }
        text
    }

    /// Ends the machine now.
    pub(super) fn stop(&mut self) {
        self.guest.stop();
    }

    /// Waits for the end of the hypervisor; what it leaves on the host.
    pub(super) fn into_remains(self) -> (Box<dyn Cgroup>, PathBuf) {
        let Self {
            guest,
            group,
            dir,
            files,
            ..
        } = self;
        drop(guest);
        drop(files);
        (group, dir)
    }
}

pub(super) fn nonsense() -> Failure {
    failed("the virtual machine's agent gave an answer that makes no sense")
}
