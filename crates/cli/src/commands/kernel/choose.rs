//! `hull kernel use`.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};

/// Arguments of `hull kernel use`.
#[derive(Debug, Args)]
pub(crate) struct UseArgs {
    /// A kernel
    args: Vec<String>,
}

command!(
    UseArgs,
    run,
    names = ["kernel use"],
    usage = "KERNEL",
    about = "Choose the kernel that virtual machines boot where none is asked for",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: UseArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    let kernel = context.client().await?.kernel_use(name).await?;
    output::line(&kernel.name)?;
    Ok(0)
}
