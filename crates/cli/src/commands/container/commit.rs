//! `hull commit`: an image of a container as it is.

use clap::Args;
use hull_client::CommitOptions;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::values::reference;

/// Arguments of `hull commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(short, long, value_name = "string")]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Commit message
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Disable pausing container during commit
    #[arg(long)]
    no_pause: bool,
    /// Pause container during commit
    #[arg(short, long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = crate::values::scalar::go_bool)]
    pause: bool,
    /// The container, and a name for the image
    args: Vec<String>,
}

command!(
    CommitArgs,
    run,
    names = ["commit", "container commit"],
    usage = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about = "Create a new image from a container's changes",
    arity = Arity::Between(1, 2),
);

async fn run(context: &Context, args: CommitArgs) -> Result<u8, CliError> {
    let container = args.args.first().map_or("", String::as_str);
    let (repository, tag) = match args.args.get(1).filter(|name| !name.is_empty()) {
        Some(name) => {
            reference::check(name).map_err(CliError::new)?;
            let (repository, tag) = reference::split(name);
            (Some(repository), Some(tag))
        }
        None => (None, None),
    };
    let options = CommitOptions {
        repository,
        tag,
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause && !args.no_pause,
    };
    let client = context.client().await?;
    output::line(&client.container_commit(container, &options).await?)?;
    Ok(0)
}
