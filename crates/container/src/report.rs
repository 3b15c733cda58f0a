//! What the child tells the parent: eight bytes a record, over a close-on-exec pipe.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_model::ErrorKind;
use hull_sys::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::LaunchError;

macro_rules! steps {
    ($($name:ident = $text:literal,)*) => {
        /// A step of the child. Its text completes "cannot …".
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u16)]
        pub(crate) enum Step { $($name,)* }

        impl Step {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

steps! {
    Ready = "be ready",
    JoinCgroup = "join the control group",
    ParentDeath = "tie the process to its monitor",
    JoinNamespace = "join a namespace",
    CgroupNamespace = "make a control group namespace",
    Loopback = "set the loopback interface up",
    Session = "start a session",
    Signals = "set signals to their defaults",
    Terminal = "set the controlling terminal",
    Stdio = "set standard input and output",
    Propagation = "make mounts private",
    Rootfs = "mount the root file system",
    Procfs = "mount a private procfs",
    Target = "make the mount target",
    MountOverProc = "mount over procfs at",
    Mount = "mount",
    MountOptions = "set the options of the mount at",
    Device = "make the device",
    Console = "make /dev/console",
    Links = "make the links in /dev",
    Sysctl = "set the kernel parameter",
    Masked = "hide",
    ReadOnly = "make read-only",
    Cwd = "change to the working directory",
    Pivot = "change the root",
    HostName = "set the host name",
    DomainName = "set the domain name",
    Rlimit = "set the resource limit",
    OomScore = "set the OOM score adjustment",
    Scheduler = "set the scheduler",
    IoPriority = "set the I/O priority",
    Personality = "set the personality",
    CpuAffinity = "set the processors",
    MemoryPolicy = "set the memory policy",
    AppArmor = "set the AppArmor profile",
    SeLinux = "set the SELinux label",
    Capabilities = "set capabilities",
    Groups = "set groups",
    Gid = "set the group",
    Uid = "set the user",
    NoNewPrivileges = "set no_new_privs",
    Descriptors = "close descriptors",
    Hold = "wait for the start",
    Seccomp = "install the system call filter",
    Listener = "hand the descriptor of the system call filter over",
    Exec = "execute",
    Sync = "wait for the monitor",
    UserNamespace = "enter the user namespace",
    TimeNamespace = "make a time namespace with its offsets",
    Clone = "clone a process with its namespaces",
    MountSource = "use the source of the mount at",
    CopyUp = "copy the folder into the mount at",
    RootPropagation = "set the propagation of the root",
    HideHost = "hide the host's file systems",
    Hook = "run the createContainer hook",
    HookStatus = "go on after the createContainer hook",
}

impl Step {
    /// The kind of a failure at this step.
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Self::Scheduler
            | Self::IoPriority
            | Self::CpuAffinity
            | Self::MemoryPolicy
            | Self::AppArmor
            | Self::SeLinux => ErrorKind::InvalidArgument,
            Self::Cwd | Self::Target | Self::MountOverProc | Self::Sysctl | Self::HostName => {
                ErrorKind::InvalidArgument
            }
            _ => ErrorKind::Internal,
        }
    }

    fn from_number(number: u16) -> Option<(Self, &'static str)> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A step failed; `index` says on which item of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) step: Step,
    pub(crate) index: usize,
    pub(crate) errno: Errno,
}

/// Adds the step to an errno.
pub(crate) trait At<T> {
    fn at(self, step: Step) -> Result<T, Failed>;
    fn at_index(self, step: Step, index: usize) -> Result<T, Failed>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step) -> Result<T, Failed> {
        self.at_index(step, 0)
    }

    fn at_index(self, step: Step, index: usize) -> Result<T, Failed> {
        self.map_err(|errno| Failed { step, index, errno })
    }
}

/// Exit status of a child that reported a failure.
pub(crate) const CHILD_FAILED: i32 = 253;

const WARNING: u16 = 0x8000;
const RECORD: usize = 8;
/// The largest number the kernel uses for an error.
const MAX_ERRNO: i32 = 4095;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

impl Reporter {
    pub(crate) fn fail(&self, failed: Failed) -> i32 {
        self.send(failed, 0);
        CHILD_FAILED
    }

    pub(crate) fn number(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        self.0.as_raw_fd()
    }

    /// Something was not possible but is no reason to stop.
    pub(crate) fn warn(&self, step: Step, index: usize, errno: Errno) {
        self.send(Failed { step, index, errno }, WARNING);
    }

