//! `hull images`: the list of images.

use clap::Args;
use hull_client::Filters;

use super::tree;
use crate::context::Context;
use crate::error::CliError;
use crate::format::{human, image, list};
use crate::output;
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::filter;

/// Arguments of `hull images`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show all images (default hides intermediate images)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// List multi-platform images as a tree; with -a also their layers
    #[arg(long)]
    tree: bool,
    /// A repository, or one image of it
    args: Vec<String>,
}

command!(
    ListArgs,
    run,
    names = ["images", "image ls", "image list"],
    usage = "[OPTIONS] [REPOSITORY[:TAG]]",
    about = "List images",
    arity = Arity::AtMost(1),
);

async fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let mut filters = filter::collect(&args.filter);
    if let Some(name) = args.args.first() {
        filters.insert("reference".to_owned(), vec![name.clone()]);
    }
    if args.tree {
        return as_tree(context, &args, &filters).await;
    }
    let images = context
        .client()
        .await?
        .image_list(args.all, &filters)
        .await?;
    let now = human::now();
    let wants_digests = args.digests
        || args
            .format
            .as_deref()
            .is_some_and(|format| format.contains(".Digest"));
    let rows: Vec<_> = images
        .iter()
        .flat_map(|one| image::rows(one, wants_digests, args.no_trunc, now, None))
        .collect();
    let listing = if args.digests {
        image::LISTING_WITH_DIGESTS
    } else {
        image::LISTING
    };
    list::print(&listing, &rows, args.format.as_deref(), args.quiet)?;
    Ok(0)
}

async fn as_tree(context: &Context, args: &ListArgs, filters: &Filters) -> Result<u8, CliError> {
    let unfit = [
        ("quiet", args.quiet),
        ("no-trunc", args.no_trunc),
        ("digests", args.digests),
        ("format", args.format.is_some()),
    ];
    if let Some((flag, _)) = unfit.iter().find(|(_, given)| *given) {
        return Err(CliError::new(format!(
            "--{flag} is not supported with --tree"
        )));
    }
    let mut images = context
        .client()
        .await?
        .image_list_with_manifests(args.all, filters)
        .await?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let width = if terminal::stdout_is_terminal() {
        terminal::size().map(|(_, columns)| usize::from(columns))
    } else {
        None
    };
    output::print(&tree::render(&images, args.all, width))?;
    Ok(0)
}
