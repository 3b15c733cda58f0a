//! Descriptors that the parent process left open on purpose.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Errno, Result, check};

/// Highest descriptor number that can be taken.
const HIGHEST: i32 = 31;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Takes ownership of the descriptor with this number, close-on-exec from now on.
///
/// Meant for the first lines of `main`, for numbers agreed with the parent, before anything else
/// could have opened a descriptor of that number.
///
/// # Errors
/// `EBADF` if it is not open, is one of the standard streams or above 31, or was taken before.
pub fn take(number: i32) -> Result<OwnedFd> {
    if !(3..=HIGHEST).contains(&number) {
        return Err(Errno::BADF);
    }
    // SAFETY: F_SETFD takes an integer and fails for a number that is not open.
    check(unsafe { libc::syscall(libc::SYS_fcntl, number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    let bit = 1 << number;
    if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: it is open, and nobody got it from here before. That nobody else owns it is the
    // agreement with the parent that the documentation asks for.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` up: what the parent left open by mistake.
///
/// Meant for the first lines of `main`, as [`take`].
///
/// # Errors
/// If /proc is needed (kernels before 5.9) and not there.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: takes integers only. Descriptors of this program are not open yet, as documented.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }) {
        Err(Errno::NOSYS) => {}
        result => return result.map(drop),
    }
    let names = std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::NOENT)?;
    let numbers: Vec<i32> = names
        .filter_map(|name| name.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| u32::try_from(*number).is_ok_and(|number| number >= first))
        .collect();
    for number in numbers {
        // SAFETY: as above; the one of the listing itself is closed already and fails.
        let _ = unsafe { libc::syscall(libc::SYS_close, number) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_standard_or_closed_descriptor_is_refused() {
        for number in [-1, 0, 2, 32, 1 << 20] {
            assert_eq!(take(number).err(), Some(Errno::BADF), "{number}");
        }
    }
}
