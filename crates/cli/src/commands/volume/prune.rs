//! `hull volume prune`.

use clap::Args;

use crate::commands::prune::{confirm, reclaimed};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;

/// Arguments of `hull volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all unused volumes, not just anonymous ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<label>")
    #[arg(long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
}

command!(
    PruneArgs,
    run,
    names = ["volume prune"],
    usage = "[OPTIONS]",
    about = "Remove unused local volumes",
    arity = Arity::None,
);

async fn run(context: &Context, args: PruneArgs) -> Result<u8, CliError> {
    let mut filters = filter::collect(&args.filter);
    if args.all {
        if filters.contains_key("all") {
            return Err(CliError::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        filters.insert("all".to_owned(), vec!["true".to_owned()]);
    }
    let question = if args.all {
        "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] "
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] "
    };
    if !args.force && !confirm(question)? {
        return Ok(0);
    }
    let reply = context.client().await?.volumes_prune(&filters).await?;
    deleted(&reply.volumes_deleted)?;
    reclaimed(reply.space_reclaimed)?;
    Ok(0)
}

/// Prints the names of deleted volumes.
pub(crate) fn deleted(names: &[String]) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    output::line("Deleted Volumes:")?;
    for name in names {
        output::line(name)?;
    }
    output::line("")
}
