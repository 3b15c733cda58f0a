//! sd_notify(3) for programs inside: a service manager that waits for the word of this runtime gets
//! that of the container's program, as under runc.
//!
//! ```text
//! $NOTIFY_SOCKET ◀─ READY=1, MAINPID, BARRIER ─ hull-oci ◀─ ROOT/ID/notify/notify.sock,
//!                                                           inside: /run/notify/notify.sock
//! ```
//!
//! `create` shows the folder, `start` binds the socket in it and waits; `run` does both.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::{MountKind, MountOptions, PlanMount, ProcessPlan};
use hull_sys::fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::state::Entry;

const VARIABLE: &str = "NOTIFY_SOCKET";
/// Folder of the socket in that of the container, and inside.
const DIR: &str = "notify";
const INSIDE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// Longest message read; those of sd_notify are a few lines.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How long the manager may take to have read all (sd_notify_barrier(3)).
const BARRIER_SECONDS: i64 = 30;

/// Whether somebody waits for word.
pub(crate) fn is_wanted() -> bool {
    manager().is_some()
}

fn manager() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|name| !name.is_empty())
}

fn variable_inside() -> String {
    format!("{VARIABLE}={INSIDE}/{SOCKET}")
}

/// Shows the container a folder in which the socket will be.
pub(crate) fn prepare(entry: &Entry, plan: &mut LaunchPlan) -> Result<()> {
    if !is_wanted() {
        return Ok(());
    }
    let source = entry.dir().join(DIR);
    let fail = || format!("cannot make {}", source.display());
    DirBuilder::new()
        .mode(0o755)
        .create(&source)
        .with_context(fail)?;
    // Whatever the umask is: any user inside may write to the socket.
    fs::set_permissions(&source, Permissions::from_mode(0o755)).with_context(fail)?;
    plan.mounts.push(PlanMount {
        target: INSIDE.to_owned(),
        kind: MountKind::Bind {
            source,
            recursive: false,
        },
        options: MountOptions {
            read_only: true,
            nosuid: true,
            nodev: true,
            noexec: true,
            ..MountOptions::default()
        },
    });
    let env = &mut plan.process.env;
    env.retain(|variable| !variable.starts_with("NOTIFY_SOCKET="));
    env.push(variable_inside());
    Ok(())
}

/// The process without what [`prepare`] has added: further ones in the container are not it.
pub(crate) fn without(mut process: ProcessPlan) -> ProcessPlan {
    if is_wanted() {
        let ours = variable_inside();
        process.env.retain(|variable| *variable != ours);
    }
    process
}

/// Hands on what the container says.
#[derive(Debug)]
pub(crate) struct Proxy {
    socket: UnixDatagram,
    manager: UnixDatagram,
}

impl Proxy {
    /// Binds the socket, if the container was made with a folder for it.
    pub(crate) fn bind(entry: &Entry) -> Result<Option<Self>> {
        let Some(name) = manager() else {
            return Ok(None);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(entry.dir().join(DIR), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.context("cannot open the folder of the notify socket")?,
        };
        let manager = connect(&name)
            .with_context(|| format!("${VARIABLE}: cannot connect to {}", name.display()))?;
        // By the descriptor, since names of sockets are short.
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        let fail = "cannot make the notify socket";
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(fail);
            }
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).context(fail)?;
        fs::set_permissions(&path, Permissions::from_mode(0o777)).context(fail)?;
        Ok(Some(Self { socket, manager }))
    }

    /// Readable when the container has said something.
    pub(crate) fn socket(&self) -> &UnixDatagram {
        &self.socket
    }

    /// Waits until the container is ready and tells the manager, whose main process is `pid` then;
    /// or until `process` has ended.
    pub(crate) fn wait(&self, process: &OwnedFd, pid: u32) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(process, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for the container"),
            }
            let [said, ended] = fds.each_ref().map(|fd| !fd.revents().is_empty());
            if said && self.hear(pid)? {
                return self.barrier();
            }
            if ended && !said {
                return Ok(());
            }
        }
    }

    /// Takes one message; true once the manager knows that the container is ready.
    pub(crate) fn hear(&self, pid: u32) -> Result<bool> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let count = self
            .socket
            .recv(&mut buffer)
            .context("cannot read the notify socket")?;
        let said = buffer.get(..count).unwrap_or_default();
        let Some(ready) = said
            .split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(b"READY="))
        else {
            return Ok(false);
        };
        let mut message = ready.to_vec();
        message.extend_from_slice(format!("\nMAINPID={pid}\n").as_bytes());
        self.manager
            .send(&message)
            .with_context(|| format!("${VARIABLE}: cannot tell that the container is ready"))?;
        Ok(true)
    }

    /// Waits until the manager has read all of it: it asks who has sent it, who may not have ended.
    fn barrier(&self) -> Result<()> {
        let fail = || format!("${VARIABLE}: cannot wait for the manager");
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).with_context(fail)?;
        fdpass::send(&self.manager, b"BARRIER=1", &[write.as_fd()]).with_context(fail)?;
        drop(write);
        let limit = Timespec {
            tv_sec: BARRIER_SECONDS,
            tv_nsec: 0,
        };
        // One that does not know of it is not waited for any longer.
        match poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).with_context(fail),
        }
    }
}

/// Connects to a path, or to a name behind `@`.
fn connect(name: &OsString) -> Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    let address = match name.as_bytes().split_first() {
        Some((b'@', rest)) => SocketAddr::from_abstract_name(rest)?,
        Some((b'/', _)) => SocketAddr::from_pathname(name)?,
        _ => bail!("it is neither an absolute path nor begins with '@'"),
    };
    socket.connect_addr(&address)?;
    Ok(socket)
}
