//! `hull rm`: removes containers.

use clap::Args;
use hull_client::RemoveOptions;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};

/// Arguments of `hull rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(short, long)]
    force: bool,
    /// Remove the specified link
    #[arg(short, long)]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["rm", "container rm", "container remove"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Remove one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let options = RemoveOptions {
        force: args.force,
        volumes: args.volumes,
        link: args.link,
    };
    each(&args.args, async |name| {
        let name = name.trim_matches('/');
        if name.is_empty() {
            return Err(CliError::new("container name cannot be empty"));
        }
        match client.container_remove(name, options).await {
            Ok(()) => Ok(Some(name.to_owned())),
            // Forced removal wants it gone, and gone it is.
            Err(error) if args.force && error.is_not_found() => {
                output::error_line(CliError::from(error).text());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    })
    .await
}
