//! The kernel's random number generator, fed from outside.

use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

use crate::{Errno, Result, check};

/// Most bytes fed at once.
pub const MAX_SEED: usize = 512;
/// `RNDADDENTROPY` of random(4).
const ADD_ENTROPY: libc::c_ulong = 0x4008_5203;
const WORDS: usize = MAX_SEED / 4;

/// `struct rand_pool_info`.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    words: [[u8; 4]; WORDS],
}

/// Feeds bytes that nobody else knows, and counts all of their bits.
///
/// # Errors
/// `EMSGSIZE` for more than [`MAX_SEED`] bytes, `EPERM` without CAP_SYS_ADMIN.
pub fn add_entropy(seed: &[u8]) -> Result<()> {
    if seed.len() > MAX_SEED {
        return Err(Errno::MSGSIZE);
    }
    let mut info = PoolInfo {
        entropy_bits: (seed.len() * 8) as libc::c_int,
        bytes: seed.len() as libc::c_int,
        words: [[0; 4]; WORDS],
    };
    for (place, byte) in info.words.as_flattened_mut().iter_mut().zip(seed) {
        *place = *byte;
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let device = rustix::fs::open(c"/dev/urandom", flags, Mode::empty())?;
    let fd = device.as_raw_fd();
    // SAFETY: the kernel reads the two numbers and as many bytes behind them as they say, which is
    // no more than `words` has.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, ADD_ENTROPY, &raw const info) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_entropy_too_much_is_refused() {
        assert_eq!(add_entropy(&[0; MAX_SEED + 1]), Err(Errno::MSGSIZE));
    }

    #[test]
    fn add_entropy_is_taken_from_root() {
        // Who may not is told so.
        match add_entropy(&[1; 64]) {
            Ok(()) => assert!(rustix::process::geteuid().is_root()),
            Err(errno) => assert!(matches!(errno, Errno::PERM | Errno::ACCESS), "{errno}"),
        }
    }
}
