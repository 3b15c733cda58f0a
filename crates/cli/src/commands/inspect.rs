//! `hull inspect`: everything about things of any kind.

use bytes::Bytes;
use clap::Args;
use hull_client::{Client, ClientError};

use crate::context::Context;
use crate::error::CliError;
use crate::format::inspect::render;
use crate::output;
use crate::spec::{Arity, command};

/// Arguments of `hull inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(short, long)]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type", value_name = "string")]
    kind: Option<String>,
    /// Names or ids
    args: Vec<String>,
}

command!(
    InspectArgs,
    run,
    names = ["inspect"],
    usage = "[OPTIONS] NAME|ID [NAME|ID...]",
    about = "Return low-level information on Docker objects",
    arity = Arity::AtLeast(1),
);

/// A kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// The order in which a name is looked up.
const KINDS: [Kind; 4] = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];

async fn run(context: &Context, args: InspectArgs) -> Result<u8, CliError> {
    let kind = match args.kind.as_deref() {
        None => None,
        Some("container") => Some(Kind::Container),
        Some("image") => Some(Kind::Image),
        Some("network") => Some(Kind::Network),
        Some("volume") => Some(Kind::Volume),
        Some("") => {
            return Err(CliError::new(
                "type is empty: must be one of \"container\", \"image\", \"network\", \"volume\"",
            ));
        }
        Some(other) => {
            return Err(CliError::new(format!(
                "unknown type: {other:?}: must be one of \"container\", \"image\", \"network\", \"volume\""
            )));
        }
    };
    let client = context.client().await?;
    inspect(&client, &args.args, args.format.as_deref(), kind, args.size).await
}

/// Prints each of `names`, of one kind or of the first kind that has it; those that are missing are reported at the end.
/// With `size` a container's sizes are told, and what stands behind a network.
pub(crate) async fn inspect(
    client: &Client,
    names: &[String],
    format: Option<&str>,
    kind: Option<Kind>,
    size: bool,
) -> Result<u8, CliError> {
    let mut found: Vec<Bytes> = Vec::new();
    let mut missing: Vec<String> = Vec::new();
    for name in names {
        match look_up(client, name, kind, size).await {
            Ok(Some(reply)) => found.push(reply),
            Ok(None) => missing.push(format!("Error: No such object: {name}")),
            Err(error) if error.status().is_some() => {
                missing.push(CliError::from(error).text().to_owned())
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What was found is printed even where something is missing; with a template an empty list prints nothing but a line.
    let text = render(&found, format)?;
    output::print(
        if found.is_empty() && format.is_some_and(|format| !format.is_empty() && format != "json") {
            "\n"
        } else {
            &text
        },
    )?;
    if missing.is_empty() {
        Ok(0)
    } else {
        Err(CliError::new(missing.join("\n")))
    }
}

async fn look_up(
    client: &Client,
    name: &str,
    kind: Option<Kind>,
    size: bool,
) -> Result<Option<Bytes>, ClientError> {
    if let Some(kind) = kind {
        return fetch(client, name, kind, size).await.map(Some);
    }
    for kind in KINDS {
        match fetch(client, name, kind, size).await {
            Ok(reply) => return Ok(Some(reply)),
            // A name that one kind cannot have may well be another kind's.
            Err(error) if matches!(error.status(), Some(404 | 400)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

async fn fetch(client: &Client, name: &str, kind: Kind, size: bool) -> Result<Bytes, ClientError> {
    match kind {
        Kind::Container => client.container_inspect_raw(name, size).await,
        Kind::Image => client.image_inspect_raw(name).await,
        Kind::Network => client.network_inspect_raw(name, size).await,
        Kind::Volume => client.volume_inspect_raw(name).await,
    }
}
