//! What the prune commands share: the question before and the sum after.

use std::io::{BufRead, Write};

use crate::error::CliError;
use crate::format::human;
use crate::output;

/// Asks; true for `y` or `yes`.
pub(crate) fn confirm(question: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}

/// Prints what was given back.
pub(crate) fn reclaimed(bytes: u64) -> Result<(), CliError> {
    output::line(&format!(
        "Total reclaimed space: {}",
        human::size4(bytes as f64)
    ))
}
