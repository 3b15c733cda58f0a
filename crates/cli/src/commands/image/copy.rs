//! `hull image copy`: an image to the engine of another host, of which only the layers that it
//! lacks are sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use hull_api_types::image::ImageInspect;
use hull_client::{Client, ClientError, RequestBody, upload_channel};

use crate::context::{Context, greet};
use crate::error::CliError;
use crate::format::human;
use crate::output;
use crate::progress::{self, Target};
use crate::remote::Place;
use crate::spec::{Arity, command};

/// Arguments of `hull image copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// Suppress verbose output
    #[arg(short, long)]
    quiet: bool,
    /// Images, then the engine
    args: Vec<String>,
}

command!(
    CopyArgs,
    run,
    names = ["image copy"],
    usage = "[OPTIONS] IMAGE [IMAGE...] ssh://[USER@]HOST[:PORT]|unix:///PATH",
    about = "Copy images to another engine, sending only the layers that it lacks",
    arity = Arity::AtLeast(2),
);

async fn run(context: &Context, args: CopyArgs) -> Result<u8, CliError> {
    let (Some(to), images) = (args.args.last(), args.args.len() - 1) else {
        return Err(CliError::new("name an image and an engine"));
    };
    let names: Vec<String> = args.args.iter().take(images).cloned().collect();
    let place = Place::read(to)?;
    let source = context.client().await?;
    let mut layers = BTreeSet::new();
    for name in &names {
        let bytes = source.image_inspect_raw(name).await?;
        let image: ImageInspect = serde_json::from_slice(&bytes)
            .map_err(|error| CliError::new(format!("unexpected answer about {name}: {error}")))?;
        layers.extend(image.root_fs.layers);
    }
    let other = place.client();
    if let Place::Program(words) = &place {
        greet(&other, words).await?;
    }
    let all = layers.len();
    let (there, known) = present(&other, layers).await?;
    let stream = source.image_save_without(&names, &there).await?;
    let (sender, body) = upload_channel();
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let feed = async move {
        let mut stream = stream;
        loop {
            let piece = match stream.next().await {
                Ok(Some(piece)) => Ok(piece),
                Ok(None) => return Ok(()),
                Err(error) => Err(error),
            };
            let length = piece.as_ref().map_or(0, |piece| piece.len());
            counter.fetch_add(length as u64, Ordering::Relaxed);
            match piece {
                Ok(piece) => {
                    if !sender.send(Ok(piece)).await {
                        // The other side has had enough; it says why in its reply.
                        return Ok(());
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    sender.send(Err(std::io::Error::other(text))).await;
                    return Err(CliError::from(error));
                }
            }
        }
    };
    let work = async {
        let stream = load(&other, body, known).await?;
        let target = if args.quiet {
            Target::Nowhere
        } else {
            Target::Stdout
        };
        progress::messages(stream, target, true).await
    };
    let (fed, loaded) = tokio::join!(feed, work);
    fed?;
    loaded?;
    let bytes = i64::try_from(sent.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
    if !args.quiet {
        output::line(&format!(
            "Copied {} to {to}: {} of {all} layers, {} sent",
            names.join(", "),
            all - there.len(),
            human::size(bytes)
        ))?;
    }
    Ok(0)
}

/// Those of the layers that the other engine has, and whether it is one that can be asked.
async fn present(
    other: &Client,
    layers: BTreeSet<String>,
) -> Result<(Vec<String>, bool), CliError> {
    let asked: Vec<String> = layers.iter().cloned().collect();
    match other.layers_missing(asked).await {
        Ok(missing) => {
            let missing: BTreeSet<String> = missing.into_iter().collect();
            Ok((layers.difference(&missing).cloned().collect(), true))
        }
        // Another engine with Docker's API: it gets all.
        Err(ClientError::Api { status: 404, .. }) => Ok((Vec::new(), false)),
        Err(error) => Err(error.into()),
    }
}

async fn load(
    other: &Client,
    body: RequestBody,
    known: bool,
) -> Result<hull_client::ByteStream, CliError> {
    let stream = if known {
        other.image_load_partial(body).await
    } else {
        other.image_load(body, false).await
    };
    Ok(stream?)
}
