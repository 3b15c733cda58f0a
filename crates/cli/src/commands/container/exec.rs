//! `hull exec`: runs a command in a running container.

use clap::Args;
use hull_api_types::exec::{ExecCreateRequest, ExecStartRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};
use crate::streams::attached::{Copying, Ended, Resized, copy, tell_size};
use crate::streams::terminal;
use crate::values::environment;

use super::run::status;

/// Arguments of `hull exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "list", value_parser = environment::variable)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "list")]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "string")]
    user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "string")]
    workdir: Option<String>,
    /// Container, command and its arguments
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

command!(
    ExecArgs,
    run,
    names = ["exec", "container exec"],
    usage = "[OPTIONS] CONTAINER COMMAND [ARG...]",
    about = "Execute a command in a running container",
    arity = Arity::AtLeast(2),
);

async fn run(context: &Context, args: ExecArgs) -> Result<u8, CliError> {
    let Some((container, command)) = args.args.split_first() else {
        return Err(CliError::new("no container given"));
    };
    let stdin = args.interactive && !args.detach;
    if stdin && args.tty && !terminal::stdin_is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let console_size = if args.tty {
        terminal::size().map(|(height, width)| [u32::from(height), u32::from(width)])
    } else {
        None
    };
    let request = ExecCreateRequest {
        user: args.user.unwrap_or_default(),
        privileged: args.privileged,
        tty: args.tty,
        console_size,
        attach_stdin: stdin,
        attach_stderr: !args.detach,
        attach_stdout: !args.detach,
        detach: args.detach,
        detach_keys: args.detach_keys.clone().unwrap_or_default(),
        env: environment::variables(&args.env_file, &args.env).map_err(CliError::new)?,
        working_dir: args.workdir.unwrap_or_default(),
        cmd: command.to_vec(),
    };
    let client = context.client().await?;
    let id = client.exec_create(container, &request).await?;
    let start = ExecStartRequest {
        detach: args.detach,
        tty: args.tty,
        console_size,
    };
    if args.detach {
        client.exec_start(&id, &start).await?;
        return Ok(0);
    }
    let copying = Copying {
        tty: args.tty,
        stdin,
        stdout: true,
        stderr: true,
        detach_keys: args.detach_keys,
    };
    let connection = client
        .exec_attach(&id, &start)
        .await
        .map_err(|error| CliError::from(error).of_exec())?;
    let side = async {
        if copying.tty {
            tell_size(&client, Resized::Exec(&id)).await;
        }
    };
    match copy(connection, &copying, side).await? {
        Ended::Detached => Err(CliError::new("read escape sequence")),
        Ended::Signal(number) => Ok(status(i64::from(128 + number))),
        Ended::Output => Ok(status(
            client.exec_inspect(&id).await?.exit_code.unwrap_or(0),
        )),
    }
}
