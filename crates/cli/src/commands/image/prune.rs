//! `hull image prune`: removes images that nothing uses.

use clap::Args;

use crate::commands::prune::{confirm, reclaimed};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;

/// Arguments of `hull image prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all unused images, not just dangling ones
    #[arg(short, long)]
    all: bool,
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
    names = ["image prune"],
    usage = "[OPTIONS]",
    about = "Remove unused images",
    arity = Arity::None,
);

async fn run(context: &Context, args: PruneArgs) -> Result<u8, CliError> {
    let mut filters = filter::collect(&args.filter);
    filters.insert("dangling".to_owned(), vec![(!args.all).to_string()]);
    let question = if args.all {
        "WARNING! This will remove all images without at least one container associated to them.\nAre you sure you want to continue? [y/N] "
    } else {
        "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] "
    };
    if !args.force && !confirm(question)? {
        return Ok(0);
    }
    let reply = context.client().await?.images_prune(&filters).await?;
    deleted(&reply.images_deleted)?;
    reclaimed(reply.space_reclaimed)?;
    Ok(0)
}

/// Prints what was untagged and deleted.
pub(crate) fn deleted(items: &[hull_api_types::image::ImageDeleteItem]) -> Result<(), CliError> {
    if items.is_empty() {
        return Ok(());
    }
    output::line("Deleted Images:")?;
    for item in items {
        if item.untagged.is_empty() {
            output::line(&format!("deleted: {}", item.deleted))?;
        } else {
            output::line(&format!("untagged: {}", item.untagged))?;
        }
    }
    output::line("")
}
