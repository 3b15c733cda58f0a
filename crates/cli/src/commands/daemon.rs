//! `hull daemon stop`: ends the daemon; containers run on unless told otherwise.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use hull_client::{Client, ContainerListOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::context::Context;
use crate::error::{CliError, io_text};
use crate::output::{self, Failures};
use crate::spec::{Arity, command};

/// The file with the daemon's process id, beside its socket.
const PID_FILE: &str = "hull.pid";
/// Longest wait for the daemon's end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Containers stopped at once.
const PARALLEL: usize = 50;

/// Arguments of `hull daemon stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Stop all containers first; without it they run on
    #[arg(long)]
    all: bool,
    /// Seconds to wait for each container before killing it
    #[arg(short, long, value_name = "int", value_parser = crate::values::scalar::go_int)]
    timeout: Option<i64>,
}

command!(
    StopArgs,
    run,
    names = ["daemon stop"],
    usage = "[OPTIONS]",
    about = "Stop the daemon; containers run on",
    arity = Arity::None,
);

async fn run(context: &Context, args: StopArgs) -> Result<u8, CliError> {
    if context.socket.as_os_str().is_empty() {
        return Err(CliError::new(
            "a daemon on another host is stopped there: ssh HOST hull daemon stop",
        ));
    }
    let Some(client) = context.running_client().await? else {
        return Err(CliError::new(format!(
            "no hull daemon listens on unix://{}",
            context.socket.display()
        )));
    };
    if args.all {
        stop_containers(&client, args.timeout).await?;
    }
    drop(client);
    let directory = context.socket.parent().unwrap_or(&context.run_dir);
    stop_daemon(&directory.join(PID_FILE))?;
    Ok(0)
}

async fn stop_containers(client: &Client, timeout: Option<i64>) -> Result<(), CliError> {
    let containers = client
        .container_list(&ContainerListOptions::default())
        .await?;
    let mut results = stream::iter(&containers)
        .map(|container| async move {
            (
                container,
                client
                    .container_stop(&container.id, "stop", timeout, None)
                    .await,
            )
        })
        .buffered(PARALLEL);
    let mut failures = Failures::default();
    while let Some((container, result)) = results.next().await {
        match result {
            Ok(()) => {
                let name = container
                    .names
                    .first()
                    .map_or(container.id.as_str(), |name| name.trim_start_matches('/'));
                output::line(name)?;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => failures.push(error.into()),
        }
    }
    failures.finish().map(drop)
}

/// Ends the process that the file names, if it is a hull, and waits for its end.
fn stop_daemon(pid_file: &Path) -> Result<(), CliError> {
    let unreadable = |reason: String| {
        CliError::new(format!(
            "cannot tell the daemon's process id from {}: {reason}",
            pid_file.display()
        ))
    };
    let text = std::fs::read_to_string(pid_file).map_err(|error| unreadable(io_text(&error)))?;
    let pid = text
        .trim()
        .parse::<i32>()
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| unreadable("it holds no number".to_owned()))?;
    // A stale file may name a process of somebody else; the descriptor then holds on to the one looked at.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
        CliError::new(format!(
            "the daemon's process {} is gone: {error}",
            pid.as_raw_nonzero()
        ))
    })?;
    let command =
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    if !command
        .split(|byte| *byte == 0)
        .any(|word| word == b"daemon")
    {
        return Err(unreadable(format!(
            "process {} is no hull daemon",
            pid.as_raw_nonzero()
        )));
    }
    pidfd_send_signal(&process, Signal::TERM)
        .map_err(|error| CliError::new(format!("cannot signal the daemon: {error}")))?;
    let timeout = rustix::time::Timespec {
        tv_sec: TIMEOUT.as_secs() as i64,
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(CliError::new(format!(
            "the daemon has not ended after {} s",
            TIMEOUT.as_secs()
        ))),
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::new(format!(
            "cannot wait for the daemon: {error}"
        ))),
    }
}
