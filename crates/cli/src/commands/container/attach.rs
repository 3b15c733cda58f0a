//! `hull attach`: ties standard streams to a running container.

use clap::Args;
use hull_client::{AttachOptions, WaitCondition};

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};
use crate::streams::attached::{Copying, Ended, Resized, copy, pass_signals, tell_size};
use crate::streams::signals::Signals;
use crate::streams::terminal;

use super::run::status;

/// Arguments of `hull attach`.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Proxy all received signals to the process (default true)
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = crate::values::scalar::go_bool)]
    sig_proxy: bool,
    /// The container
    args: Vec<String>,
}

command!(
    AttachArgs,
    run,
    names = ["attach", "container attach"],
    usage = "[OPTIONS] CONTAINER",
    about = "Attach local standard input, output, and error streams to a running container",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: AttachArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    let client = context.client().await?;
    let container = client.container_inspect(name).await?;
    if !container.state.running {
        return Err(CliError::new(
            "You cannot attach to a stopped container, start it first",
        ));
    }
    if container.state.paused {
        return Err(CliError::new(
            "You cannot attach to a paused container, unpause it first",
        ));
    }
    if container.state.restarting {
        return Err(CliError::new(
            "You cannot attach to a restarting container, wait until it is running",
        ));
    }
    let tty = container.config.tty;
    let stdin = !args.no_stdin && container.config.open_stdin;
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let copying = Copying {
        tty,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: args.detach_keys.clone(),
    };
    let options = AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        logs: false,
        detach_keys: args.detach_keys,
    };
    let signals = (args.sig_proxy && !tty).then(Signals::forwarded);
    let connection = client.container_attach(&container.id, &options).await?;
    let side = async {
        match signals {
            Some(signals) => pass_signals(&client, &container.id, signals).await,
            None if tty => tell_size(&client, Resized::Container(&container.id)).await,
            None => {}
        }
    };
    match copy(connection, &copying, side).await? {
        Ended::Detached => Err(CliError::new("read escape sequence")),
        Ended::Signal(number) => Ok(status(i64::from(128 + number))),
        Ended::Output => match client
            .container_wait(&container.id, WaitCondition::NotRunning)
            .await
        {
            Ok(reply) => Ok(status(reply.status_code)),
            // A container that removes itself is gone by now, and its status with it.
            Err(error) if error.is_not_found() => Ok(0),
            Err(error) => Err(error.into()),
        },
    }
}
