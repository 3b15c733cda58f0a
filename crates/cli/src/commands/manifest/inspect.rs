//! `hull manifest inspect`: a manifest or list, of the user's or of a registry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hull_api_types::image::Descriptor;
use hull_client::Client;
use serde::Deserialize;

use super::store::{Entry, Lists, document, indented, pretty};
use super::{Name, repository};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::registry;
use crate::spec::{Arity, command};

/// Indentation of single manifests, and that of lists.
const TAB: &[u8] = b"\t";
const LIST: &[u8] = b"   ";

/// Arguments of `hull manifest inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    /// Perhaps a list, and a manifest
    args: Vec<String>,
}

command!(
    InspectArgs,
    run,
    names = ["manifest inspect"],
    usage = "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    about = "Display an image manifest, or manifest list",
    arity = Arity::Between(1, 2),
);

async fn run(context: &Context, args: InspectArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    match args.args.as_slice() {
        [list, manifest] => {
            let list_name = super::name(&client, list).await?;
            let name = super::name(&client, manifest).await?;
            let entries = Lists::open().get(&list_name.full)?;
            let entry = entries.into_iter().find(|entry| entry.name == name.full);
            let entry = entry.ok_or_else(|| {
                CliError::new(format!(
                    "manifest for image {manifest} does not exist in {list}"
                ))
            })?;
            one(&entry, args.verbose)?;
        }
        [only] => {
            let name = super::name(&client, only).await?;
            let entries = Lists::open().get(&name.full)?;
            if entries.is_empty() {
                of_registry(&client, &name, &args).await?;
            } else if args.verbose {
                output::line(&pretty(&entries, TAB))?;
            } else {
                output::line(&document(&entries).0)?;
            }
        }
        _ => return Err(CliError::new("name a manifest")),
    }
    Ok(0)
}

fn one(entry: &Entry, verbose: bool) -> Result<(), CliError> {
    output::line(&if verbose {
        pretty(entry, TAB)
    } else {
        indented(&entry.bytes(), TAB)
    })
}

async fn of_registry(client: &Client, name: &Name, args: &InspectArgs) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let auth = registry::auth(&name.registry)?;
    let found = client
        .registry_manifest(&name.full, args.insecure, &auth)
        .await?;
    let bytes = STANDARD.decode(&found.raw).unwrap_or_default();
    let Ok(index) = serde_json::from_slice::<Index>(&bytes) else {
        return one(&Entry::new(&name.full, &found), args.verbose);
    };
    if !args.verbose {
        return output::line(&indented(&bytes, LIST));
    }
    let mut entries = Vec::new();
    for descriptor in index.manifests {
        let full = format!("{}@{}", repository(&name.full), descriptor.digest);
        let mut found = client
            .registry_manifest(&full, args.insecure, &auth)
            .await?;
        // The list's word on the platform counts.
        if descriptor.platform.is_some() {
            found.descriptor.platform = descriptor.platform;
        }
        entries.push(Entry::new(&full, &found));
    }
    output::line(&pretty(&entries, TAB))
}
