//! Containers: the back end that shares the host's kernel.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use hull_container::{ExecTarget, Host, LaunchError, Options, Started};
use hull_model::{ErrorKind, Resources, Stats};
use hull_proto::plan::{Namespace, SeccompPlan};
use hull_proto::{ExecLaunch, Failure, LaunchPlan};
use hull_sys::cgroup::Cgroup;
use hull_sys::{Errno, pidfd};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use crate::contract::{Process, Sandbox, Stdio, Streams};

/// A container, once it is launched.
#[derive(Debug, Default)]
pub struct Container {
    host: Option<Host>,
    running: Option<Running>,
    /// Processes that were started and not yet reported as ended.
    pidfds: BTreeMap<u32, OwnedFd>,
}

#[derive(Debug)]
struct Running {
    first: u32,
    cgroup: Box<dyn Cgroup>,
    own_pid_namespace: bool,
    /// Keeps the mounts up until the end is told, where the plan lets them go late.
    mounts: Option<OwnedFd>,
}

impl Container {
    /// A container that is not launched yet. The host is asked for its abilities at the launch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the host for its abilities ahead of the launch. A failure will show again there.
    pub fn ask_host(&mut self) {
        self.host = Host::detect().ok();
    }

    fn running(&self) -> Result<&Running, Failure> {
        self.running.as_ref().ok_or_else(|| Failure {
            kind: ErrorKind::Conflict,
            message: "the container is not running".into(),
        })
    }

    fn keep(&mut self, started: Started, ours: Streams) -> Process {
        self.pidfds.insert(started.pid, started.pidfd);
        let streams = match started.terminal {
            Some(terminal) => Streams {
                terminal: Some(terminal),
                ..Streams::default()
            },
            None => ours,
        };
        Process {
            pid: started.pid,
            streams,
            warnings: started.warnings,
        }
    }
}

/// What the process gets, and our ends of it.
struct Pipes {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    ours: Streams,
}

impl Pipes {
    fn make(stdio: Stdio, tty: bool) -> Result<Self, Failure> {
        let null = || {
            rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| internal("cannot open /dev/null", errno))
        };
        let pipe = || {
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
                .map_err(|errno| internal("cannot make a pipe for the process", errno))
        };
        let mut ours = Streams::default();
        let connected = match stdio {
            Stdio::Connected { stdin } if !tty => Some(stdin),
            // A terminal replaces all of them.
            _ => None,
        };
        let stdin = if connected == Some(true) {
            let (theirs, end) = pipe()?;
            ours.stdin = Some(end);
            theirs
        } else {
            null()?
        };
        let (stdout, stderr) = if connected.is_some() {
            let (out, err) = (pipe()?, pipe()?);
            (ours.stdout, ours.stderr) = (Some(out.0), Some(err.0));
            (out.1, err.1)
        } else {
            (null()?, null()?)
        };
        Ok(Self {
            stdin,
            stdout,
            stderr,
            ours,
        })
    }

    fn theirs(&self) -> hull_container::Stdio<'_> {
        hull_container::Stdio {
            stdin: self.stdin.as_fd(),
            stdout: self.stdout.as_fd(),
            stderr: self.stderr.as_fd(),
        }
    }
}

