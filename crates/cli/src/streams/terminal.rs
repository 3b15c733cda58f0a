//! The user's terminal: whether there is one, its size, raw mode and back.

use std::io::IsTerminal;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::CliError;

/// Raw mode of standard input; dropping it restores the mode before.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Puts the terminal on standard input into raw mode; `None` where there is none.
    pub(crate) fn enter() -> Result<Option<Self>, CliError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fail = |error: rustix::io::Errno| {
            CliError::new(format!("cannot set the terminal to raw mode: {error}"))
        };
        let before = tcgetattr(&stdin).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(fail)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Draining first lets what is still to be printed be printed in the mode it was meant for.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Height and width of the terminal on standard output.
pub(crate) fn size() -> Option<(u16, u16)> {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Some((size.ws_row, size.ws_col)),
        _ => None,
    }
}
