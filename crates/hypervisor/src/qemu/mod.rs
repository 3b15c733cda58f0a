//! The back end that runs QEMU's `microvm`.

mod args;
mod monitor;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use hull_sys::pidfd::{self, Exit};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use self::monitor::Monitor;
use crate::machine::{
    Ability, BootError, Cell, CellFile, GivenBack, Guest, GuestEnd, GuestError, Hypervisor,
    Machine, Program, Running, Size,
};
use crate::probe::Accelerator;

/// Name of the program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Where it is looked for: what a service has in its PATH differs from host to host.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/libexec", "/bin"];
/// How much of what it complains of is kept, bytes.
const COMPLAINTS: usize = 4096;
/// Memory of the program beyond the guest's, bytes; under emulation the translated code comes
/// on top.
const OVERHEAD: u64 = 96 << 20;

/// Finds the program.
#[must_use]
pub fn find() -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(PROGRAM))
        .find(|path| {
            rustix::fs::access(path.as_path(), rustix::fs::Access::EXEC_OK).is_ok()
                && path.is_file()
        })
}

/// Finds the program that serves files to its machines.
#[must_use]
pub fn find_file_server() -> Option<PathBuf> {
    const PLACES: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/qemu/virtiofsd"];
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// QEMU.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    accelerator: Accelerator,
}

impl Qemu {
    /// A back end by this program.
    #[must_use]
    pub fn new(program: PathBuf, accelerator: Accelerator) -> Self {
        Self {
            program,
            accelerator,
        }
    }
}

impl Hypervisor for Qemu {
    fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::MemoryWithinBoot | Ability::FreeMemoryReturns => true,
            // A microvm has no slots for more.
            Ability::MemoryBeyondBoot | Ability::Processors => false,
        }
    }

    fn boot(&self, machine: Machine, cell: &dyn Cell) -> Result<Box<dyn Guest>, BootError> {
        args::check(&machine)?;
        let prepare = |action| move |errno| BootError::Prepare { action, errno };
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(prepare("make a socket for the hypervisor's monitor"))?;
        let (complaints, output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(prepare("make a pipe for the hypervisor's messages"))?;
        rustix::io::ioctl_fionbio(&complaints, true)
            .map_err(prepare("make a pipe for the hypervisor's messages"))?;
        let monitor =
            Monitor::new(ours).map_err(prepare("make a socket for the hypervisor's monitor"))?;
        let args = args::build(&machine, self.accelerator, theirs.as_fd());
        let memory = machine.memory;
        let program = Program {
            path: self.program.clone(),
            args,
            output,
            files: files(&machine),
            kvm: self.accelerator == Accelerator::Kvm,
            memory: memory + OVERHEAD + args::translated(self.accelerator),
            descriptors: descriptors(machine, theirs),
        };
        let Running { pid, pidfd } = cell.run(program).map_err(|reason| BootError::Run {
            program: self.program.clone(),
            reason,
        })?;
        Ok(Box::new(QemuGuest {
            pid,
            pidfd,
            monitor,
            complaints,
            kept: VecDeque::new(),
            ended: None,
            memory,
        }))
    }
}

fn files(machine: &Machine) -> Vec<CellFile> {
    let kernel = CellFile {
        source: machine.kernel.clone(),
        inside: args::KERNEL.into(),
    };
    let initrd = machine.initrd.as_ref().map(|source| CellFile {
        source: source.clone(),
        inside: args::INITRD.into(),
    });
    std::iter::once(kernel).chain(initrd).collect()
}

fn descriptors(machine: Machine, monitor: OwnedFd) -> Vec<OwnedFd> {
    let mut all = vec![monitor, machine.console, machine.channel];
    all.extend(machine.disks.into_iter().map(|disk| disk.file));
    all.extend(machine.nics.into_iter().map(|nic| nic.tap));
    all.extend(machine.shares.into_iter().map(|share| share.server));
    all
}

#[derive(Debug)]
struct QemuGuest {
    pid: u32,
    pidfd: OwnedFd,
    monitor: Monitor,
    complaints: OwnedFd,
    kept: VecDeque<u8>,
    ended: Option<GuestEnd>,
    /// What it was booted with.
    memory: u64,
}

impl Guest for QemuGuest {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn process(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn ended(&mut self) -> Option<GuestEnd> {
        if self.ended.is_none()
            && let Ok(Some(ended)) = pidfd::wait(&self.pidfd, false)
        {
            self.ended = Some(match ended.exit {
                Exit::Code(0) => GuestEnd::PoweredOff,
                exit => GuestEnd::Died(exit.status()),
            });
        }
        self.ended
    }

    fn pause(&mut self) -> Result<(), GuestError> {
        self.monitor.ask("pause", "stop", None).map(drop)
    }

    fn resume(&mut self) -> Result<(), GuestError> {
        self.monitor.ask("resume", "cont", None).map(drop)
    }

    fn resize(&mut self, size: Size) -> Result<(), GuestError> {
        if let Some(processors) = size.processors {
            return Err(GuestError::Unable(format!(
                "a running virtual machine cannot get {processors} processors: stop it, update it and start it"
            )));
        }
        let Some(memory) = size.memory else {
            return Ok(());
        };
        if memory > self.memory {
            return Err(GuestError::Unable(format!(
                "a running virtual machine cannot get more than the {} MiB of memory it was started with: stop it, update it and start it",
                self.memory >> 20
            )));
        }
        let wanted = serde_json::json!({ "value": memory });
        self.monitor
            .ask("resize", "balloon", Some(wanted))
            .map(drop)
    }

    fn memory_given_back(&mut self) -> Result<GivenBack, GuestError> {
        let answer = self.monitor.ask("tell its memory", "query-balloon", None)?;
        let left = answer
            .get("actual")
            .and_then(serde_json::Value::as_u64)
            .ok_or(GuestError::Silent("an answer without a number"))?;
        Ok(GivenBack {
            asked: self.memory.saturating_sub(left),
            by_itself: true,
        })
    }

    fn stop(&mut self) {
        let _ = pidfd::send_signal(&self.pidfd, KILL);
    }

    fn complaints(&mut self) -> String {
        let mut buffer = [0; 1024];
        // Bounded: what it writes meanwhile is for the next time.
        for _ in 0..64 {
            match rustix::io::read(&self.complaints, &mut buffer) {
                Ok(count) if count > 0 => {
                    self.kept.extend(buffer.iter().take(count));
                    let excess = self.kept.len().saturating_sub(COMPLAINTS);
                    self.kept.drain(..excess);
                }
                _ => break,
            }
        }
        String::from_utf8_lossy(self.kept.make_contiguous())
            .trim()
            .to_owned()
    }
}

const KILL: i32 = rustix::process::Signal::KILL.as_raw();

impl Drop for QemuGuest {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.stop();
            // It dies of this as soon as its calls return, which are none that last.
            let _ = pidfd::wait(&self.pidfd, true);
        }
    }
}

#[cfg(test)]
mod tests;
