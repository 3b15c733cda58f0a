//! `hull kernel rm`.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull kernel rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Also the one that is used by default
    #[arg(short, long)]
    force: bool,
    /// Kernels
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["kernel rm", "kernel remove"],
    usage = "[OPTIONS] KERNEL [KERNEL...]",
    about = "Remove one or more kernels",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client.kernel_remove(name, args.force).await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
