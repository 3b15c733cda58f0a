//! `hull logout`: credentials are forgotten.

use clap::Args;

use crate::context::Context;
use crate::credentials::{Store, key};
use crate::error::CliError;
use crate::output;
use crate::registry;
use crate::spec::{Arity, command};

/// Arguments of `hull logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry
    args: Vec<String>,
}

command!(
    LogoutArgs,
    run,
    names = ["logout"],
    usage = "[SERVER]",
    about = "Log out from a registry",
    arity = Arity::AtMost(1),
);

async fn run(context: &Context, args: LogoutArgs) -> Result<u8, CliError> {
    let server = match args.args.first() {
        Some(server) => key(server),
        // A daemon that does not run needs not be started for this.
        None => match context.running_client().await? {
            Some(client) => key(&registry::default(&client).await?),
            None => key(""),
        },
    };
    let mut store = Store::open()?;
    if store.remove(&server)? {
        output::line(&format!("Removing login credentials for {server}"))?;
    } else {
        output::line(&format!("Not logged in to {server}"))?;
    }
    Ok(0)
}
