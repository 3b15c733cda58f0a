//! `hull save`: images as an archive.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

use super::archive;

/// Arguments of `hull save`.
#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "string")]
    output: Option<String>,
    /// Images
    args: Vec<String>,
}

command!(
    SaveArgs,
    run,
    names = ["save", "image save"],
    usage = "[OPTIONS] IMAGE [IMAGE...]",
    about = "Save one or more images to a tar archive (streamed to STDOUT by default)",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: SaveArgs) -> Result<u8, CliError> {
    archive::check_output(
        args.output.as_deref(),
        "cowardly refusing to save to a terminal. Use the -o flag or redirect",
    )?;
    let stream = context.client().await?.image_save(&args.args).await?;
    archive::receive(stream, args.output.as_deref()).await?;
    Ok(0)
}
