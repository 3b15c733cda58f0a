//! `hull network prune`.

use clap::Args;

use crate::commands::prune::confirm;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;

const QUESTION: &str = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ";

/// Arguments of `hull network prune`.
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
    names = ["network prune"],
    usage = "[OPTIONS]",
    about = "Remove all unused networks",
    arity = Arity::None,
);

async fn run(context: &Context, args: PruneArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    if !args.force && !confirm(QUESTION)? {
        return Ok(0);
    }
    let reply = context.client().await?.networks_prune(&filters).await?;
    if reply.networks_deleted.is_empty() {
        return Ok(0);
    }
    output::line("Deleted Networks:")?;
    for name in &reply.networks_deleted {
        output::line(name)?;
    }
    output::line("")?;
    Ok(0)
}
