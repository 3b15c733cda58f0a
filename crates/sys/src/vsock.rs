//! Sockets between a guest and its host (vsock(7)).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, check};

/// The host, as each guest sees it.
const HOST: u32 = libc::VMADDR_CID_HOST;

/// Connects to a port of the host; the socket is close-on-exec.
///
/// # Errors
/// `EAFNOSUPPORT` or `ENODEV` where there is no vsock, `ECONNRESET` if nobody listens.
pub fn connect_host(port: u32) -> Result<OwnedFd> {
    connect(HOST, port)
}

fn connect(cid: u32, port: u32) -> Result<OwnedFd> {
    // SAFETY: takes integers alone.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_socket,
            libc::AF_VSOCK,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
        )
    })?;
    // SAFETY: the kernel made this descriptor for the caller just now.
    let socket = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: a plain C structure for which all zeroes is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>();
    // SAFETY: the pointer is to a socket address of the length that is given, and only read.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_connect,
            socket.as_raw_fd(),
            &raw const address,
            length,
        )
    });
    match result {
        Ok(_) => Ok(socket),
        // It goes on connecting meanwhile and must not be asked again.
        Err(Errno::INTR) => Err(Errno::AGAIN),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_host_where_nobody_listens_fails() {
        // On a host there may be no vsock at all.
        assert!(connect_host(0xfffe_0001).is_err());
    }
}
