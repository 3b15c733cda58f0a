//! `hull import`: an image from a root file system.

use clap::Args;
use hull_client::{ImportOptions, RequestBody};

use crate::context::Context;
use crate::error::CliError;
use crate::progress;
use crate::spec::{Arity, command};
use crate::streams::terminal;
use crate::values::reference;

use super::archive::upload;

/// Arguments of `hull import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Apply Dockerfile instruction to the created image
    #[arg(short, long, value_name = "list")]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(short, long, value_name = "string")]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long, value_name = "string")]
    platform: Option<String>,
    /// The archive, and a name for the image
    args: Vec<String>,
}

command!(
    ImportArgs,
    run,
    names = ["import", "image import"],
    usage = "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about = "Import the contents from a tarball to create a filesystem image",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: ImportArgs) -> Result<u8, CliError> {
    let source = args.args.first().map_or("-", String::as_str);
    let (repository, tag) = match args.args.get(1) {
        Some(name) => {
            let (repository, tag) = reference::split(name);
            (Some(repository), Some(tag))
        }
        None => (None, None),
    };
    let mut options = ImportOptions {
        source: "-".to_owned(),
        repository,
        tag,
        message: args.message,
        changes: args.change,
        platform: args.platform,
    };
    let client = context.client().await?;
    let quiet = !terminal::stdout_is_terminal();
    if source.starts_with("http://") || source.starts_with("https://") {
        options.source = source.to_owned();
        progress::messages(
            client.image_import(&options, RequestBody::Empty).await?,
            progress::Target::Stdout,
            quiet,
        )
        .await?;
        return Ok(0);
    }
    if source == "-" && terminal::stdin_is_terminal() {
        return Err(CliError::new(
            "requested import from stdin, but stdin is empty",
        ));
    }
    let archive = upload((source != "-").then_some(source))?;
    progress::transfer(
        client.image_import(&options, archive.body),
        &archive.sent,
        archive.total,
        quiet,
    )
    .await?;
    Ok(0)
}
