//! `hull ps`: the list of containers.

use clap::Args;
use hull_api_types::container::ContainerSummary;
use hull_client::ContainerListOptions;

use crate::context::Context;
use crate::error::CliError;
use crate::format::{container, human, list};
use crate::output;
use crate::spec::{Arity, command};
use crate::values::filter;
use crate::values::scalar::go_int;

/// Arguments of `hull ps`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show n last created containers (includes all states) (default -1)
    #[arg(short = 'n', long, value_name = "int", value_parser = go_int)]
    last: Option<i64>,
    /// Show the latest created container (includes all states)
    #[arg(short, long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short, long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
}

command!(
    ListArgs,
    run,
    names = ["ps", "container ls", "container list", "container ps"],
    usage = "[OPTIONS]",
    about = "List containers",
    arity = Arity::None,
);

async fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let mut format = args.format.as_deref();
    if args.quiet && format.is_some_and(|format| !format.is_empty()) {
        output::error_line(
            "WARNING: Ignoring custom format, because both --format and --quiet are set.",
        );
        format = None;
    }
    let last = if args.latest { Some(1) } else { args.last };
    let limit = last
        .and_then(|last| u64::try_from(last).ok())
        .filter(|last| *last > 0);
    let wants_size = args.size
        || args
            .format
            .as_deref()
            .is_some_and(|format| format.contains(".Size") || format.contains("json ."));
    let options = ContainerListOptions {
        all: args.all || limit.is_some(),
        size: wants_size && !args.quiet,
        limit,
        filters: filter::collect(&args.filter),
    };
    let containers = context.client().await?.container_list(&options).await?;
    let now = human::now();
    let rows: Vec<_> = containers
        .iter()
        .map(|one| container::row(one, args.no_trunc, now))
        .collect();
    if rows.is_empty() && format.is_some() {
        // A template that does not fit is an error even where there is nothing to print.
        let sample = [container::row(&ContainerSummary::default(), false, now)];
        list::render(&container::LISTING, &sample, format, false)?;
    }
    let listing = if args.size {
        container::LISTING_WITH_SIZE
    } else {
        container::LISTING
    };
    list::print(&listing, &rows, format, args.quiet)?;
    Ok(0)
}
