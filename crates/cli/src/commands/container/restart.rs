//! `hull restart`: stops containers and starts them again.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// Signal to send to the container
    #[arg(short, long, value_name = "string")]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(short, long, alias = "time", value_name = "int", value_parser = crate::values::scalar::go_int)]
    timeout: Option<i64>,
    /// Containers
    args: Vec<String>,
}

command!(
    RestartArgs,
    run,
    names = ["restart", "container restart"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Restart one or more containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RestartArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client
            .container_stop(name, "restart", args.timeout, args.signal.as_deref())
            .await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
