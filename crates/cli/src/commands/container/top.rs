//! `hull top`: the processes of a container.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::format::tabwriter;
use crate::output;
use crate::spec::{Arity, command};

/// Narrowest column.
const MIN_WIDTH: usize = 20;

/// Arguments of `hull top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Container and options of ps
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

command!(
    TopArgs,
    run,
    names = ["top", "container top"],
    usage = "CONTAINER [ps OPTIONS]",
    about = "Display the running processes of a container",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: TopArgs) -> Result<u8, CliError> {
    let Some((name, options)) = args.args.split_first() else {
        return Err(CliError::new("no container given"));
    };
    let options = options.join(" ");
    let reply = context
        .client()
        .await?
        .container_top(name, (!options.is_empty()).then_some(options.as_str()))
        .await?;
    let mut text = reply.titles.join("\t");
    text.push('\n');
    for process in &reply.processes {
        text.push_str(&process.join("\t").replace('\n', " "));
        text.push('\n');
    }
    output::print(&tabwriter::align_with(&text, MIN_WIDTH, 3))?;
    Ok(0)
}
