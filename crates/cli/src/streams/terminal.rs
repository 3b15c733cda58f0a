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

/// Asks a question on the terminal; `shown` says whether what is typed appears on it.
pub(crate) fn question(text: &str, shown: bool) -> Result<String, CliError> {
    use std::io::Write as _;
    let fail =
        |error: std::io::Error| CliError::new(format!("cannot ask on the terminal: {error}"));
    let stdin = std::io::stdin();
    let mut stderr = std::io::stderr();
    stderr.write_all(text.as_bytes()).map_err(fail)?;
    let hidden = if shown { None } else { Hidden::enter() };
    let mut answer = String::new();
    let read = stdin.read_line(&mut answer);
    if hidden.is_some() {
        let _ = stderr.write_all(b"\n");
    }
    read.map_err(fail)?;
    Ok(answer.trim_end_matches(['\n', '\r']).to_owned())
}

/// Nothing that is typed appears; dropping it restores the mode before.
struct Hidden(Termios);

impl Hidden {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(rustix::termios::LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
