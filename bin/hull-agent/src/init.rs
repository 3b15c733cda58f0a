//! A tiny init: runs one command, hands signals on to it, reaps whatever ends.
//!
//! As process 1 of a pid namespace it gets no default signal actions and inherits all orphans; a
//! program not written for that neither stops on SIGTERM nor reaps. Behaves as Docker's tini does.

use std::ffi::{CString, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::ExitCode;

use hull_sys::Errno;
use hull_sys::fork::fork;
use hull_sys::pidfd;
use hull_sys::proc::{StringArray, execve, set_subreaper};
use hull_sys::signal::{self, SignalSet};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, getpid, setpgid};

use crate::complain;

/// Signals the kernel sends for faults of the init itself: blocking them would only hide the fault.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
const SIGCHLD: i32 = 17;
const LAST_SIGNAL: i32 = 64;

const EXIT_NOT_FOUND: i32 = 127;
const EXIT_NOT_EXECUTABLE: i32 = 126;
const EXIT_INTERNAL: u8 = 125;

/// Where programs are searched when the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `command` (not empty) and ends as it does: its exit code, or 128 plus the signal.
pub(crate) fn run(command: &[OsString]) -> ExitCode {
    match supervise(command) {
        Ok(status) => ExitCode::from(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
        Err(Failure { step, errno }) => {
            complain(&format!("docker-init: {step}: {errno}\n"));
            ExitCode::from(EXIT_INTERNAL)
        }
    }
}

struct Failure {
    step: &'static str,
    errno: Errno,
}

fn at(step: &'static str) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { step, errno }
}

fn supervise(command: &[OsString]) -> Result<i32, Failure> {
    if getpid() != Pid::INIT {
        // Elsewhere than in a namespace of its own, orphans come here only on demand.
        set_subreaper().map_err(at("cannot become the reaper of orphans"))?;
    }
    let numbers: Vec<i32> = (1..=LAST_SIGNAL)
        .filter(|number| !FAULTS.contains(number))
        .collect();
    let handled = SignalSet::of(&numbers);
    let before = signal::set_blocked(handled).map_err(at("cannot block signals"))?;
    let signals = signal::signal_fd(handled).map_err(at("cannot receive signals"))?;
    let program = Program::new(command);
    let child = fork(|| program.become_it(before)).map_err(at("cannot start a process"))?;

    loop {
        wait_for(&signals).map_err(at("cannot wait for signals"))?;
        while let Some(received) = signal::read(&signals).map_err(at("cannot read signals"))? {
            if received.number != SIGCHLD {
                forward(child, received.number);
            }
        }
        if let Some(status) = reap(child) {
            return Ok(status);
        }
    }
}

fn wait_for(fd: &impl AsFd) -> Result<(), Errno> {
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Hands a signal on. The child may be gone already: its SIGCHLD is then on its way.
fn forward(child: Pid, number: i32) {
    // A pidfd, because it takes any number, the real-time ones too. The child is not reaped yet,
    // so its id still means it.
    if let Ok(fd) = pidfd::open(child) {
        let _ = pidfd::send_signal(fd, number);
    }
}

/// Reaps all that have ended; the status of the command once it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut status = None;
    while let Ok(Some(ended)) = pidfd::wait_any() {
        if ended.pid == child.as_raw_nonzero().get() {
            status = Some(ended.exit.status());
        }
    }
    status
}

/// The command, prepared before the fork.
struct Program {
    name: Vec<u8>,
    candidates: Vec<CString>,
    arguments: StringArray,
    environment: StringArray,
}

impl Program {
    fn new(command: &[OsString]) -> Self {
        // Strings from the kernel hold no null byte, so none is lost here.
        let strings = |list: Vec<Vec<u8>>| {
            StringArray::new(
                list.into_iter()
                    .filter_map(|item| CString::new(item).ok())
                    .collect(),
            )
        };
        let name = command
            .first()
            .map(|name| name.as_bytes().to_vec())
            .unwrap_or_default();
        let path =
            std::env::var_os("PATH").map_or_else(|| DEFAULT_PATH.to_vec(), OsString::into_vec);
        let environment = std::env::vars_os()
            .map(|(key, value)| [key.as_bytes(), b"=", value.as_bytes()].concat())
            .collect();
        Self {
            candidates: candidates(&name, &path),
            name,
            arguments: strings(
                command
                    .iter()
                    .map(|item| item.as_bytes().to_vec())
                    .collect(),
            ),
            environment: strings(environment),
        }
    }

    /// In the child: takes the foreground of the terminal, unblocks signals, executes.
    fn become_it(&self, unblocked: SignalSet) -> i32 {
        // A group of its own, so that Ctrl-C reaches the command once and the init not at all.
        // SIGTTOU is still blocked: a background group may then set the foreground.
        if setpgid(None, None).is_ok() {
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), getpid());
        }
        let _ = signal::set_blocked(unblocked);
        let mut reason = Errno::NOENT;
        for candidate in &self.candidates {
            let error = execve(candidate, &self.arguments, &self.environment);
            match error {
                Errno::NOENT | Errno::NOTDIR => {}
                // As execvp: remembered, for there may be a better one further on.
                Errno::ACCESS => reason = error,
                _ => {
                    reason = error;
                    break;
                }
            }
        }
        let name = String::from_utf8_lossy(&self.name);
        complain(&format!("docker-init: exec {name}: {reason}\n"));
        if reason == Errno::NOENT {
            EXIT_NOT_FOUND
        } else {
            EXIT_NOT_EXECUTABLE
        }
    }
}

/// The files a command name may mean: itself if it has a slash, else one in each folder of PATH.
fn candidates(name: &[u8], path: &[u8]) -> Vec<CString> {
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    if name.is_empty() {
        return Vec::new();
    }
    path.split(|byte| *byte == b':')
        .filter_map(|folder| {
            let folder = if folder.is_empty() { b"." } else { folder };
            CString::new([folder, b"/", name].concat()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_name_with_slash_is_taken_as_it_is() {
        assert_eq!(candidates(b"./x", b"/bin"), [c"./x".to_owned()]);
    }

    #[test]
    fn candidates_bare_name_is_searched_in_each_folder() {
        let found = candidates(b"x", b"/a::/b");
        assert_eq!(
            found,
            [c"/a/x".to_owned(), c"./x".to_owned(), c"/b/x".to_owned()]
        );
        assert!(candidates(b"", b"/a").is_empty());
    }
}
