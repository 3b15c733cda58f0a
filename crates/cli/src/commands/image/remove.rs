//! `hull rmi`: removes names of images, and images without names.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{self, Failures};
use crate::spec::{Arity, command};

/// Arguments of `hull rmi`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Force removal of the image
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Images
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["rmi", "image rm", "image remove"],
    usage = "[OPTIONS] IMAGE [IMAGE...]",
    about = "Remove one or more images",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let mut failures = Failures::default();
    let mut fatal = false;
    for name in &args.args {
        match client.image_remove(name, args.force, args.no_prune).await {
            Ok(items) => {
                for item in items {
                    if item.deleted.is_empty() {
                        output::line(&format!("Untagged: {}", item.untagged))?;
                    } else {
                        output::line(&format!("Deleted: {}", item.deleted))?;
                    }
                }
            }
            Err(error) => {
                fatal |= !error.is_not_found();
                failures.push(error.into());
            }
        }
    }
    match failures.finish() {
        // Forced removal wants them gone, and gone they are.
        Err(error) if args.force && !fatal => {
            output::error_line(error.text());
            Ok(0)
        }
        other => other,
    }
}
