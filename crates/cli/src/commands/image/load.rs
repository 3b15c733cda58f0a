//! `hull load`: images from an archive.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::progress;
use crate::spec::{Arity, command};
use crate::streams::terminal;

use super::archive::upload;

/// Arguments of `hull load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Read from tar archive file, instead of STDIN
    #[arg(short, long, value_name = "string")]
    input: Option<String>,
    /// Load only the given platform. Formatted as os[/arch[/variant]] (e.g., "linux/amd64")
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

command!(
    LoadArgs,
    run,
    names = ["load", "image load"],
    usage = "[OPTIONS]",
    about = "Load an image from a tar archive or STDIN",
    arity = Arity::None,
);

async fn run(context: &Context, args: LoadArgs) -> Result<u8, CliError> {
    let path = args
        .input
        .as_deref()
        .filter(|path| !path.is_empty() && *path != "-");
    if path.is_none() && terminal::stdin_is_terminal() {
        return Err(CliError::new(
            "requested load from stdin, but stdin is empty",
        ));
    }
    let archive = upload(path)?;
    let client = context.client().await?;
    let quiet = args.quiet || !terminal::stdout_is_terminal();
    let request = client.image_load_of(archive.body, quiet, args.platform.as_deref());
    progress::transfer(request, &archive.sent, archive.total, quiet).await?;
    Ok(0)
}
