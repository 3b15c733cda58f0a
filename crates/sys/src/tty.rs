//! Terminals: a pair from a given devpts, window size, raw mode, controlling terminal.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
pub use rustix::termios::{Termios, Winsize};

use crate::{Result, check};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    /// The controlling side, kept by the monitor.
    pub master: OwnedFd,
    /// The side the program gets.
    pub slave: OwnedFd,
}

/// Opens a pair from the `ptmx` of the devpts instance behind `devpts`.
///
/// The slave comes from `TIOCGPTPEER`: no name is looked up that somebody could have replaced.
///
/// # Errors
/// The errno of open or of the ioctls.
pub fn open_pty_at(devpts: BorrowedFd<'_>) -> Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    peer(rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?)
}

/// Opens a pair from the host's `/dev/ptmx`.
///
/// # Errors
/// The errno of open or of the ioctls.
pub fn open_pty() -> Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    peer(rustix::fs::open(c"/dev/ptmx", flags, Mode::empty())?)
}

fn peer(master: OwnedFd) -> Result<Pty> {
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    Ok(Pty { master, slave })
}

/// Makes the terminal the controlling one of the caller, who must lead a session without one.
///
/// # Errors
/// `EPERM` otherwise.
pub fn set_controlling(tty: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::syscall(libc::SYS_ioctl, tty.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })
        .map(drop)
}

/// Tells the terminal, and with `SIGWINCH` its foreground group, the size of the window.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(tty: impl AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(tty, size)
}

/// Size of the window.
///
/// # Errors
/// `ENOTTY`.
pub fn size(tty: impl AsFd) -> Result<Winsize> {
    rustix::termios::tcgetwinsize(tty)
}

/// Sets raw mode and returns what was set before.
///
/// # Errors
/// `ENOTTY`.
pub fn make_raw(tty: impl AsFd) -> Result<Termios> {
    let before = tcgetattr(&tty)?;
    let mut raw = before.clone();
    raw.make_raw();
    tcsetattr(&tty, OptionalActions::Now, &raw)?;
    Ok(before)
}

/// Sets the modes back.
///
/// # Errors
/// `ENOTTY`.
pub fn restore(tty: impl AsFd, modes: &Termios) -> Result<()> {
    tcsetattr(tty, OptionalActions::Now, modes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_pty_bytes_cross_and_size_sticks() {
        let pty = open_pty().expect("pty");
        let before = make_raw(&pty.slave).expect("raw");
        rustix::io::write(&pty.master, b"hi").expect("write");
        let mut buffer = [0u8; 8];
        assert_eq!(rustix::io::read(&pty.slave, &mut buffer), Ok(2));
        restore(&pty.slave, &before).expect("restore");
        set_size(&pty.master, 33, 99).expect("size");
        let seen = size(&pty.slave).expect("size");
        assert_eq!((seen.ws_row, seen.ws_col), (33, 99));
    }
}
