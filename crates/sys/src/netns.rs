//! Network namespaces of threads, and the socket options of netlink that rustix lacks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// An option of a netlink socket that is switched on (netlink(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetlinkOption {
    /// Errors carry a sentence (`NETLINK_EXT_ACK`).
    ExtendedAck,
    /// Acknowledgements do not repeat the request (`NETLINK_CAP_ACK`).
    CappedAck,
    /// Dump requests are filtered by the kernel (`NETLINK_GET_STRICT_CHK`).
    StrictCheck,
}

/// Moves the calling thread, and no other, into a new and empty network namespace.
///
/// # Errors
/// `unshare(2)` failed, most often for lack of `CAP_SYS_ADMIN`.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET changes the thread's network namespace alone. Memory and the
    // descriptor table stay shared, so no invariant of Rust or of another thread depends on it.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// A descriptor of the calling thread's network namespace; it keeps the namespace alive.
///
/// # Errors
/// /proc is not mounted or cannot be read.
pub fn current_network() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        "/proc/thread-self/ns/net",
        flags,
        Mode::empty(),
    )?)
}

/// Moves the calling thread, and no other, into the namespace behind `fd`.
///
/// # Errors
/// `setns(2)` failed: `fd` is no network namespace, or `CAP_SYS_ADMIN` is lacking.
pub fn enter_network(fd: impl AsFd) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Switches `option` on for a netlink socket.
///
/// # Errors
/// The kernel does not know the option, or `fd` is no netlink socket.
pub fn enable_netlink_option(fd: impl AsFd, option: NetlinkOption) -> io::Result<()> {
    let name = match option {
        NetlinkOption::ExtendedAck => libc::NETLINK_EXT_ACK,
        NetlinkOption::CappedAck => libc::NETLINK_CAP_ACK,
        NetlinkOption::StrictCheck => libc::NETLINK_GET_STRICT_CHK,
    };
    set_int(&fd, libc::SOL_NETLINK, name, 1)
}

/// Sets the send buffer in bytes beyond `net.core.wmem_max` (needs `CAP_NET_ADMIN`).
///
/// # Errors
/// `setsockopt(2)` failed.
pub fn force_send_buffer(fd: impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    set_int(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
}

/// One instruction of a filter of packets (classic BPF, socket(7)): code, jumps if true and if
/// false, operand.
pub type FilterStep = (u16, u8, u8, u32);

/// Has the kernel put only such messages into the socket's queue as the filter accepts.
///
/// # Errors
/// The kernel finds the filter malformed.
pub fn attach_filter(fd: impl AsFd, steps: &[FilterStep]) -> io::Result<()> {
    let mut program: Vec<libc::sock_filter> = steps
        .iter()
        .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    let size =
        libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call; the pointer and length describe `program`, whose
    // own pointer and length describe the instructions, which live to the end of this function. The
    // kernel copies both and checks every instruction.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_int(fd: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call, and the pointer and length describe `value`,
    // which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
