//! Waiting for a process in the foreground: signals are handed on, a terminal is relayed.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use hull_container::Started;
use hull_sys::pidfd;
use hull_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};

use crate::console::{self, Raw};
use crate::sdnotify::Proxy;

const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;
const SIGWINCH: i32 = 28;
const LAST_SIGNAL: i32 = 64;
/// Faults of our own, and those that cannot be blocked.
const NOT_FORWARDED: [i32; 9] = [4, 5, 6, 7, 8, 9, 11, 19, 31];

/// Signals collected from before the process is there, so that none is lost.
pub(crate) struct Signals {
    fd: OwnedFd,
}

impl Signals {
    pub(crate) fn collect() -> Result<Self> {
        let numbers: Vec<i32> = (1..=LAST_SIGNAL)
            .filter(|number| !NOT_FORWARDED.contains(number))
            .collect();
        let set = SignalSet::of(&numbers);
        signal::set_blocked(set).context("cannot block signals")?;
        Ok(Self {
            fd: signal::signal_fd(set).context("cannot receive signals")?,
        })
    }
}

/// Waits for the end; the exit status as a shell would show it. What the process says of its
/// readiness is handed on.
pub(crate) fn wait(process: &Started, signals: &Signals, mut ready: Option<&Proxy>) -> Result<i32> {
    // It may take long, and needs next to nothing.
    hull_sys::memory::unmap_code();
    let terminal = process.terminal.as_ref();
    let _raw = terminal.and_then(|_| Raw::enter());
    if let Some(terminal) = terminal {
        console::copy_size(terminal);
    }
    let mut from_user = terminal.is_some();
    let mut to_user = terminal.is_some();
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&process.pidfd, PollFlags::IN),
            PollFd::new(&signals.fd, PollFlags::IN),
        ];
        let mut readers = Vec::new();
        if let Some(terminal) = terminal {
            if to_user {
                readers.push((terminal.as_fd(), rustix::stdio::stdout(), true));
            }
            if from_user {
                readers.push((stdin, terminal.as_fd(), false));
            }
        }
        for (from, _, _) in &readers {
            fds.push(PollFd::from_borrowed_fd(*from, PollFlags::IN));
        }
        if let Some(proxy) = ready {
            fds.push(PollFd::new(proxy.socket(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the process"),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        // Its descriptor is the last.
        if let Some(proxy) = ready.filter(|_| happened.last() == Some(&true)) {
            // Of this program the manager knows; of no other it needs to.
            match proxy.hear(std::process::id()) {
                Ok(false) => {}
                Ok(true) | Err(_) => ready = None,
            }
        }
        for ((from, to, is_output), _) in readers
            .iter()
            .zip(happened.iter().skip(2))
            .filter(|(_, happened)| **happened)
        {
            if !console::relay(*from, *to) {
                if *is_output {
                    to_user = false;
                } else {
                    from_user = false;
                }
            }
        }
        while let Some(received) = signal::read(&signals.fd).context("cannot read signals")? {
            if received.number == SIGCHLD
                && let Some(status) = reap(process)
            {
                drain(process, to_user);
                return Ok(status);
            }
            hand_on(received.number, process);
        }
        if happened.first() == Some(&true) {
            let ended = pidfd::wait(&process.pidfd, true).context("cannot wait for the process")?;
            if let Some(ended) = ended {
                drain(process, to_user);
                return Ok(ended.exit.status());
            }
        }
    }
}

/// Reaps whatever child has ended; the status, if it is the one that is waited for.
fn reap(process: &Started) -> Option<i32> {
    let mut status = None;
    while let Ok(Some(ended)) = pidfd::wait_any() {
        if i32::try_from(process.pid) == Ok(ended.pid) {
            status = Some(ended.exit.status());
        }
    }
    status
}

fn hand_on(number: i32, process: &Started) {
    match (number, &process.terminal) {
        (SIGCHLD | SIGURG, _) => {}
        (SIGWINCH, Some(terminal)) => console::copy_size(terminal),
        // It may have ended already: its status is on the way.
        _ => {
            let _ = pidfd::send_signal(&process.pidfd, number);
        }
    }
}

/// What the process wrote last may still lie in the terminal.
fn drain(process: &Started, open: bool) {
    let Some(terminal) = process.terminal.as_ref().filter(|_| open) else {
        return;
    };
    loop {
        let mut fds = [PollFd::new(terminal, PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&now)) {
            Ok(count) if count > 0 && console::relay(terminal.as_fd(), rustix::stdio::stdout()) => {
            }
            _ => return,
        }
    }
}
