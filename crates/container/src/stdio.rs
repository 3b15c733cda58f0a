//! Standard input, output and error of a process: three descriptors or a terminal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_sys::{Errno, mount, path, tty};

use crate::LaunchError;
use crate::error::prepare;
use crate::report::{At, Failed, Step, above_stdio, duplicate};
use crate::sync::{ChildSync, Stage};

/// What a process gets as 0, 1 and 2. Ignored if its plan says `tty`.
#[derive(Debug, Clone, Copy)]
pub struct Stdio<'a> {
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// The prepared side: descriptors above 2.
#[derive(Debug)]
pub(crate) enum PreparedStdio {
    Streams([OwnedFd; 3]),
    Terminal {
        slave: OwnedFd,
        /// A copy of its mount, if that is the host's: the child cannot make one.
        console: Option<OwnedFd>,
    },
    /// A terminal that the child opens once it has its devpts.
    Late,
}

/// A terminal to be mounted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Console<'a> {
    /// Its file, on a mount of the container's.
    File(BorrowedFd<'a>),
    /// A detached mount of it.
    Mount(BorrowedFd<'a>),
}

/// `/dev/null`'s device number: nobody shall come to own it.
const NULL: (u32, u32) = (1, 3);
/// Magic number of devpts.
pub(crate) const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Group of terminals in a container's devpts.
const TTY_GID: u32 = 5;

impl PreparedStdio {
    pub(crate) fn streams(stdio: &Stdio<'_>) -> Result<Self, LaunchError> {
        let [stdin, stdout, stderr] = [stdio.stdin, stdio.stdout, stdio.stderr].map(duplicate);
        Ok(Self::Streams([stdin?, stdout?, stderr?]))
    }

    /// A terminal of the given devpts (or the host's); returns the master, too.
    pub(crate) fn terminal(
        devpts: Option<BorrowedFd<'_>>,
        size: Option<(u16, u16)>,
    ) -> Result<(Self, OwnedFd), LaunchError> {
        let pty = match devpts {
            Some(devpts) => tty::open_pty_at(devpts),
            None => tty::open_pty(),
        }
        .map_err(prepare("open a terminal"))?;
        if let Some((rows, columns)) = size {
            tty::set_size(&pty.master, rows, columns)
                .map_err(prepare("set the size of the terminal"))?;
        }
        let console = match devpts {
            Some(_) => None,
            None => {
                let copied = mount::clone_tree(pty.slave.as_fd(), c"", false);
                Some(copied.map_err(prepare("bind the terminal"))?)
            }
        };
        Ok((
            Self::Terminal {
                slave: above_stdio(pty.slave)?,
                console: console.map(above_stdio).transpose()?,
            },
            pty.master,
        ))
    }

    /// What lies on /dev/console.
    pub(crate) fn console<'a>(&'a self, late: Option<&'a OwnedFd>) -> Option<Console<'a>> {
        match self {
            Self::Streams(_) => None,
            Self::Terminal {
                console: Some(tree),
                ..
            } => Some(Console::Mount(tree.as_fd())),
            Self::Terminal { slave, .. } => Some(Console::File(slave.as_fd())),
            Self::Late => late.map(|slave| Console::File(slave.as_fd())),
        }
    }

    /// The descriptors that are to become 0, 1 and 2.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        use std::os::fd::AsRawFd as _;
        match self {
            Self::Streams(streams) => streams.iter().map(|fd| fd.as_raw_fd()).collect(),
            Self::Terminal { slave, .. } => vec![slave.as_raw_fd()],
            Self::Late => Vec::new(),
        }
    }

    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Late)
    }

    /// Makes the descriptors 0, 1 and 2, and the terminal the controlling one. Runs in the child,
    /// which leads a session by now.
    pub(crate) fn install(&self, uid: u32) -> Result<(), Failed> {
        let [stdin, stdout, stderr] = match self {
            Self::Streams(streams) => streams.each_ref(),
            Self::Terminal { slave, .. } => {
                tty::set_controlling(slave).at(Step::Terminal)?;
                own(slave, uid, Some(TTY_GID));
                [slave, slave, slave]
            }
            Self::Late => return Ok(()),
        };
        rustix::stdio::dup2_stdin(stdin).at(Step::Stdio)?;
        rustix::stdio::dup2_stdout(stdout).at(Step::Stdio)?;
        rustix::stdio::dup2_stderr(stderr).at(Step::Stdio)?;
        if let (Self::Streams(streams), true) = (self, uid != 0) {
            for stream in streams {
                own(stream, uid, None);
            }
        }
        Ok(())
    }
}

/// Opens a terminal of the container's own devpts, gives its controlling side to the parent, and
/// makes it the controlling one and 0, 1 and 2. Runs in the child, which leads a session by now.
pub(crate) fn open_late(
    root: BorrowedFd<'_>,
    uid: u32,
    sync: Option<&ChildSync>,
) -> Result<OwnedFd, Failed> {
    let sync = sync.ok_or(Errno::PROTO).at(Step::Terminal)?;
    let devpts = path::resolve(root, c"/dev/pts").at(Step::Terminal)?;
    // What the image has there instead gives no terminal.
    if !mount::has_magic(&devpts, DEVPTS_MAGIC).at(Step::Terminal)? {
        return Err(Errno::NODEV).at(Step::Terminal);
    }
    let pty = tty::open_pty_at(devpts.as_fd()).at(Step::Terminal)?;
    sync.hand_over(Stage::Terminal, pty.master.as_fd())?;
    tty::set_controlling(&pty.slave).at(Step::Terminal)?;
    own(&pty.slave, uid, Some(TTY_GID));
    rustix::stdio::dup2_stdin(&pty.slave).at(Step::Stdio)?;
    rustix::stdio::dup2_stdout(&pty.slave).at(Step::Stdio)?;
    rustix::stdio::dup2_stderr(&pty.slave).at(Step::Stdio)?;
    Ok(pty.slave)
}

/// Gives a stream to the user, who may want to open it by `/dev/stdout`. Not all can be given.
fn own(stream: &OwnedFd, uid: u32, gid: Option<u32>) {
    let Ok(stat) = rustix::fs::fstat(stream) else {
        return;
    };
    let rdev = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    let is_pipe_or_terminal = match kind {
        rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket => true,
        rustix::fs::FileType::CharacterDevice => rdev != NULL,
        _ => false,
    };
    if is_pipe_or_terminal {
        let user = rustix::fs::Uid::from_raw(uid);
        let _: Result<(), Errno> =
            rustix::fs::fchown(stream, Some(user), gid.map(rustix::fs::Gid::from_raw));
    }
}
