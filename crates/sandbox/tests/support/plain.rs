//! A back end without isolation: ordinary child processes. Shows that the loop needs nothing but
//! the contract, and tests it without root.

#![allow(unreachable_pub, reason = "included by several test files")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio as CommandStdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use hull_model::{ErrorKind, Resources, Stats};
use hull_proto::plan::ProcessPlan;
use hull_proto::{ExecLaunch, Failure, LaunchPlan};
use hull_sandbox::{Process, Sandbox, Stdio, Streams};

pub struct Plain {
    news: OwnedFd,
    wake: OwnedFd,
    ends: Receiver<(u32, i32)>,
    sender: Sender<(u32, i32)>,
    alive: Vec<u32>,
}

impl Plain {
    pub fn new() -> Self {
        let (news, wake) = rustix::pipe::pipe_with(
            rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
        )
        .unwrap();
        let (sender, ends) = channel();
        Self {
            news,
            wake,
            ends,
            sender,
            alive: Vec::new(),
        }
    }

    fn start(&mut self, plan: &ProcessPlan, stdio: Stdio) -> Result<Process, Failure> {
        let (program, args) = plan.args.split_first().expect("a program");
        let pipe = |wanted: bool| {
            if wanted {
                CommandStdio::piped()
            } else {
                CommandStdio::null()
            }
        };
        let connected = stdio != Stdio::Null;
        let mut child = Command::new(program)
            .args(args)
            .stdin(pipe(stdio == Stdio::Connected { stdin: true }))
            .stdout(pipe(connected))
            .stderr(pipe(connected))
            .spawn()
            .map_err(|error| Failure {
                kind: ErrorKind::CommandNotFound,
                message: format!("exec: \"{program}\": {error}"),
            })?;
        let streams = Streams {
            terminal: None,
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
        };
        let pid = child.id();
        self.alive.push(pid);
        let (sender, wake) = (self.sender.clone(), self.wake.try_clone().unwrap());
        std::thread::spawn(move || report(child, &sender, &wake));
        Ok(Process {
            pid,
            streams,
            warnings: Vec::new(),
        })
    }
}

fn report(mut child: Child, sender: &Sender<(u32, i32)>, wake: &OwnedFd) {
    let pid = child.id();
    let status = child.wait().unwrap();
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap());
    let _ = sender.send((pid, code));
    let _ = rustix::io::write(wake, &[0]);
}

fn kill(pid: u32, signal: i32) -> Result<(), Failure> {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("pid");
    let failed = |errno| Failure {
        kind: ErrorKind::Internal,
        message: format!("kill: {errno}"),
    };
    hull_sys::pidfd::open(pid)
        .and_then(|pidfd| hull_sys::pidfd::send_signal(pidfd, signal))
        .map_err(failed)
}

impl Sandbox for Plain {
    fn launch(
        &mut self,
        plan: &LaunchPlan,
        _fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure> {
        self.start(&plan.process, stdio)
    }

    fn exec(&mut self, exec: &ExecLaunch, stdio: Stdio) -> Result<Process, Failure> {
        self.start(&exec.process, stdio)
    }

    fn ended(&mut self) -> Option<(u32, i32)> {
        let _ = rustix::io::read(&self.news, &mut [0u8; 1]);
        let ended = self.ends.try_recv().ok()?;
        self.alive.retain(|pid| *pid != ended.0);
        Some(ended)
    }

    fn watch(&self) -> Option<BorrowedFd<'_>> {
        Some(self.news.as_fd())
    }

    fn signal(&mut self, pid: u32, signal: i32) -> Result<(), Failure> {
        kill(pid, signal)
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        self.alive.iter().try_for_each(|pid| kill(*pid, 9))
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.alive.iter().try_for_each(|pid| kill(*pid, 19))
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.alive.iter().try_for_each(|pid| kill(*pid, 18))
    }

    fn update(&mut self, _resources: &Resources) -> Result<Vec<String>, Failure> {
        Ok(vec!["limits have no effect".into()])
    }

    fn stats(&mut self) -> Result<Stats, Failure> {
        Ok(Stats {
            pids_current: self.alive.len() as u64,
            ..Stats::default()
        })
    }

    fn pids(&mut self) -> Result<Vec<u32>, Failure> {
        Ok(self.alive.clone())
    }

    fn oom_kills(&mut self) -> u64 {
        0
    }

    fn oom_notice(&mut self) -> Option<OwnedFd> {
        None
    }

    fn outlives_first(&self) -> bool {
        true
    }

    fn delete(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
