//! `hull system prune`: removes what nothing uses.

use clap::Args;

use crate::commands::prune::{confirm, reclaimed};
use crate::commands::{image, volume};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;

/// Arguments of `hull system prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove all unused images not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Provide filter values (e.g. "label=<key>=<value>")
    #[arg(long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    force: bool,
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
}

command!(
    PruneArgs,
    run,
    names = ["system prune"],
    usage = "[OPTIONS]",
    about = "Remove unused data",
    arity = Arity::None,
);

async fn run(context: &Context, args: PruneArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    if args.volumes && filters.contains_key("until") {
        return Err(CliError::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    if !args.force && !confirm(&question(&args))? {
        return Ok(0);
    }
    let client = context.client().await?;
    let containers = client.containers_prune(&filters).await?;
    let mut space = containers.space_reclaimed;
    section("Deleted Containers:", &containers.containers_deleted)?;
    section(
        "Deleted Networks:",
        &client.networks_prune(&filters).await?.networks_deleted,
    )?;
    if args.volumes {
        let volumes = client.volumes_prune(&filters).await?;
        space += volumes.space_reclaimed;
        volume::prune::deleted(&volumes.volumes_deleted)?;
    }
    let mut image_filters = filters;
    image_filters.insert("dangling".to_owned(), vec![(!args.all).to_string()]);
    let images = client.images_prune(&image_filters).await?;
    space += images.space_reclaimed;
    image::prune::deleted(&images.images_deleted)?;
    reclaimed(space)?;
    Ok(0)
}

fn section(title: &str, lines: &[String]) -> Result<(), CliError> {
    if lines.is_empty() {
        return Ok(());
    }
    output::line(title)?;
    for line in lines {
        output::line(line)?;
    }
    output::line("")
}

fn question(args: &PruneArgs) -> String {
    let mut lines = vec![
        "all stopped containers",
        "all networks not used by at least one container",
    ];
    if args.volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.push(if args.all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    });
    lines.push(if args.all {
        "all build cache"
    } else {
        "unused build cache"
    });
    let list: Vec<String> = lines.iter().map(|line| format!("  - {line}")).collect();
    let mut text = format!("WARNING! This will remove:\n{}\n", list.join("\n"));
    if !args.filter.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in &args.filter {
            text.push_str(&format!("  - {filter}\n"));
        }
    }
    text.push_str("\nAre you sure you want to continue? [y/N] ");
    text
}
