//! `hull pull`: an image from a registry.

use clap::Args;
use hull_client::{Client, PullOptions};

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::{self, Target};
use crate::registry;
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::reference;

/// Arguments of `hull pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Download the images of all platforms, and keep them as they are
    #[arg(long)]
    all_platforms: bool,
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Download what refers to the image, too: signatures, bills of materials
    #[arg(long)]
    referrers: bool,
    /// The image
    args: Vec<String>,
}

command!(
    PullArgs,
    run,
    names = ["pull", "image pull"],
    usage = "[OPTIONS] NAME[:TAG|@DIGEST]",
    about = "Download an image from a registry",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: PullArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    reference::check(name).map_err(CliError::new)?;
    if args.all_platforms && args.platform.is_some() {
        return Err(CliError::new(
            "conflicting options: --all-platforms and --platform",
        ));
    }
    let familiar = reference::familiar(name);
    if args.all_tags && reference::is_tagged(name) {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    if !args.quiet && !args.all_tags && familiar.strip_suffix(":latest") == Some(name) {
        output::line("Using default tag: latest")?;
    }
    let client = context.client().await?;
    let target = if args.quiet {
        Target::Nowhere
    } else {
        Target::Stdout
    };
    let (repository, tag) = reference::split(name);
    let options = PullOptions {
        repository: repository.clone(),
        tag: (!args.all_tags).then_some(tag),
        platform: args.platform,
        all_platforms: args.all_platforms,
        referrers: args.referrers,
    };
    let registry = registry::of(&client, name).await?;
    show(&client, &options, &registry, target).await?;
    let shown = if args.all_tags { repository } else { familiar };
    output::line(&registry::unambiguous(&shown, &registry))?;
    Ok(0)
}

async fn show(
    client: &Client,
    options: &PullOptions,
    registry: &str,
    target: Target,
) -> Result<(), CliError> {
    let auth = registry::auth(registry)?;
    let stream = client.image_pull_with(options, &auth).await?;
    progress::messages(stream, target, !terminal::stdout_is_terminal()).await
}

/// Pulls an image and shows the progress.
pub(crate) async fn pull(
    client: &Client,
    name: &str,
    platform: Option<&str>,
    target: Target,
) -> Result<(), CliError> {
    let (repository, tag) = reference::split(name);
    let options = PullOptions {
        repository,
        tag: Some(tag),
        platform: platform.map(str::to_owned),
        ..PullOptions::default()
    };
    let registry = registry::of(client, name).await?;
    show(client, &options, &registry, target).await
}
