//! `hull unpause`: lets frozen containers go on.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull unpause`.
#[derive(Debug, Args)]
pub(crate) struct UnpauseArgs {
    /// Containers
    args: Vec<String>,
}

command!(
    UnpauseArgs,
    run,
    names = ["unpause", "container unpause"],
    usage = "CONTAINER [CONTAINER...]",
    about = "Unpause all processes within one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: UnpauseArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client.container_pause(name, "unpause").await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
