//! Descriptors sent along with bytes over a unix socket (`SCM_RIGHTS`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::{Errno, Result};

/// Most descriptors that travel with one message; the kernel's own limit is 253.
pub const MAX_FDS: usize = 64;

const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_FDS));

/// Sends bytes with descriptors attached to the first of them. Returns how many bytes went.
///
/// # Errors
/// `E2BIG` for more than [`MAX_FDS`], `EINVAL` for descriptors without a byte, else sendmsg's.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(Errno::TOOBIG);
    }
    if bytes.is_empty() && !fds.is_empty() {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(
            &socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Receives bytes into `buffer` and appends the descriptors that came with them to `fds`, each
/// close-on-exec. Returns how many bytes came; 0 at the end of the stream.
///
/// # Errors
/// `EMSGSIZE` if more than [`MAX_FDS`] descriptors came with them: those that did are closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let slices = &mut [IoSliceMut::new(buffer)];
        match recvmsg(&socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    let truncated = message.flags.contains(ReturnFlags::CTRUNC);
    let before = fds.len();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    if truncated {
        fds.truncate(before);
        return Err(Errno::MSGSIZE);
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn receive_passed_pipe_end_reads_what_was_written() {
        let (left, right) = UnixStream::pair().expect("pair");
        let (read, write) = std::io::pipe().expect("pipe");
        assert_eq!(send(&left, b"x", &[read.as_fd()]), Ok(1));
        drop(read);
        let (mut byte, mut fds) = ([0u8; 4], Vec::new());
        assert_eq!(receive(&right, &mut byte, &mut fds), Ok(1));
        let mut file = std::fs::File::from(fds.pop().expect("one descriptor"));
        let flags = rustix::io::fcntl_getfd(&file).expect("getfd");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        { write }.write_all(b"hello").expect("write");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn receive_closed_peer_returns_zero() {
        let (left, right) = UnixStream::pair().expect("pair");
        drop(left);
        assert_eq!(receive(&right, &mut [0u8; 4], &mut Vec::new()), Ok(0));
    }
}