    /// All is done but the wait for the start and what comes after it.
    pub(crate) fn ready(&self) {
        self.send(
            Failed {
                step: Step::Ready,
                index: 0,
                errno: Errno::INTR,
            },
            0,
        );
    }

    fn send(&self, failed: Failed, mark: u16) {
        let mut record = [0u8; RECORD];
        let (step, rest) = record.split_at_mut(2);
        let (index, errno) = rest.split_at_mut(2);
        step.copy_from_slice(&(failed.step as u16 | mark).to_ne_bytes());
        index.copy_from_slice(
            &u16::try_from(failed.index)
                .unwrap_or(u16::MAX)
                .to_ne_bytes(),
        );
        errno.copy_from_slice(&failed.errno.raw_os_error().to_ne_bytes());
        // If the parent is gone there is nobody to tell.
        let _ = rustix::io::write(&self.0, &record);
    }
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct Reports(OwnedFd, Cell<bool>);

/// What the child told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) failed: Option<Failed>,
    pub(crate) warnings: Vec<Failed>,
}

pub(crate) fn pipe() -> Result<(Reports, Reporter), LaunchError> {
    let (read, write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(crate::error::prepare("make a pipe"))?;
    // Above the numbers of stdio, which the child overwrites.
    let write = above_stdio(write)?;
    Ok((Reports(read, Cell::new(false)), Reporter(write)))
}

/// The same open file under a number that stdio does not use.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, LaunchError> {
    use std::os::fd::AsRawFd as _;
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    duplicate(fd.as_fd())
}

/// A duplicate, close-on-exec, under a number that stdio does not use.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(crate::error::prepare("duplicate a descriptor"))
}

impl Reports {
    /// Whether something was told, without taking it.
    pub(crate) fn has_any(&self) -> bool {
        rustix::io::ioctl_fionread(&self.0).is_ok_and(|bytes| bytes > 0)
    }

    /// Whether nobody is left who could tell something.
    pub(crate) fn is_over(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, Some(&now)) {
            Ok(0) | Err(Errno::INTR) => false,
            Ok(_) | Err(_) => true,
        }
    }

    /// Reads what was told until now; from a child that is known to be ready.
    pub(crate) fn is_ready(&self) {
        self.1.set(true);
    }

    /// Reads until the child executes, is ready, or ends.
    pub(crate) fn read(&self) -> Told {
        let mut told = Told::default();
        let mut record = [0u8; RECORD];
        loop {
            if self.1.get() && !self.has_any() {
                return told;
            }
            // Writes of eight bytes to a pipe arrive whole.
            match rustix::io::read(&self.0, &mut record) {
                Err(Errno::INTR) => continue,
                Ok(RECORD) => {}
                Ok(_) | Err(_) => return told,
            }
            let [a, b, c, d, e, f, g, h] = record;
            let number = u16::from_ne_bytes([a, b]);
            let Some((step, _)) = Step::from_number(number & !WARNING) else {
                return told;
            };
            let failed = Failed {
                step,
                index: usize::from(u16::from_ne_bytes([c, d])),
                errno: Errno::from_raw_os_error(
                    i32::from_ne_bytes([e, f, g, h]).clamp(1, MAX_ERRNO),
                ),
            };
            if step == Step::Ready {
                return told;
            }
            if number & WARNING == 0 {
                told.failed = Some(failed);
            } else {
                told.warnings.push(failed);
            }
        }
    }
}

impl Failed {
    /// "set the resource limit nofile", with the item from the plan's list.
    pub(crate) fn action(&self, item: Option<&str>) -> String {
        let text = Step::from_number(self.step as u16).map_or("", |(_, text)| text);
        match item {
            Some(item) => format!("{text} {item}"),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_warning_then_failure_both_arrive() {
        let (reports, reporter) = pipe().expect("pipe");
        reporter.warn(Step::Rlimit, 3, Errno::PERM);
        reporter.fail(Failed {
            step: Step::Exec,
            index: 1,
            errno: Errno::NOENT,
        });
        drop(reporter);
        let told = reports.read();
        assert_eq!(
            told.warnings.first().map(|w| (w.step, w.index)),
            Some((Step::Rlimit, 3))
        );
        assert_eq!(
            told.failed.map(|f| (f.step, f.errno)),
            Some((Step::Exec, Errno::NOENT))
        );
    }

    #[test]
    fn from_number_every_step_is_found_at_its_number() {
        for (step, _) in Step::ALL {
            assert_eq!(
                Step::from_number(*step as u16).map(|found| found.0),
                Some(*step)
            );
        }
    }
}
