//! What a process says about itself: prctl(2), open descriptors, out-of-memory score.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

use crate::features::{Feature, Features};
use crate::{Errno, Result, check};

fn prctl(option: libc::c_int, value: u64) -> Result<()> {
    // SAFETY: only options with integer arguments are passed by the callers in this file.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, value, 0, 0, 0) }).map(drop)
}

/// Orphaned descendants become children of the caller.
///
/// # Errors
/// None on supported kernels.
pub fn set_subreaper() -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// The signal the caller gets when its parent thread ends. Cleared by a change of user id.
///
/// # Errors
/// `EINVAL` for a bad number.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64)
}

/// Whether others of the same user may look into the process (`/proc/PID/*`, ptrace). execve of an
/// ordinary program sets it again.
///
/// # Errors
/// None on supported kernels.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable))
}

/// Starts a new, empty session keyring, so that the keys of whoever started the caller are out of
/// reach (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`).
///
/// # Errors
/// `ENOSYS` without key management, `EDQUOT` at the user's quota.
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })
    .map(drop)
}

/// The name shown by ps, at most 15 bytes.
///
/// # Errors
/// None.
pub fn set_name(name: &CStr) -> Result<()> {
    rustix::thread::set_name(name)
}

/// Overwrites the arguments and the environment that /proc shows of this process. Whoever needs
/// either has read it before.
///
/// # Errors
/// If the process cannot read its own files in /proc.
pub fn forget_arguments() -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    // proc(5): arg_start, arg_end, env_start, env_end are fields 48 to 51; the state is field 3.
    let numbers: Vec<u64> = fields
        .split_ascii_whitespace()
        .skip(45)
        .take(4)
        .filter_map(|field| field.parse().ok())
        .collect();
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")?;
    for range in numbers.chunks_exact(2) {
        if let [start, end] = *range {
            let length = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
            memory.write_all_at(&vec![0; length], start)?;
        }
    }
    Ok(())
}

/// Closes all descriptors but those of `keep`, which is sorted. For a copy of a process that owns
/// none of them in its own right: whatever holds one must not be used or dropped any more.
///
/// # Errors
/// `ENOSYS` before kernel 5.9.
pub fn close_all_but(keep: &[i32]) -> Result<()> {
    let mut first = 0u32;
    for number in keep {
        let Ok(number) = u32::try_from(*number) else {
            continue;
        };
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: takes integers alone; that the descriptors are not used any more is the caller's
    // part, as documented.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Marks all descriptors from `first` up close-on-exec.
///
/// `proc` is the root of a procfs: kernels without `CLOSE_RANGE_CLOEXEC` need the list in it.
///
/// # Errors
/// The errno of the calls; never leaves some unmarked and says yes.
pub fn close_on_exec_from(first: u32, features: Features, proc: BorrowedFd<'_>) -> Result<()> {
    if features.has(Feature::CloseRangeCloexec) {
        // SAFETY: changes a flag of descriptors and no memory.
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        });
        match result {
            Ok(_) => return Ok(()),
            Err(Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let dir = rustix::fs::openat(
        proc,
        c"self/fd",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // On the stack: this runs where nothing may allocate.
    let mut buffer = [std::mem::MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = rustix::fs::RawDir::new(&dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let name = entry?;
        let Some(number) = decimal(name.file_name().to_bytes()) else {
            continue;
        };
        if number >= first {
            // SAFETY: F_SETFD on a number that need not be open: EBADF then, nothing else.
            let result = check(unsafe {
                libc::syscall(libc::SYS_fcntl, number, libc::F_SETFD, libc::FD_CLOEXEC)
            });
            if let Err(error) = result
                && error != Errno::BADF
            {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

/// execveat(2) of an open file (`AT_EMPTY_PATH`) or of a path below a directory descriptor.
///
/// Returns only if it failed. The arrays end with a null pointer.
#[must_use]
pub fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: both arrays end with null and their strings are owned by the StringArrays.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execve,
            path.as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
        )
    };
    match check(result) {
        Err(error) => error,
        Ok(_) => Errno::IO,
    }
}

/// C strings with the null-terminated array of pointers to them that execve takes.
#[derive(Debug)]
pub struct StringArray {
    strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringArray {
    /// Takes the strings.
    #[must_use]
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect();
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[std::ffi::CString] {
        &self.strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn decimal_bounds() {
        assert_eq!(decimal(b"4294967295"), Some(u32::MAX));
        for bad in [&b"4294967296"[..], b"", b".", b"1x"] {
            assert_eq!(decimal(bad), None);
        }
    }

    #[test]
    fn close_on_exec_from_without_close_range_marks_the_descriptor() {
        let (read, _write) = std::io::pipe().expect("pipe");
        // A descriptor number far above what other tests of this process open.
        let high = rustix::io::fcntl_dupfd_cloexec(&read, 900).expect("dup");
        rustix::io::fcntl_setfd(&high, rustix::io::FdFlags::empty()).expect("clear");
        let proc = rustix::fs::open(c"/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .expect("proc");
        close_on_exec_from(900, Features::oldest(), proc.as_fd()).expect("mark");
        let flags = rustix::io::fcntl_getfd(&high).expect("getfd");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
