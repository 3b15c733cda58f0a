//! `hull wait`: exit codes of containers, once they have one.

use clap::Args;
use hull_client::WaitCondition;

use crate::commands::each::each;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Containers
    args: Vec<String>,
}

command!(
    WaitArgs,
    run,
    names = ["wait", "container wait"],
    usage = "CONTAINER [CONTAINER...]",
    about = "Block until one or more containers stop, then print their exit codes",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: WaitArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    each(&args.args, async |name| {
        let reply = client
            .container_wait(name, WaitCondition::NotRunning)
            .await?;
        match reply.error.filter(|error| !error.message.is_empty()) {
            Some(error) => Err(CliError::new(error.message)),
            None => Ok(Some(reply.status_code.to_string())),
        }
    })
    .await
}
