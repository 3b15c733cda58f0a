//! `hull run`: create, attach, wait, start; copy streams until the end; the process's exit code.

use std::time::Duration;

use clap::Args;
use hull_api_types::container::WaitResponse;
use hull_client::{AttachOptions, ByteStream, Client, WaitCondition};

use crate::context::Context;
use crate::error::{CliError, ENGINE_ERROR};
use crate::output;
use crate::spec::{Arity, command};
use crate::streams::attached::{Copying, Ended, Resized, copy, pass_signals, tell_size};
use crate::streams::signals::Signals;
use crate::streams::terminal;

use super::create::{create, request};
use super::create_flags::CreateFlags;

/// Longest wait for the removal of a container that could not be started.
const REMOVAL: Duration = Duration::from_secs(10);

/// Arguments of `hull run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Run container in background and print container ID
    #[arg(short, long)]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "string")]
    detach_keys: Option<String>,
    /// Proxy received signals to the process (default true)
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = crate::values::scalar::go_bool)]
    sig_proxy: bool,
    #[command(flatten)]
    flags: CreateFlags,
    /// Image, command and its arguments
    #[arg(trailing_var_arg = true)]
    args: Vec<String>,
}

command!(
    RunArgs,
    run,
    names = ["run", "container run"],
    usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    about = "Create and run a new container from an image",
    arity = Arity::AtLeast(1),
);

async fn run(context: &Context, args: RunArgs) -> Result<u8, CliError> {
    let mut request = request(&args.flags, &args.args).map_err(|error| error.of_options("run"))?;
    let config = &mut request.config;
    if args.detach {
        if !args.flags.attach.is_empty() {
            return Err(CliError::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        config.attach_stdin = false;
        config.attach_stdout = false;
        config.attach_stderr = false;
        config.stdin_once = false;
    } else if config.attach_stdin && config.tty && !terminal::stdin_is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let copying = Copying {
        tty: config.tty,
        stdin: config.attach_stdin,
        stdout: config.attach_stdout,
        stderr: config.attach_stderr,
        detach_keys: args.detach_keys.clone(),
    };
    if copying.tty
        && let Some((height, width)) = terminal::size()
    {
        request.host_config.console_size = [u32::from(height), u32::from(width)];
    }
    let client = context
        .client()
        .await
        .map_err(|error| error.of_options("run"))?;
    let attached = copying.stdin || copying.stdout || copying.stderr;
    let signals = (attached && args.sig_proxy && !copying.tty).then(Signals::forwarded);
    // What attaches and what waits come next, each on a connection of its own.
    let (created, ()) = tokio::join!(
        create(&client, &args.flags, &request),
        client.open_ahead(if attached { 2 } else { 0 })
    );
    let created = created.map_err(|error| error.of_start("run"))?;
    if !attached {
        client
            .container_start(&created.id, args.detach_keys.as_deref())
            .await
            .map_err(|error| CliError::from(error).of_start("run"))?;
        output::line(&created.id)?;
        return Ok(0);
    }
    let condition = if args.flags.rm {
        WaitCondition::Removed
    } else {
        WaitCondition::NextExit
    };
    attach_and_start(&client, &created.id, &copying, condition, signals).await
}

/// Attaches, starts, copies to the end, and gives the exit code.
pub(crate) async fn attach_and_start(
    client: &Client,
    id: &str,
    copying: &Copying,
    condition: WaitCondition,
    signals: Option<Signals>,
) -> Result<u8, CliError> {
    let options = AttachOptions {
        stdin: copying.stdin,
        stdout: copying.stdout,
        stderr: copying.stderr,
        logs: false,
        detach_keys: copying.detach_keys.clone(),
    };
    // Both must be in place before the start, so that no output and no exit is missed.
    let (connection, exit) = tokio::join!(
        client.container_attach(id, &options),
        client.container_wait_begin(id, condition)
    );
    let connection = connection.map_err(|error| CliError::from(error).of_options("run"))?;
    let mut exit = exit.map_err(|error| CliError::from(error).of_options("run"))?;
    if let Err(error) = client
        .container_start(id, copying.detach_keys.as_deref())
        .await
    {
        drop(connection);
        if condition == WaitCondition::Removed {
            // The engine removes it again; until then its name is taken.
            let _ = tokio::time::timeout(REMOVAL, exit.next_json::<WaitResponse>()).await;
        }
        return Err(CliError::from(error).of_start("run"));
    }
    let side = async {
        match signals {
            Some(signals) => pass_signals(client, id, signals).await,
            None if copying.tty => tell_size(client, Resized::Container(id)).await,
            None => {}
        }
    };
    match copy(connection, copying, side).await? {
        Ended::Detached => Ok(0),
        Ended::Signal(number) => Ok(u8::try_from(128 + number).unwrap_or(ENGINE_ERROR)),
        Ended::Output => exit_code(&mut exit).await,
    }
}

/// The exit code that a begun wait tells.
async fn exit_code(exit: &mut ByteStream) -> Result<u8, CliError> {
    match exit.next_json::<WaitResponse>().await {
        Ok(Some(WaitResponse {
            error: Some(error), ..
        })) if !error.message.is_empty() => Err(CliError::with_code(
            format!("Error waiting for container: {}", error.message),
            ENGINE_ERROR,
        )),
        Ok(Some(reply)) => Ok(status(reply.status_code)),
        Ok(None) => Err(CliError::with_code(
            "Error waiting for container: the daemon went away",
            ENGINE_ERROR,
        )),
        Err(error) => Err(CliError::with_code(
            format!(
                "Error waiting for container: {}",
                CliError::from(error).text()
            ),
            ENGINE_ERROR,
        )),
    }
}

/// An exit status as a process can have it.
pub(crate) fn status(code: i64) -> u8 {
    u8::try_from(code.rem_euclid(256)).unwrap_or(ENGINE_ERROR)
}
