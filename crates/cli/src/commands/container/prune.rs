//! `hull container prune`: removes all stopped containers.

use clap::Args;

use crate::commands::prune::{confirm, reclaimed};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;

/// Arguments of `hull container prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

command!(
    PruneArgs,
    run,
    names = ["container prune"],
    usage = "[OPTIONS]",
    about = "Remove all stopped containers",
    arity = Arity::None,
);

async fn run(context: &Context, args: PruneArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    if !args.force
        && !confirm(
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ",
        )?
    {
        return Ok(0);
    }
    let reply = context.client().await?.containers_prune(&filters).await?;
    if !reply.containers_deleted.is_empty() {
        output::line("Deleted Containers:")?;
        for id in &reply.containers_deleted {
            output::line(id)?;
        }
        output::line("")?;
    }
    reclaimed(reply.space_reclaimed)?;
    Ok(0)
}
