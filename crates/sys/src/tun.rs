//! Virtual interfaces whose other end is a descriptor (tun/tap).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::{Errno, Result, check};

const TUNSETIFF: libc::c_ulong = 0x4004_54CA;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Length of a name with its zero byte, and of `struct ifreq`.
const NAME: usize = 16;
const REQUEST: usize = 40;

/// Makes a tap in the calling thread's network namespace: what is written to the descriptor comes
/// out of the interface as a frame, with a header about checksums before each (`virtio_net_hdr`).
/// The interface goes with the descriptor.
///
/// # Errors
/// `EINVAL` for a name that is too long, `EBUSY` for one that is taken, `ENOENT` without tun.
pub fn open_tap(name: &str) -> Result<OwnedFd> {
    if name.is_empty() || name.len() >= NAME {
        return Err(Errno::INVAL);
    }
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(c"/dev/net/tun", flags, Mode::empty())?;
    let mut request = [0u8; REQUEST];
    for (place, byte) in request.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    let kind = (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).to_ne_bytes();
    for (place, byte) in request.iter_mut().skip(NAME).zip(kind) {
        *place = byte;
    }
    // SAFETY: the request reads and writes one ifreq, which the array is as long as.
    check(unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            fd.as_raw_fd(),
            TUNSETIFF,
            request.as_mut_ptr(),
        )
    })?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_tap_makes_an_interface_that_goes_with_it() {
        let thread = std::thread::spawn(|| {
            crate::netns::unshare_network().expect("namespace");
            let tap = open_tap("t0").expect("tap");
            let socket = crate::netlink::Socket::open().expect("socket");
            assert!(socket.index("t0").is_ok());
            assert_eq!(open_tap("t0").err(), Some(Errno::BUSY));
            drop(tap);
            assert!(socket.index("t0").is_err());
        });
        thread.join().expect("thread");
        assert_eq!(open_tap("a-name-that-is-long").err(), Some(Errno::INVAL));
    }
}
