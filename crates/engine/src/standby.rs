//! Shims started ahead of need: a container's start takes one that waits and another is started
//! behind its back. What cannot be had from the pool is started on the spot.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hull_model::{Error, Result};
use hull_network::pool::{Pool, Work};
use hull_proto::message::LISTEN_FD;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Shims kept waiting: containers are seldom started faster than one is made.
const READY: usize = 2;

/// Starts shims.
#[derive(Debug)]
pub(crate) struct Shims {
    program: Arc<Program>,
    pool: Pool<Standby, Infallible>,
}

/// The program, opened once: of an engine that was upgraded, the shims stay those of the daemon
/// that starts them.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    handle: OnceLock<OwnedFd>,
    /// A sandbox's folder in all but the name.
    placeholder: PathBuf,
}

/// A shim that waits for its sandbox.
#[derive(Debug)]
struct Standby {
    control: OwnedFd,
    pid: Pid,
}

impl Shims {
    /// Keeps shims ready of the program at `path` (none if `ready` is zero). `placeholder` is a path as
    /// long as that of any sandbox.
    pub(crate) fn new(path: PathBuf, placeholder: PathBuf, ready: usize) -> Result<Self> {
        let program = Arc::new(Program {
            path,
            handle: OnceLock::new(),
            placeholder,
        });
        let pool = Pool::start(
            "hull-shim-pool",
            ready.min(READY),
            Maker(Arc::clone(&program)),
        )
        .map_err(|e| Error::internal("cannot start a thread", e))?;
        Ok(Self { program, pool })
    }

    /// A shim that serves the sandbox in `dir` on `listener`.
    pub(crate) fn start(&self, dir: &Path, listener: BorrowedFd<'_>) -> Result<Pid> {
        match self.pool.take() {
            Some(standby) => match standby.serve(dir, listener) {
                Some(pid) => Ok(pid),
                None => self.program.start(dir, false, listener),
            },
            None => self.program.start(dir, false, listener),
        }
    }
}

impl Standby {
    /// Gives it the sandbox; none if it was killed meanwhile.
    fn serve(self, dir: &Path, listener: BorrowedFd<'_>) -> Option<Pid> {
        let path = dir.as_os_str().as_bytes();
        match hull_sys::fdpass::send(&self.control, path, &[listener]) {
            Ok(_) => Some(self.pid),
            Err(_) => {
                // Nobody holds the other end: it has ended.
                let _ = waitpid(Some(self.pid), WaitOptions::empty());
                None
            }
        }
    }
}

impl Program {
    fn handle(&self) -> Result<BorrowedFd<'_>> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle.as_fd());
        }
        let opened = hull_sys::sealed::open(&self.path).map_err(|e| {
            let path = self.path.display();
            Error::internal(
                format!("cannot use {path}; hull's binaries must sit in one folder"),
                e,
            )
        })?;
        // Of two first starts at once, one handle is kept.
        Ok(self.handle.get_or_init(|| opened).as_fd())
    }

    fn start(&self, dir: &Path, standby: bool, socket: BorrowedFd<'_>) -> Result<Pid> {
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Error::internal("cannot open /dev/null", e))?;
        let path = CString::new(dir.as_os_str().as_bytes())
            .map_err(|_| Error::invalid("path of the shim contains a NUL byte"))?;
        let mut args = vec![CString::from(c"hull-shim"), CString::from(c"--dir"), path];
        if standby {
            args.push(CString::from(c"--standby"));
        }
        let fds = [
            (null.as_fd(), 0),
            (null.as_fd(), 1),
            (null.as_fd(), 2),
            (socket, LISTEN_FD),
        ];
        hull_sys::spawn::spawn(self.handle()?, &args, &fds).map_err(|e| {
            Error::internal(format!("cannot start hull-shim for {}", dir.display()), e)
        })
    }
}

#[derive(Debug)]
struct Maker(Arc<Program>);

impl Work for Maker {
    type Item = Standby;
    type Job = Infallible;

    fn make(&self) -> Option<Standby> {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (control, theirs) = pair.ok()?;
        let pid = self
            .0
            .start(&self.0.placeholder, true, theirs.as_fd())
            .ok()?;
        Some(Standby { control, pid })
    }

    fn run(&self, _: Vec<Infallible>) {}
}
