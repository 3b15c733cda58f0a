//! `hull push`: an image to a registry.

use clap::Args;

use crate::context::Context;
use crate::credentials::Store;
use crate::error::CliError;
use crate::output;
use crate::progress::{self, Target};
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::reference;

/// Arguments of `hull push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// The image
    args: Vec<String>,
}

command!(
    PushArgs,
    run,
    names = ["push", "image push"],
    usage = "[OPTIONS] NAME[:TAG]",
    about = "Upload an image to a registry",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: PushArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    reference::check(name).map_err(CliError::new)?;
    let familiar = reference::familiar(name);
    if !args.quiet && familiar.strip_suffix(":latest") == Some(name) {
        output::line("Using default tag: latest")?;
    }
    let (repository, tag) = reference::split(name);
    let auth = Store::header_for(name)?;
    let client = context.client().await?;
    let stream = client.image_push(&repository, &tag, &auth).await?;
    let target = if args.quiet {
        Target::Nowhere
    } else {
        Target::Stdout
    };
    progress::messages(stream, target, !terminal::stdout_is_terminal()).await?;
    if args.quiet {
        output::line(&familiar)?;
    }
    Ok(0)
}
