//! Hooks that the first process runs in its namespaces while the root is still the host's
//! (`createContainer` of the OCI runtime specification).
//!
//! Everything is prepared by the parent; what runs in the child does not allocate.

use std::ffi::CString;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use hull_sys::clone3::{Clone3, Cloned, Namespaces, clone3};
use hull_sys::proc::StringArray;
use hull_sys::{Errno, pidfd, proc, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::process::{Signal, kill_process_group};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Step, above_stdio};
use crate::rootfs::{c_path, c_string};

/// A program that is run at a point of a container's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Absolute path.
    pub path: PathBuf,
    /// Arguments, the program's name first; none is the path alone.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<String>,
    /// After this time it is killed with all of its process group.
    pub timeout: Option<Duration>,
}

/// Bytes of a hook's output that an error shows.
const MAX_OUTPUT: u64 = 4096;
/// Exit status of a hook that could not be executed, as a shell has it.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// The hooks of one launch, made ready.
#[derive(Debug)]
pub struct InnerHooks {
    hooks: Vec<Prepared>,
    /// Standard input of all: a file in memory, filled once the process is there.
    state: OwnedFd,
    /// Standard output and error of all.
    output: OwnedFd,
    /// Where it is told how they ended, as [`Outcome`] reads it.
    answer: Option<OwnedFd>,
}

/// Bytes of an answer: of the hook its number and of the error its number, 0 for none.
const ANSWER: usize = 8;

/// How hooks ended that ran after the launch was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The hook that failed, from 0.
    pub index: u32,
    /// 0 for none, an exit status, or an error's number negated.
    pub status: i32,
}

impl Outcome {
    /// Reads an answer from the pipe that was given; none if there is none yet.
    #[must_use]
    pub fn read(pipe: &OwnedFd) -> Option<Self> {
        let mut bytes = [0u8; ANSWER];
        match rustix::io::read(pipe, &mut bytes) {
            Ok(ANSWER) => {}
            _ => return None,
        }
        let [a, b, c, d, e, f, g, h] = bytes;
        Some(Self {
            index: u32::from_ne_bytes([a, b, c, d]),
            status: i32::from_ne_bytes([e, f, g, h]),
        })
    }
}

#[derive(Debug)]
struct Prepared {
    path: CString,
    arguments: StringArray,
    environment: StringArray,
    timeout: Option<Timespec>,
}

impl InnerHooks {
    /// Makes hooks ready.
    ///
    /// # Errors
    /// A string holds a zero byte, or there is no memory for the files.
    pub fn prepare(hooks: &[Hook]) -> Result<Self, LaunchError> {
        let file = |name: &str| {
            memfd_create(name, MemfdFlags::CLOEXEC)
                .map_err(prepare("make a file in memory"))
                .and_then(above_stdio)
        };
        let strings = |list: &[String]| {
            let list: Result<Vec<CString>, LaunchError> =
                list.iter().map(|text| c_string(text.as_str())).collect();
            list.map(StringArray::new)
        };
        let prepared = hooks.iter().map(|hook| {
            let path = c_path(&hook.path)?;
            Ok(Prepared {
                arguments: if hook.args.is_empty() {
                    StringArray::new(vec![path.clone()])
                } else {
                    strings(&hook.args)?
                },
                environment: strings(&hook.env)?,
                timeout: hook.timeout.map(timespec),
                path,
            })
        });
        Ok(Self {
            hooks: prepared.collect::<Result<_, LaunchError>>()?,
            state: file("hook-state")?,
            output: file("hook-output")?,
            answer: None,
        })
    }

