//! `hull export`: a container's file system as a tar archive.

use clap::Args;

use crate::commands::image::archive;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "string")]
    output: Option<String>,
    /// The container
    args: Vec<String>,
}

command!(
    ExportArgs,
    run,
    names = ["export", "container export"],
    usage = "[OPTIONS] CONTAINER",
    about = "Export a container's filesystem as a tar archive",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: ExportArgs) -> Result<u8, CliError> {
    archive::check_output(
        args.output.as_deref(),
        "cowardly refusing to export to a terminal. Use the -o flag or redirect",
    )?;
    let name = args.args.first().map_or("", String::as_str);
    let stream = context.client().await?.container_export(name).await?;
    archive::receive(stream, args.output.as_deref()).await?;
    Ok(0)
}
