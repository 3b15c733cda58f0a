//! `hull network rm`.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull network rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    force: bool,
    /// Networks
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["network rm", "network remove"],
    usage = "NETWORK [NETWORK...]",
    about = "Remove one or more networks",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        match client.network_remove(name).await {
            Err(error) if args.force && error.is_not_found() => Ok(None),
            outcome => outcome.map(|()| Some(name.to_owned())).map_err(Into::into),
        }
    })
    .await
}
