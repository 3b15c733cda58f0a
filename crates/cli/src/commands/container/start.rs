//! `hull start`: starts containers, or attaches to one while starting it.

use clap::Args;
use hull_client::WaitCondition;

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::streams::attached::Copying;
use crate::streams::signals::Signals;
use crate::streams::terminal;

use super::run::attach_and_start;

/// Arguments of `hull start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    attach: bool,
    /// Attach container's STDIN
    #[arg(short, long)]
    interactive: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Containers
    args: Vec<String>,
}

command!(
    StartArgs,
    run,
    names = ["start", "container start"],
    usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    about = "Start one or more stopped containers",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: StartArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    if !args.attach && !args.interactive {
        let mut failed = Vec::new();
        for name in &args.args {
            match client.container_start(name, None).await {
                Ok(()) => output::line(name)?,
                Err(error) => {
                    output::error_line(CliError::from(error).text());
                    failed.push(name.as_str());
                }
            }
        }
        if failed.is_empty() {
            return Ok(0);
        }
        return Err(CliError::new(format!(
            "Error: failed to start containers: {}",
            failed.join(", ")
        )));
    }
    let [name] = args.args.as_slice() else {
        return Err(CliError::new(
            "you cannot start and attach multiple containers at once",
        ));
    };
    let container = client.container_inspect(name).await?;
    let stdin = args.interactive && container.config.open_stdin;
    let tty = container.config.tty;
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let copying = Copying {
        tty,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: args.detach_keys,
    };
    let condition = if container.host_config.auto_remove {
        WaitCondition::Removed
    } else {
        WaitCondition::NextExit
    };
    let signals = (!tty).then(Signals::forwarded);
    match attach_and_start(&client, &container.id, &copying, condition, signals).await {
        // `start` reports as an ordinary command does: no pointer to run's help, exit code 1.
        Err(CliError::Message { text, .. }) => {
            let text = text.strip_prefix("hull: ").unwrap_or(&text);
            Err(CliError::new(
                text.split("\n\nRun 'hull run").next().unwrap_or(text),
            ))
        }
        other => other,
    }
}
