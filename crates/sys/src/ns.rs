//! Joining and opening namespaces.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::clone3::Namespaces;
use crate::{Result, check};

/// Joins the namespaces of the process behind a pidfd, or the one namespace behind a namespace
/// descriptor (setns(2)). A joined pid namespace counts for children only.
///
/// # Errors
/// `EPERM`, `ESRCH` if the process is gone, `EINVAL` for a descriptor of another kind.
pub fn join(fd: impl AsFd, namespaces: Namespaces) -> Result<()> {
    // SAFETY: integers alone.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), namespaces.bits()) })
        .map(drop)
}

/// Moves the caller into new namespaces (unshare(2)).
///
/// # Errors
/// `EPERM`, `ENOSPC` at the host's limit of namespaces.
pub fn unshare(namespaces: Namespaces) -> Result<()> {
    // SAFETY: integers alone; only CLONE_NEW* bits can be in the set.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces.bits()) }).map(drop)
}

/// Which kind of namespace is behind a descriptor.
///
/// # Errors
/// `ENOTTY` if it is none.
pub fn kind(fd: impl AsFd) -> Result<Namespaces> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: the request takes no argument and returns the CLONE_NEW* bit.
    let bits =
        check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_fd().as_raw_fd(), NS_GET_NSTYPE, 0) })?;
    Ok(Namespaces::from_bits(bits as u64))
}

/// Opens a namespace of a process by the name of its file: `net`, `pid`, `ipc`, `uts`, `mnt`…
/// Allocates.
///
/// # Errors
/// `ENOENT` if the process is gone.
pub fn open(pid: Pid, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{}/ns/{name}", pid.as_raw_nonzero());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A detached copy of a mount in the mount namespace of another process, found by its path there.
/// Works on a thread of its own, since a thread that shares its folders with others must not move.
///
/// # Errors
/// `ESRCH` if the process is gone, `ENOENT` if there is no such path, `EPERM`.
pub fn clone_mount_of(pidfd: OwnedFd, path: std::ffi::CString) -> Result<OwnedFd> {
    let work = move || {
        // SAFETY: unsharing CLONE_FS gives this thread folders of its own; nobody else has them.
        check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_FS) })?;
        join(&pidfd, Namespaces::MOUNT)?;
        crate::mount::clone_tree(rustix::fs::CWD, &path, false)
    };
    let thread = std::thread::Builder::new()
        .name("hull-mount".to_owned())
        .spawn(work);
    thread
        .map_err(|_| crate::Errno::AGAIN)?
        .join()
        .map_err(|_| crate::Errno::IO)?
}

/// Sets the loopback interface of the caller's network namespace up: a new one has it down.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` over the namespace.
pub fn loopback_up() -> Result<()> {
    /// `struct ifreq` as far as SIOCSIFFLAGS reads it; the kernel copies all 40 bytes.
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let mut request = Request {
        name: *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        rest: [0; 22],
    };
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the request has the size and layout of struct ifreq and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw mut request,
        )
    })
    .map(drop)
}