impl Sandbox for Container {
    fn launch(
        &mut self,
        plan: &LaunchPlan,
        fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure> {
        let host = match self.host.take() {
            Some(host) => host,
            None => Host::detect().map_err(|error| failed(&error))?,
        };
        let host = self.host.insert(host);
        let pipes = Pipes::make(stdio, plan.process.tty)?;
        // The payload must not run on with nobody to read its output or to record its end.
        let options = Options {
            die_with_parent: true,
            ..Options::default()
        };
        let launched = hull_container::launch(host, plan, &fds, &pipes.theirs(), &options)
            .map_err(|error| failed(&error))?;
        self.running = Some(Running {
            first: launched.process.pid,
            cgroup: launched.cgroup,
            own_pid_namespace: plan.namespaces.pid == Namespace::New,
            // One that has ended already has taken its mounts down: nothing to keep.
            mounts: plan
                .mounts_go_late
                .then(|| mount_namespace(launched.process.pid))
                .flatten(),
        });
        Ok(self.keep(launched.process, pipes.ours))
    }

    fn exec(&mut self, exec: &ExecLaunch, stdio: Stdio) -> Result<Process, Failure> {
        let running = self.running()?;
        let (Some(host), Some(first)) = (&self.host, self.pidfds.get(&running.first)) else {
            return Err(Failure {
                kind: ErrorKind::Conflict,
                message: "the container's first process has ended".into(),
            });
        };
        let mut plan = exec.process.clone();
        if exec.privileged {
            plan.capabilities = hull_sys::caps::CapSet::ALL.names();
            plan.seccomp = SeccompPlan::Unconfined;
        }
        let pipes = Pipes::make(stdio, plan.tty)?;
        let target = ExecTarget {
            pid: running.first,
            pidfd: first.as_fd(),
            cgroup: running.cgroup.as_ref(),
            also: hull_sys::clone3::Namespaces::NONE,
            chroot: false,
        };
        let options = Options {
            die_with_parent: true,
            ..Options::default()
        };
        let started = hull_container::exec(
            host,
            &target,
            &plan,
            &exec.seccomp_cache,
            &pipes.theirs(),
            &options,
        )
        .map_err(|error| failed(&error))?;
        Ok(self.keep(started, pipes.ours))
    }

    fn ended(&mut self) -> Option<(u32, i32)> {
        let ended = pidfd::wait_any().ok()??;
        let pid = ended.pid.unsigned_abs();
        self.pidfds.remove(&pid);
        Some((pid, ended.exit.status()))
    }

    fn signal(&mut self, pid: u32, signal: i32) -> Result<(), Failure> {
        let pidfd = self.pidfds.get(&pid).ok_or_else(|| Failure {
            kind: ErrorKind::NotFound,
            message: format!("process {pid} has ended"),
        })?;
        match pidfd::send_signal(pidfd, signal) {
            // It has ended and will be reaped in a moment: as if it had got the signal before.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::INVAL) => Err(Failure {
                kind: ErrorKind::InvalidArgument,
                message: format!("invalid signal: {signal}"),
            }),
            Err(errno) => Err(internal(&format!("cannot send signal {signal}"), errno)),
        }
    }

    fn kill_all(&mut self) -> Result<(), Failure> {
        self.running()?
            .cgroup
            .kill_all()
            .map_err(|error| failed(&error.into()))
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.running()?
            .cgroup
            .freeze()
            .map_err(|error| failed(&error.into()))
    }

    fn resume(&mut self) -> Result<(), Failure> {
        self.running()?
            .cgroup
            .thaw()
            .map_err(|error| failed(&error.into()))
    }

    fn update(&mut self, resources: &Resources) -> Result<Vec<String>, Failure> {
        self.running()?
            .cgroup
            .apply(resources)
            .map_err(|error| failed(&error.into()))
    }

    fn stats(&mut self) -> Result<Stats, Failure> {
        self.running()?
            .cgroup
            .stats()
            .map_err(|error| failed(&error.into()))
    }

    fn pids(&mut self) -> Result<Vec<u32>, Failure> {
        let pids = self
            .running()?
            .cgroup
            .pids()
            .map_err(|error| failed(&error.into()))?;
        Ok(pids.into_iter().map(i32::unsigned_abs).collect())
    }

    fn oom_kills(&mut self) -> u64 {
        let kills = self
            .running
            .as_ref()
            .map(|running| running.cgroup.oom_kills());
        kills.and_then(Result::ok).unwrap_or(0)
    }

    fn oom_notice(&mut self) -> Option<OwnedFd> {
        self.running.as_ref()?.cgroup.watch_oom().ok()
    }

    fn outlives_first(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| !running.own_pid_namespace)
    }

    fn delete(&mut self) -> Result<(), Failure> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        // An empty group is the rule: then killing is not worth its system calls.
        let removed = running.cgroup.remove().or_else(|_| {
            running
                .cgroup
                .kill_all()
                .and_then(|()| running.cgroup.remove())
        });
        drop(running.mounts);
        removed.map_err(|error| failed(&error.into()))
    }
}

/// A hold on the mount namespace of a process of ours: with it the process ends without taking
/// the mounts down, which is left to whoever closes it.
fn mount_namespace(pid: u32) -> Option<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// A failure with every cause in its message.
pub(crate) fn failed(error: &LaunchError) -> Failure {
    let mut message = error.to_string();
    let mut cause = match error.kind() {
        // The user's own mistake: the message has the reason in the words he knows.
        ErrorKind::CommandNotFound | ErrorKind::CommandNotExecutable => None,
        _ => std::error::Error::source(error),
    };
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Failure {
        kind: error.kind(),
        message,
    }
}

fn internal(what: &str, errno: Errno) -> Failure {
    Failure {
        kind: ErrorKind::Internal,
        message: format!("{what}: {errno}"),
    }
}
