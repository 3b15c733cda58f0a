//! `hull push`: an image to a registry.

use clap::Args;
use hull_client::PushOptions;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::progress::{self, Target};
use crate::registry;
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::reference;

/// Arguments of `hull push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push a platform-specific manifest as a single-platform image to the registry
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Push what refers to the image and was pulled with it, too
    #[arg(long)]
    referrers: bool,
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
    let untagged = !reference::is_tagged(name);
    if args.all_tags && !untagged {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    if !args.quiet && !args.all_tags && familiar.strip_suffix(":latest") == Some(name) {
        output::line("Using default tag: latest")?;
    }
    let (repository, tag) = reference::split(name);
    let client = context.client().await?;
    let registry = registry::of(&client, name).await?;
    let auth = registry::auth(&registry)?;
    let options = PushOptions {
        repository: repository.clone(),
        tag: (!args.all_tags).then_some(tag),
        platform: args.platform,
        referrers: args.referrers,
    };
    let stream = client.image_push_with(&options, &auth).await?;
    let target = if args.quiet {
        Target::Nowhere
    } else {
        Target::Stdout
    };
    progress::messages(stream, target, !terminal::stdout_is_terminal()).await?;
    if args.quiet {
        let shown = if args.all_tags { repository } else { familiar };
        output::line(&registry::unambiguous(&shown, &registry))?;
    }
    Ok(0)
}
