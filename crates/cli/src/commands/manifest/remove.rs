//! `hull manifest rm`: gives lists up.

use clap::Args;

use super::store::Lists;
use crate::context::Context;
use crate::error::CliError;
use crate::output::Failures;
use crate::spec::{Arity, command};

/// Arguments of `hull manifest rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Lists
    args: Vec<String>,
}

command!(
    RemoveArgs,
    run,
    names = ["manifest rm"],
    usage = "MANIFEST_LIST [MANIFEST_LIST...]",
    about = "Delete one or more manifest lists from local storage",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RemoveArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let lists = Lists::open();
    let mut failures = Failures::default();
    for text in &args.args {
        let name = super::name(&client, text).await?;
        match lists.remove(&name.full) {
            Ok(true) => {}
            Ok(false) => failures.push(CliError::new(format!("No such manifest: {}", name.full))),
            Err(error) => failures.push(error),
        }
    }
    failures.finish()
}
