//! `hull pull`: an image from a registry.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};
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

async fn run(_context: &Context, args: PullArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    Err(CliError::new(format!(
        "cannot pull {}: pulling from registries is not built yet, bring the image with 'hull load' or 'hull import'",
        reference::familiar(name)
    )))
}