    /// They tell how they ended through this pipe.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn answering(self, pipe: OwnedFd) -> Result<Self, LaunchError> {
        Ok(Self {
            answer: Some(above_stdio(pipe)?),
            ..self
        })
    }

    /// As [`InnerHooks::run`], once the process was let go on. Runs in the child.
    pub(crate) fn run_and_tell(&self) -> Result<(), Failed> {
        let done = self.run();
        if let Some(pipe) = &self.answer {
            let (index, status) = match &done {
                Ok(()) => (0, 0),
                Err(failed) if failed.step == Step::HookStatus => {
                    (failed.index, failed.errno.raw_os_error())
                }
                Err(failed) => (failed.index, failed.errno.raw_os_error().saturating_neg()),
            };
            let mut bytes = [0u8; ANSWER];
            let (first, second) = bytes.split_at_mut(ANSWER / 2);
            first.copy_from_slice(&u32::try_from(index).unwrap_or(u32::MAX).to_ne_bytes());
            second.copy_from_slice(&status.to_ne_bytes());
            // Whoever waited may be gone.
            let _ = rustix::io::write(pipe, &bytes);
        }
        done
    }

    /// What they read. To be called before the process goes on, from
    /// [`crate::Options::before_pivot`].
    ///
    /// # Errors
    /// There is no memory left.
    pub fn set_state(&self, json: &[u8]) -> std::io::Result<()> {
        std::fs::File::from(self.state.try_clone()?).write_all_at(json, 0)
    }

    /// The beginning of what they wrote.
    #[must_use]
    pub fn output(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(copy) = self.output.try_clone() {
            let mut file = std::fs::File::from(copy);
            // Nothing to show is as good as unreadable: it is an addition to an error.
            let _ = file
                .seek(SeekFrom::Start(0))
                .and_then(|_| file.take(MAX_OUTPUT).read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Path of a hook, for messages.
    pub(crate) fn path(&self, index: usize) -> Option<String> {
        let hook = self.hooks.get(index)?;
        Some(hook.path.to_string_lossy().into_owned())
    }

    /// Runs all, one after the other, until one fails. Runs in the child.
    pub(crate) fn run(&self) -> Result<(), Failed> {
        for (index, hook) in self.hooks.iter().enumerate() {
            rustix::fs::seek(&self.state, rustix::fs::SeekFrom::Start(0))
                .at_index(Step::Hook, index)?;
            let plain = Clone3 {
                namespaces: Namespaces::NONE,
                cgroup: None,
                sibling: false,
            };
            let child = clone3(&plain, || hook.execute(&self.state, &self.output))
                .at_index(Step::Hook, index)?;
            match hook.wait(&child).at_index(Step::Hook, index)? {
                None => return Err(Errno::TIMEDOUT).at_index(Step::Hook, index),
                Some(0) => {}
                Some(status) => {
                    return Err(Errno::from_raw_os_error(status)).at_index(Step::HookStatus, index);
                }
            }
        }
        Ok(())
    }
}

impl Prepared {
    /// Becomes the hook; returns only on failure.
    fn execute(&self, state: &OwnedFd, output: &OwnedFd) -> i32 {
        let ready = || -> Result<(), Errno> {
            proc::set_parent_death_signal(libc::SIGKILL)?;
            rustix::process::setsid()?;
            signal::reset()?;
            rustix::process::umask(Mode::from_raw_mode(0o022));
            rustix::stdio::dup2_stdin(state)?;
            rustix::fs::fcntl_setfl(output, OFlags::APPEND)?;
            rustix::stdio::dup2_stdout(output)?;
            rustix::stdio::dup2_stderr(output)
        };
        if ready().is_err() {
            return NOT_EXECUTABLE;
        }
        match proc::execve(&self.path, &self.arguments, &self.environment) {
            Errno::NOENT | Errno::NOTDIR => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        }
    }

    /// The exit status; none if it took too long and was killed.
    fn wait(&self, child: &Cloned) -> hull_sys::Result<Option<i32>> {
        let mut on_time = true;
        if let Some(timeout) = &self.timeout {
            // Interrupted by nothing: all signals have their defaults.
            on_time = poll(
                &mut [PollFd::from_borrowed_fd(child.pidfd.as_fd(), PollFlags::IN)],
                Some(timeout),
            )? > 0;
        }
        if !on_time {
            let _ = kill_process_group(child.pid, Signal::KILL);
            // Not yet the leader of a group.
            let _ = pidfd::send_signal(&child.pidfd, libc::SIGKILL);
        }
        let ended = pidfd::wait(&child.pidfd, true)?;
        Ok(ended.filter(|_| on_time).map(|ended| ended.exit.status()))
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<Duration>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["A=b".to_owned()],
            timeout,
        }
    }

    #[test]
    fn run_each_reads_the_state_and_has_its_environment() {
        let hooks = InnerHooks::prepare(&[shell("cat; echo $A", None), shell("cat", None)])
            .expect("prepare");
        hooks.set_state(b"{}\n").expect("state");
        hooks.run().expect("run");
        assert_eq!(hooks.output(), "{}\nb\n{}");
    }

    #[test]
    fn run_failing_hook_stops_the_rest_with_its_status() {
        let hooks =
            InnerHooks::prepare(&[shell("exit 3", None), shell("echo no", None)]).expect("prepare");
        let failed = hooks.run().expect_err("failed");
        assert_eq!((failed.step, failed.index), (Step::HookStatus, 0));
        assert_eq!(failed.errno.raw_os_error(), 3);
        assert_eq!(hooks.output(), "");
    }

    #[test]
    fn run_and_tell_answer_is_that_of_the_hooks() {
        for (script, status) in [("exit 0", 0), ("exit 5", 5)] {
            let (read, write) = std::io::pipe().expect("pipe");
            let hooks = InnerHooks::prepare(&[shell(script, None)])
                .and_then(|hooks| hooks.answering(write.into()))
                .expect("prepare");
            assert_eq!(hooks.run_and_tell().is_ok(), status == 0);
            let outcome = Outcome::read(&read.into()).expect("answer");
            assert_eq!(outcome, Outcome { index: 0, status });
        }
    }

    #[test]
    fn run_slow_hook_is_killed_with_its_children() {
        let file = std::env::temp_dir().join(format!("hull-hook-late-{}", std::process::id()));
        let script = format!("(sleep 1; touch {}) & sleep 30", file.display());
        let hook = shell(&script, Some(Duration::from_millis(200)));
        let hooks = InnerHooks::prepare(&[hook]).expect("prepare");
        let failed = hooks.run().expect_err("too slow");
        assert_eq!((failed.step, failed.errno), (Step::Hook, Errno::TIMEDOUT));
        std::thread::sleep(Duration::from_millis(1300));
        assert!(!file.exists());
    }
}
