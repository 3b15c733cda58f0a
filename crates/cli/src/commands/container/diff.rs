//! `hull diff`: what a container changed in its file system.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};

/// Arguments of `hull diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The container
    args: Vec<String>,
}

command!(
    DiffArgs,
    run,
    names = ["diff", "container diff"],
    usage = "CONTAINER",
    about = "Inspect changes to files or directories on a container's filesystem",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: DiffArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    for change in context.client().await?.container_changes(name).await? {
        let letter = match change.kind {
            0 => 'C',
            1 => 'A',
            _ => 'D',
        };
        output::line(&format!("{letter} {}", change.path))?;
    }
    Ok(0)
}
