//! `hull stats`: resource usage, as a table that renews itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hull_api_types::stats::Stats;
use hull_client::{Client, ContainerListOptions};

use crate::context::Context;
use crate::error::CliError;
use crate::format::usage::{self, Usage};
use crate::format::{human, list};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::Value;

/// Time between two drawings, which is also the time between two samples of the engine.
const PERIOD: Duration = Duration::from_millis(500);
/// How often containers that came and went are looked for, in drawings.
const RELIST: u32 = 4;
/// Longest wait for the first samples.
const FIRST: Duration = Duration::from_secs(3);

/// Arguments of `hull stats`.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// Show all containers (default shows just running)
    #[arg(short, long)]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Disable streaming stats and only pull the first result
    #[arg(long)]
    no_stream: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Containers
    args: Vec<String>,
}

command!(
    StatsArgs,
    run,
    names = ["stats", "container stats"],
    usage = "[OPTIONS] [CONTAINER...]",
    about = "Display a live stream of container(s) resource usage statistics",
    arity = Arity::Any,
);

/// The latest sample of each container, by the order of the list; `None` until one came.
type Samples = RefCell<BTreeMap<String, Option<Usage>>>;

async fn run(context: &Context, args: StatsArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let mut names = names(&client, &args).await?;
    if args.no_stream {
        return once(&client, &args, &names).await;
    }
    let samples: Samples = RefCell::new(BTreeMap::new());
    let mut collectors = FuturesUnordered::new();
    let mut drawings = 0;
    let mut ticks = tokio::time::interval(PERIOD);
    let start = tokio::time::Instant::now();
    for name in &names {
        samples.borrow_mut().insert(name.clone(), None);
        collectors.push(collect(&client, name.clone(), &samples));
    }
    loop {
        tokio::select! {
            Some(ended) = collectors.next(), if !collectors.is_empty() => {
                let (name, result): (String, Result<(), CliError>) = ended;
                // A container that is named must be there; one of a list may go.
                if let Err(error) = result && !args.args.is_empty() {
                    return Err(error);
                }
                samples.borrow_mut().remove(&name);
                if !args.args.is_empty() && samples.borrow().is_empty() {
                    return Ok(0);
                }
            }
            _ = ticks.tick() => {
                drawings += 1;
                if args.args.is_empty() && drawings % RELIST == 0 {
                    names = self::names(&client, &args).await?;
                    for name in &names {
                        if !samples.borrow().contains_key(name) {
                            samples.borrow_mut().insert(name.clone(), None);
                            collectors.push(collect(&client, name.clone(), &samples));
                        }
                    }
                }
                let waiting = samples.borrow().values().any(Option::is_none) && start.elapsed() < FIRST;
                if !waiting {
                    draw(&args, &names, &samples.borrow())?;
                }
            }
        }
    }
}

/// The containers to show: those named, or the running ones, or all.
async fn names(client: &Client, args: &StatsArgs) -> Result<Vec<String>, CliError> {
    if !args.args.is_empty() {
        return Ok(args.args.clone());
    }
    let options = ContainerListOptions {
        all: args.all,
        ..ContainerListOptions::default()
    };
    Ok(client
        .container_list(&options)
        .await?
        .into_iter()
        .map(|container| container.id)
        .collect())
}

/// Reads a container's samples until they end.
async fn collect(
    client: &Client,
    name: String,
    samples: &Samples,
) -> (String, Result<(), CliError>) {
    let result = async {
        let mut stream = client.container_stats(&name, true).await?;
        while let Some(stats) = stream.next_json::<Stats>().await? {
            if let Some(slot) = samples.borrow_mut().get_mut(&name) {
                *slot = Some(Usage::of(&stats, &name));
            }
        }
        Ok(())
    }
    .await;
    (name, result)
}

async fn once(client: &Client, args: &StatsArgs, names: &[String]) -> Result<u8, CliError> {
    let requests = names.iter().map(|name| async move {
        let mut stream = client.container_stats(name, false).await?;
        let stats: Option<Stats> = stream.next_json().await?;
        Ok::<_, CliError>(stats.map(|stats| Usage::of(&stats, name)))
    });
    let results = futures_util::future::join_all(requests).await;
    let mut rows = Vec::new();
    for result in results {
        match result {
            Ok(Some(usage)) => rows.push(usage.row(args.no_trunc)),
            Ok(None) => {}
            Err(error) if !args.args.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    list::print(&usage::LISTING, &rows, args.format.as_deref(), false)?;
    Ok(0)
}

fn draw(
    args: &StatsArgs,
    names: &[String],
    samples: &BTreeMap<String, Option<Usage>>,
) -> Result<(), CliError> {
    let rows: Vec<Value> = names
        .iter()
        .filter_map(|name| samples.get(name).map(|sample| (name, sample)))
        .map(|(name, sample)| match sample {
            Some(usage) => usage.row(args.no_trunc),
            None => Usage::unknown(&human::short_id(name)).row(args.no_trunc),
        })
        .collect();
    let text = list::render(&usage::LISTING, &rows, args.format.as_deref(), false)?;
    // Home, then each line with what was behind it erased, then everything below: no flicker.
    let mut screen = String::from("\u{1b}[H");
    for line in text.lines() {
        screen.push_str(line);
        screen.push_str("\u{1b}[K\n");
    }
    screen.push_str("\u{1b}[J");
    output::print(&screen)
}
