//! `hull image inspect`: everything about images.

use clap::Args;

use crate::commands::inspect::{Kind, inspect};
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull image inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Images
    args: Vec<String>,
}

command!(
    InspectArgs,
    run,
    names = ["image inspect"],
    usage = "[OPTIONS] IMAGE [IMAGE...]",
    about = "Display detailed information on one or more images",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: InspectArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    inspect(
        &client,
        &args.args,
        args.format.as_deref(),
        Some(Kind::Image),
        false,
    )
    .await
}
