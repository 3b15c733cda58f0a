//! `hull network disconnect`.

use clap::Args;
use hull_api_types::network::NetworkDisconnectRequest;

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Arguments of `hull network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    force: bool,
    /// Network and container
    args: Vec<String>,
}

command!(
    DisconnectArgs,
    run,
    names = ["network disconnect"],
    usage = "[OPTIONS] NETWORK CONTAINER",
    about = "Disconnect a container from a network",
    arity = Arity::Exactly(2),
);

async fn run(context: &Context, args: DisconnectArgs) -> Result<u8, CliError> {
    let mut names = args.args.into_iter();
    let network = names.next().unwrap_or_default();
    let request = NetworkDisconnectRequest {
        container: names.next().unwrap_or_default(),
        force: args.force,
    };
    let client = context.client().await?;
    client.network_disconnect(&network, &request).await?;
    Ok(0)
}
