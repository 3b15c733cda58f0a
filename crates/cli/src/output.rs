//! Where text goes: standard output and standard error, whose failures are reported.

use std::io::{self, Write};

use crate::error::CliError;

/// Writes a text to standard output.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes bytes to standard output at once.
pub(crate) fn bytes(data: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(data)?;
    out.flush()?;
    Ok(())
}

/// Writes bytes to standard error.
pub(crate) fn error_bytes(data: &[u8]) -> Result<(), CliError> {
    io::stderr().lock().write_all(data)?;
    Ok(())
}

/// Writes a line to standard error; where that fails there is nobody left to tell.
pub(crate) fn error_line(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.write_all(b"\n");
}

/// Collects the failures of a command that goes on with its other arguments.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Keeps an error.
    pub(crate) fn push(&mut self, error: CliError) {
        self.0.push(error.text().to_owned());
    }

    /// All errors, one a line, as one; fine where there are none.
    pub(crate) fn finish(self) -> Result<u8, CliError> {
        if self.0.is_empty() {
            Ok(0)
        } else {
            Err(CliError::new(self.0.join("\n")))
        }
    }
}
