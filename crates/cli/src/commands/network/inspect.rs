//! `hull network inspect`.

use clap::Args;

use crate::commands::inspect::{Kind, inspect};
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull network inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Show what stands behind the networks too: bridge, names, firewall rules, links
    #[arg(short, long)]
    verbose: bool,
    /// Networks
    args: Vec<String>,
}

command!(
    InspectArgs,
    run,
    names = ["network inspect"],
    usage = "[OPTIONS] NETWORK [NETWORK...]",
    about = "Display detailed information on one or more networks",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: InspectArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    inspect(
        &client,
        &args.args,
        args.format.as_deref(),
        Some(Kind::Network),
        args.verbose,
    )
    .await
}
