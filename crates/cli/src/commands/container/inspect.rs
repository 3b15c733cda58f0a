//! `hull container inspect`: everything about containers.

use clap::Args;

use crate::commands::inspect::{Kind, inspect};
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull container inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    /// Containers
    args: Vec<String>,
}

command!(
    InspectArgs,
    run,
    names = ["container inspect"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Display detailed information on one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: InspectArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    inspect(
        &client,
        &args.args,
        args.format.as_deref(),
        Some(Kind::Container),
        args.size,
    )
    .await
}
