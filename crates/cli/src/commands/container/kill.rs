//! `hull kill`: sends a signal.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Containers
    args: Vec<String>,
}

command!(
    KillArgs,
    run,
    names = ["kill", "container kill"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Kill one or more running containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: KillArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client.container_kill(name, args.signal.as_deref()).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
