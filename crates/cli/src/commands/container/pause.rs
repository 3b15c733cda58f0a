//! `hull pause`: freezes containers.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Containers
    args: Vec<String>,
}

command!(
    PauseArgs,
    run,
    names = ["pause", "container pause"],
    usage = "CONTAINER [CONTAINER...]",
    about = "Pause all processes within one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: PauseArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client.container_pause(name, "pause").await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
