//! `hull pull`: an image from a registry.

use clap::Args;
use hull_client::Client;

use crate::context::Context;
use crate::credentials::Store;
use crate::error::CliError;
use crate::output;
use crate::progress::{self, Target};
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::reference;

/// Arguments of `hull pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
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
    let familiar = reference::familiar(name);
    if !args.quiet && familiar != name && familiar.strip_suffix(":latest") == Some(name) {
        output::line("Using default tag: latest")?;
    }
    let client = context.client().await?;
    let target = if args.quiet {
        Target::Nowhere
    } else {
        Target::Stdout
    };
    pull(&client, name, args.platform.as_deref(), target).await?;
    output::line(&familiar)?;
    Ok(0)
}

/// Pulls an image and shows the progress.
pub(crate) async fn pull(
    client: &Client,
    name: &str,
    platform: Option<&str>,
    target: Target,
) -> Result<(), CliError> {
    let (repository, tag) = reference::split(name);
    let auth = Store::header_for(name)?;
    let stream = client
        .image_pull(&repository, &tag, platform, &auth)
        .await?;
    progress::messages(stream, target, !terminal::stdout_is_terminal()).await
}
