//! Commands that do the same thing to each of their arguments.

use futures_util::StreamExt;
use futures_util::stream;

use crate::error::CliError;
use crate::output::{self, Failures};

/// Requests under way at once.
const PARALLEL: usize = 50;

/// Does `operation` to each name, many at once; prints in order what each gives, or its error at the end.
pub(crate) async fn each(
    names: &[String],
    operation: impl AsyncFn(&str) -> Result<Option<String>, CliError>,
) -> Result<u8, CliError> {
    let operation = &operation;
    let mut results = stream::iter(names)
        .map(|name| async move { operation(name).await })
        .buffered(PARALLEL);
    let mut failures = Failures::default();
    while let Some(result) = results.next().await {
        match result {
            Ok(Some(line)) => output::line(&line)?,
            Ok(None) => {}
            Err(CliError::ClosedPipe) => return Err(CliError::ClosedPipe),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
