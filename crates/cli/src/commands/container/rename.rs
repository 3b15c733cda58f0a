//! `hull rename`: gives a container another name.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull rename`.
#[derive(Debug, Args)]
pub(crate) struct RenameArgs {
    /// The container and its new name
    args: Vec<String>,
}

command!(
    RenameArgs,
    run,
    names = ["rename", "container rename"],
    usage = "CONTAINER NEW_NAME",
    about = "Rename a container",
    arity = Arity::Exactly(2),
);

async fn run(context: &Context, args: RenameArgs) -> Result<u8, CliError> {
    let [old, new] = args.args.as_slice() else {
        return Err(CliError::new("container and new name are needed"));
    };
    if old.trim().is_empty() || new.trim().is_empty() {
        return Err(CliError::new(
            "Error: Neither old nor new names may be empty",
        ));
    }
    let client = context.client().await?;
    match client.container_rename(old.trim(), new.trim()).await {
        Ok(()) => Ok(0),
        Err(error) => Err(CliError::new(format!(
            "{}\nError: failed to rename container named {}",
            CliError::from(error).text(),
            old.trim()
        ))),
    }
}
