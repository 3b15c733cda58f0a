//! `hull stop`: asks containers to end, and kills those that do not in time.

use clap::Args;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
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
    StopArgs,
    run,
    names = ["stop", "container stop"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Stop one or more running containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: StopArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        client
            .container_stop(name, "stop", args.timeout, args.signal.as_deref())
            .await?;
        Ok(Some(name.to_owned()))
    })
    .await
}
