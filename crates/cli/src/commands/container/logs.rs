//! `hull logs`: what a container wrote.

use clap::Args;
use hull_client::{Demux, LogsOptions};

use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::spec::{Arity, command};
use crate::streams::attached::show_frames;
use crate::values::timestamp;

/// Arguments of `hull logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short, long)]
    follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Number of lines to show from the end of the logs (default "all")
    #[arg(short = 'n', long, value_name = "string")]
    tail: Option<String>,
    /// Show timestamps
    #[arg(short, long)]
    timestamps: bool,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long, value_name = "string")]
    until: Option<String>,
    /// The container
    args: Vec<String>,
}

command!(
    LogsArgs,
    run,
    names = ["logs", "container logs"],
    usage = "[OPTIONS] CONTAINER",
    about = "Fetch the logs of a container",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: LogsArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    let since = timestamp::flag("since", args.since.as_deref())?;
    let until = timestamp::flag("until", args.until.as_deref())?;
    let client = context.client().await?;
    let container = client.container_inspect(name).await?;
    let options = LogsOptions {
        stdout: true,
        stderr: true,
        follow: args.follow,
        timestamps: args.timestamps,
        details: args.details,
        since,
        until,
        tail: Some(args.tail.unwrap_or_else(|| "all".to_owned())),
    };
    let mut stream = client.container_logs(&container.id, &options).await?;
    let mut demux = Demux::new();
    while let Some(bytes) = stream.next().await? {
        if container.config.tty {
            output::bytes(&bytes)?;
        } else {
            demux.push(&bytes);
            show_frames(&mut demux, true, true)?;
        }
    }
    Ok(0)
}
