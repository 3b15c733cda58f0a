//! What a sandbox can do, whichever way it isolates.
//!
//! A back end is driven by one thread, never blocks for long, and reports failures as the wire
//! has them: kind and message. Process ids are those of the host, or numbers the back end made
//! up; they are unique among the processes that have not been reported by [`Sandbox::ended`].

use std::os::fd::{BorrowedFd, OwnedFd};

use hull_model::{Resources, Stats};
use hull_proto::guest::Processes;
use hull_proto::{ExecLaunch, Failure, LaunchPlan};

/// Which streams a process gets. A terminal is asked for by the process's plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// All of them are /dev/null.
    Null,
    /// Pipes, or a terminal; standard input is /dev/null unless `stdin`.
    Connected {
        /// With standard input.
        stdin: bool,
    },
}

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Our ends of its streams.
    pub streams: Streams,
    /// What could not be done fully.
    pub warnings: Vec<String>,
}

/// Our ends of a process's streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// The terminal; then the others are none.
    pub terminal: Option<OwnedFd>,
    /// Written by us.
    pub stdin: Option<OwnedFd>,
    /// Read by us.
    pub stdout: Option<OwnedFd>,
    /// Read by us.
    pub stderr: Option<OwnedFd>,
}

/// The contract of a sandbox back end.
pub trait Sandbox {
    /// Makes the sandbox and starts its first process. `fds` are what the plan refers to by
    /// index. After a failure nothing is left behind.
    ///
    /// # Errors
    /// Says which step failed; its kind tells a missing command from other failures.
    fn launch(
        &mut self,
        plan: &LaunchPlan,
        fds: Vec<OwnedFd>,
        stdio: Stdio,
    ) -> Result<Process, Failure>;

    /// Starts one more process.
    ///
    /// # Errors
    /// As [`Self::launch`]; a conflict if there is no sandbox.
    fn exec(&mut self, exec: &ExecLaunch, stdio: Stdio) -> Result<Process, Failure>;

    /// Next process that ended: its id and exit code (128+n by signal n). Never waits. Ids that
    /// the caller does not know are of processes that were re-parented to the monitor.
    fn ended(&mut self) -> Option<(u32, i32)>;

    /// A descriptor that becomes readable when [`Self::ended`] has news, for back ends whose
    /// processes are not children of the monitor.
    fn watch(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Takes what the user ought to know and no request was there to be answered with.
    fn notices(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Sets the size of a process's terminal, of which `terminal` is our end.
    ///
    /// # Errors
    /// If it cannot be set.
    fn resize(
        &mut self,
        _pid: u32,
        terminal: BorrowedFd<'_>,
        rows: u16,
        cols: u16,
    ) -> Result<(), Failure> {
        hull_sys::tty::set_size(terminal, rows, cols).map_err(|errno| Failure {
            kind: hull_model::ErrorKind::Internal,
            message: format!("cannot set the size of the terminal: {errno}"),
        })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If there is no such process, or no such signal.
    fn signal(&mut self, pid: u32, signal: i32) -> Result<(), Failure>;

    /// Kills every process.
    ///
    /// # Errors
    /// If that cannot be asked for; otherwise they may still take a moment to die.
    fn kill_all(&mut self) -> Result<(), Failure>;

    /// Freezes every process.
    ///
    /// # Errors
    /// If the host cannot freeze or there is nothing to freeze.
    fn pause(&mut self) -> Result<(), Failure>;

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    fn resume(&mut self) -> Result<(), Failure>;

    /// Changes limits; `None` fields stay as they are. Returns warnings.
    ///
    /// # Errors
    /// If a limit is refused by the host.
    fn update(&mut self, resources: &Resources) -> Result<Vec<String>, Failure>;

    /// Reads the counters.
    ///
    /// # Errors
    /// If there is no sandbox.
    fn stats(&mut self) -> Result<Stats, Failure>;

    /// Lists the processes.
    ///
    /// # Errors
    /// If there is no sandbox.
    fn pids(&mut self) -> Result<Vec<u32>, Failure>;

    /// Lists processes that the host does not see.
    ///
    /// # Errors
    /// Where it sees them all, and if there is no sandbox.
    fn processes(&mut self) -> Result<Processes, Failure> {
        Err(Failure {
            kind: hull_model::ErrorKind::NotImplemented,
            message: "the host sees the processes itself".into(),
        })
    }

    /// How many processes were killed for want of memory so far.
    fn oom_kills(&mut self) -> u64;

    /// A descriptor that becomes readable when [`Self::oom_kills`] may have grown, if the back end
    /// can tell. It is emptied with [`hull_sys::cgroup::drain`].
    fn oom_notice(&mut self) -> Option<OwnedFd>;

    /// Whether processes may outlive the first one, because it is not the init of its own
    /// process id namespace.
    fn outlives_first(&self) -> bool;

    /// Removes what the sandbox left on the host, killing what still runs. Idempotent.
    ///
    /// # Errors
    /// Everything that could not be removed, in one message.
    fn delete(&mut self) -> Result<(), Failure>;
}
