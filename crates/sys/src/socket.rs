//! Questions to sockets that no wrapper asks.

use std::os::fd::{AsFd, AsRawFd};

use crate::{Result, check};

/// What was sent on a stream socket and not yet taken by its peer, counted with the kernel's
/// overhead for a unix socket: zero once all is read (SIOCOUTQ of unix(7)).
///
/// # Errors
/// If it is no socket.
pub fn unread_by_peer(socket: impl AsFd) -> Result<u32> {
    let mut count: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the request writes one int through the pointer, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, libc::TIOCOUTQ, &raw mut count) })?;
    Ok(u32::try_from(count).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn unread_by_peer_sent_bytes_count_until_they_are_read() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(&one).unwrap(), 0);
        one.write_all(b"abc").unwrap();
        assert!(unread_by_peer(&one).unwrap() > 0);
        other.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread_by_peer(&one).unwrap(), 0);
    }
}
