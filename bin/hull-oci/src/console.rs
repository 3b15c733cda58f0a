//! Terminals: handed to a socket, or relayed to our own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_sys::{Errno, fdpass, tty};
use rustix::termios::Termios;

/// What the receiver sees as the name of the terminal.
const TERMINAL_NAME: &[u8] = b"/dev/ptmx";
/// … and of the handle.
const PIDFD_NAME: &[u8] = b"pidfd";

/// A connection that will get the terminal.
pub(crate) fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path)
        .with_context(|| format!("cannot connect to the console socket {}", path.display()))
}

/// Sends the terminal to the socket of `--console-socket`.
pub(crate) fn hand_over(socket: &UnixStream, terminal: &OwnedFd) -> Result<()> {
    fdpass::send(socket, TERMINAL_NAME, &[terminal.as_fd()])
        .context("cannot send the terminal to the console socket")?;
    Ok(())
}

/// Sends a handle on the first process to the socket of `--pidfd-socket`.
pub(crate) fn hand_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let socket = UnixStream::connect(path)
        .with_context(|| format!("cannot connect to the pidfd socket {}", path.display()))?;
    fdpass::send(&socket, PIDFD_NAME, &[pidfd.as_fd()])
        .context("cannot send the pidfd to the pidfd socket")?;
    Ok(())
}

/// Whether `--console-socket` and the wish for a terminal fit.
pub(crate) fn check(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<()> {
    match (terminal, detached, socket.is_some()) {
        (true, true, false) => {
            bail!(
                "cannot allocate tty if runc will detach without setting console socket: give --console-socket"
            )
        }
        (false, _, true) => bail!("cannot use --console-socket if the process has no terminal"),
        (true, false, true) => bail!("cannot use --console-socket if hull-oci does not detach"),
        _ => Ok(()),
    }
}

/// Our own terminal in raw mode, until dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// None if standard input is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        tty::make_raw(rustix::stdio::stdin())
            .ok()
            .map(|before| Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tty::restore(rustix::stdio::stdin(), &self.before);
    }
}

/// Rows and columns of our own terminal, for a program that asks before anything is relayed.
pub(crate) fn own_size() -> Option<(u16, u16)> {
    tty::size(rustix::stdio::stdin())
        .ok()
        .map(|size| (size.ws_row, size.ws_col))
}

/// Gives the container's terminal the size of ours.
pub(crate) fn copy_size(terminal: &OwnedFd) {
    if let Ok(size) = tty::size(rustix::stdio::stdin()) {
        let _ = tty::set_size(terminal, size.ws_row, size.ws_col);
    }
}

/// Moves what is there from one descriptor to the other; false at the end of either.
pub(crate) fn relay(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return true,
        // A terminal without any process left answers EIO.
        Err(_) => return false,
    };
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
