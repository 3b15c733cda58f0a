//! A plan becomes a machine, with the ends of its channel and console that stay with us.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use hull_hypervisor::{Accelerator, Disk, Guest, Hypervisor as _, Machine, Nic, Share, qemu::Qemu};
use hull_model::ErrorKind;
use hull_proto::Failure;
use hull_proto::guest::{Interface, PORT_NAME};
use hull_proto::vm::{SHARES_TAG, VmPlan};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::cell::HostCell;

/// What every guest's kernel is told. It says little, since each line costs time; a kernel that
/// panics, or is told to reboot, ends at once.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 reboot=t rdinit=/init dummy.numdummies=0";

/// A machine that was booted.
pub(super) struct Booted {
    pub(super) guest: Box<dyn Guest>,
    /// Our end of the channel to its agent.
    pub(super) channel: OwnedFd,
    /// Our end of its console.
    pub(super) console: OwnedFd,
    /// The network namespace of its taps, which lives as long as somebody holds it.
    pub(super) netns: Option<OwnedFd>,
    /// What the guest makes of its interfaces.
    pub(super) interfaces: Vec<Interface>,
}

pub(super) fn failed(message: impl Into<String>) -> Failure {
    Failure {
        kind: ErrorKind::Internal,
        message: message.into(),
    }
}

/// Boots the machine of the plan.
pub(super) fn boot(
    plan: &VmPlan,
    fds: Vec<OwnedFd>,
    files: Option<OwnedFd>,
    cell: &HostCell<'_>,
) -> Result<Booted, Failure> {
    let pair = || {
        rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| {
            failed(format!(
                "cannot make a socket for a virtual machine: {errno}"
            ))
        })
    };
    let ((channel, their_channel), (console, their_console)) = (pair()?, pair()?);
    let netns = match plan.netns {
        Some(index) => Some(
            fds.into_iter()
                .nth(index)
                .ok_or_else(|| failed("the network namespace was not sent along"))?,
        ),
        None => None,
    };
    let taps = match &netns {
        Some(netns) => super::taps::make(netns.as_fd())?,
        None => Vec::new(),
    };
    let disks = plan.disks.iter().map(|disk| {
        Ok(Disk {
            file: open_disk(&disk.path, disk.read_only)?,
            read_only: disk.read_only,
            serial: disk.serial.clone(),
        })
    });
    let disks = disks.collect::<Result<_, Failure>>()?;
    let (mut nics, mut interfaces) = (Vec::new(), Vec::new());
    for tap in taps {
        nics.push(Nic {
            tap: tap.fd,
            mac: tap.interface.mac.clone(),
            mtu: tap.interface.mtu,
        });
        interfaces.push(tap.interface);
    }
    let machine = Machine {
        kernel: plan.kernel.clone(),
        initrd: Some(plan.initrd.clone()),
        command_line: format!("{COMMAND_LINE} {}", plan.command_line)
            .trim_end()
            .to_owned(),
        processors: plan.processors,
        memory: plan.memory,
        disks,
        nics,
        shares: files
            .into_iter()
            .map(|server| Share {
                server,
                tag: SHARES_TAG.into(),
            })
            .collect(),
        console: their_console,
        channel: their_channel,
        channel_name: PORT_NAME.into(),
    };
    let accelerator = if plan.kvm {
        Accelerator::Kvm
    } else {
        Accelerator::Emulation
    };
    let guest = Qemu::new(plan.hypervisor.clone(), accelerator)
        .boot(machine, cell)
        .map_err(|error| failed(format!("cannot boot the virtual machine: {error}")))?;
    Ok(Booted {
        guest,
        channel,
        console,
        netns,
        interfaces,
    })
}

/// A disk's file, which must be one: the path is the daemon's, what lies there may be anything.
fn open_disk(path: &Path, read_only: bool) -> Result<OwnedFd, Failure> {
    let access = if read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = || {
        let file = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile | rustix::fs::FileType::BlockDevice => Ok(file),
            _ => Err(Errno::INVAL),
        }
    };
    let disk = open().map_err(|errno| {
        failed(format!(
            "cannot open the disk {} of the virtual machine: {errno}",
            path.display()
        ))
    })?;
    if !read_only {
        // The hypervisor inherits the open file: nobody else gets the lock while it lives.
        rustix::fs::flock(&disk, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            failed(format!(
                "the disk {} is still used by another virtual machine: {errno}",
                path.display()
            ))
        })?;
    }
    Ok(disk)
}
