//! The parent's part in a launch that stops at stages.

use std::os::fd::OwnedFd;

use hull_sys::clone3::Cloned;
use hull_sys::{Errno, pidfd, tty};
use rustix::process::Pid;

use crate::LaunchError;
use crate::error::prepare;
use crate::launch::BeforePivot;
use crate::report::Reports;
use crate::spaces::Spaces;
use crate::sync::Message;

/// What is known of the process so far.
pub(crate) struct Served {
    pub(crate) cloned: Cloned,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) warnings: Vec<String>,
    is_born: bool,
}

impl Served {
    pub(crate) fn new(cloned: Cloned, terminal: Option<OwnedFd>) -> Self {
        Self {
            cloned,
            terminal,
            warnings: Vec::new(),
            is_born: false,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.cloned.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Gives the new user namespace its mappings. The score goes along: the process itself cannot
    /// write it from there, and what it clones inherits it.
    pub(crate) fn map(&mut self, spaces: &Spaces, score: Option<&str>) -> Result<(), LaunchError> {
        let pid = self.pid();
        if let Some(user) = &spaces.user {
            user.map(pid)?;
        }
        let Some(score) = score else { return Ok(()) };
        match std::fs::write(format!("/proc/{pid}/oom_score_adj"), score) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                self.warnings.push(format!(
                    "the host forbids to set the OOM score adjustment {score} as asked: the \
                     highest allowed value is kept"
                ));
                Ok(())
            }
            Err(error) => {
                let errno = error
                    .raw_os_error()
                    .map_or(Errno::IO, Errno::from_raw_os_error);
                Err(prepare("set the OOM score adjustment")(errno))
            }
        }
    }

    /// The process that counts takes the place of the one in between.
    pub(crate) fn born(&mut self, mut message: Message) -> Result<(), LaunchError> {
        let pid = i32::try_from(message.number).ok().and_then(Pid::from_raw);
        let (Some(pid), Some(pidfd)) = (pid, message.fds.pop()) else {
            return Err(prepare("learn of the process")(Errno::PROTO));
        };
        let between = std::mem::replace(&mut self.cloned, Cloned { pid, pidfd });
        self.is_born = true;
        pidfd::wait(&between.pidfd, true)
            .map(drop)
            .map_err(prepare("wait for the process in between"))
    }

    pub(crate) fn terminal(
        &mut self,
        mut message: Message,
        size: Option<(u16, u16)>,
    ) -> Result<(), LaunchError> {
        let master = message.fds.pop();
        let master = master
            .ok_or(Errno::PROTO)
            .map_err(prepare("get the terminal"))?;
        if let Some((rows, columns)) = size {
            tty::set_size(&master, rows, columns)
                .map_err(prepare("set the size of the terminal"))?;
        }
        self.terminal = Some(master);
        Ok(())
    }

    pub(crate) fn call(&self, before_pivot: Option<BeforePivot<'_>>) -> Result<(), LaunchError> {
        before_pivot.map_or(Ok(()), |BeforePivot(call)| call(self.pid()))
    }

    /// Ends the process if the parent's part failed or if it was never told of.
    pub(crate) fn check(
        &self,
        done: Result<(), LaunchError>,
        awaits_birth: bool,
        reports: &Reports,
    ) -> Result<(), LaunchError> {
        let lost = || {
            Err(LaunchError::Stopped(
                "the process that enters the namespaces ended early".to_owned(),
            ))
        };
        let done = match done {
            Ok(()) if awaits_birth && !self.is_born && !reports.has_any() => lost(),
            done => done,
        };
        if done.is_err() {
            let _ = pidfd::send_signal(&self.cloned.pidfd, libc::SIGKILL);
            let _ = pidfd::wait(&self.cloned.pidfd, true);
        }
        done
    }
}
