//! `hull volume rm`.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull volume rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Force the removal of one or more volumes
    #[arg(short, long)]
    force: bool,
    /// Volumes
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["volume rm", "volume remove"],
    usage = "[OPTIONS] VOLUME [VOLUME...]",
    about = "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client.volume_remove(name, args.force).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
