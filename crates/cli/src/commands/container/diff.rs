//! `hull diff`: what a container has changed in its image.

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
    if name.is_empty() {
        return Err(CliError::new("container name cannot be empty"));
    }
    let mut text = String::new();
    for change in context.client().await?.container_changes(name).await? {
        let letter = match change.kind {
            1 => 'A',
            2 => 'D',
            _ => 'C',
        };
        text.push(letter);
        text.push(' ');
        text.push_str(&change.path);
        text.push('\n');
    }
    output::print(&text)?;
    Ok(0)
}
