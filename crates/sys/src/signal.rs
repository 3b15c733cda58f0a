//! Signals: names and numbers, blocking them, and reading them from a descriptor.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use crate::{Errno, Result, check};

/// Names without `SIG`, in the order of their numbers from 1 (signal(7), x86 and arm).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Number of a signal: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `RTMAX-1`.
#[must_use]
pub fn from_name(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == short) {
        return i32::try_from(index + 1).ok();
    }
    match short {
        "CLD" => return Some(17),
        "POLL" => return Some(29),
        "IOT" => return Some(6),
        _ => {}
    }
    let number = if let Some(rest) = short.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else {
        RTMAX.checked_sub(offset(short.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    rest.strip_prefix(sign)?
        .parse()
        .ok()
        .filter(|number| *number >= 0)
}

/// Name of a signal, with `SIG`.
#[must_use]
pub fn name(number: i32) -> Option<String> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    if let Some(known) = NAMES.get(index) {
        return Some(format!("SIG{known}"));
    }
    match number {
        RTMIN => Some("SIGRTMIN".to_owned()),
        _ if (RTMIN..=RTMAX).contains(&number) => Some(format!("SIGRTMIN+{}", number - RTMIN)),
        _ => None,
    }
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal.
    pub const ALL: Self = Self(u64::MAX);

    /// These numbers; others than 1 to 64 are ignored.
    #[must_use]
    pub fn of(numbers: &[i32]) -> Self {
        Self(
            numbers
                .iter()
                .filter(|number| (1..=64).contains(*number))
                .fold(0, |set, number| set | 1 << (number - 1)),
        )
    }

    /// Whether the signal is in the set.
    #[must_use]
    pub fn contains(self, number: i32) -> bool {
        (1..=64).contains(&number) && self.0 & 1 << (number - 1) != 0
    }
}

const SET_SIZE: usize = 8;

/// Sets the thread's blocked signals; returns those blocked before.
///
/// # Errors
/// None in practice.
pub fn set_blocked(set: SignalSet) -> Result<SignalSet> {
    let mut old = 0u64;
    // SAFETY: both pointers are to 8-byte kernel sigsets, as the size says.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set.0,
            &raw mut old,
            SET_SIZE,
        )
    })?;
    Ok(SignalSet(old))
}

/// Gives every signal its default disposition and blocks none, as a new program expects it.
///
/// Ignored and blocked signals outlive execve, and Rust's runtime ignores SIGPIPE. For the child
/// between clone3 and execve: handlers of this process would be lost.
///
/// # Errors
/// None in practice.
pub fn reset() -> Result<()> {
    // struct sigaction of the kernel, all zeroes: SIG_DFL, no flags, empty mask.
    let default = [0u64; 4];
    for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
        // SAFETY: a kernel sigaction is at most 32 bytes on 64-bit Linux and is only read.
        check(unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                SET_SIZE,
            )
        })?;
    }
    set_blocked(SignalSet::EMPTY).map(drop)
}

/// A non-blocking, close-on-exec descriptor from which the signals are read. Block them first.
///
/// # Errors
/// `EMFILE`.
pub fn signal_fd(set: SignalSet) -> Result<OwnedFd> {
    // SAFETY: the set is an 8-byte kernel sigset.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_signalfd4,
            -1,
            &raw const set.0,
            SET_SIZE,
            libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
        )
    })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A signal that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// The sender, or the child for `SIGCHLD`.
    pub pid: u32,
}

/// Reads one signal; `None` if none is pending.
///
/// # Errors
/// The errno of read.
pub fn read(fd: impl AsFd) -> Result<Option<Received>> {
    // struct signalfd_siginfo: 128 bytes; signo at 0, pid at 12.
    let mut info = [0u8; 128];
    match rustix::io::read(fd, &mut info) {
        Ok(128) => {}
        Ok(_) => return Err(Errno::IO),
        Err(Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error),
    }
    let word = |at: usize| {
        let mut bytes = [0u8; 4];
        bytes.copy_from_slice(&info[at..at + 4]);
        u32::from_ne_bytes(bytes)
    };
    Ok(Some(Received {
        number: word(0) as i32,
        pid: word(12),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_name_spellings_agree() {
        for spelling in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(from_name(spelling), Some(15), "{spelling}");
        }
        assert_eq!(from_name("RTMIN+3"), Some(37));
        assert_eq!(from_name("SIGRTMAX-1"), Some(63));
        for bad in [
            "",
            "0",
            "65",
            "-1",
            "NOPE",
            "RTMIN-1",
            "RTMIN+31",
            "RTMIN+99999999999",
        ] {
            assert_eq!(from_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn name_round_trips() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(name(number).as_deref().and_then(from_name), Some(number));
        }
        assert_eq!(name(32), None);
    }

    #[test]
    fn signal_fd_blocked_signal_is_read() {
        let set = SignalSet::of(&[libc::SIGUSR2]);
        let before = set_blocked(set).expect("block");
        let fd = signal_fd(set).expect("signalfd");
        assert_eq!(read(&fd), Ok(None));
        let me = std::process::id() as i32;
        // SAFETY: sends a blocked signal to this very thread.
        check(unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                me,
                libc::syscall(libc::SYS_gettid),
                libc::SIGUSR2,
            )
        })
        .expect("tgkill");
        assert_eq!(
            read(&fd).map(|got| got.map(|got| got.number)),
            Ok(Some(libc::SIGUSR2))
        );
        set_blocked(before).expect("restore");
    }
}
