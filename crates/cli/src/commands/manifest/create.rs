//! `hull manifest create`: begins a list of manifests that a registry has.

use clap::Args;

use super::store::{Entry, Lists};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::registry;
use crate::spec::{Arity, command};

/// Arguments of `hull manifest create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Amend an existing manifest list
    #[arg(short, long)]
    amend: bool,
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// The list, then its manifests
    args: Vec<String>,
}

command!(
    CreateArgs,
    run,
    names = ["manifest create"],
    usage = "MANIFEST_LIST MANIFEST [MANIFEST...]",
    about = "Create a local manifest list for annotating and pushing to a registry",
    arity = Arity::AtLeast(2),
);

async fn run(context: &Context, args: CreateArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let (list, manifests) = match args.args.split_first() {
        Some((list, manifests)) => (super::name(&client, list).await?, manifests),
        None => return Err(CliError::new("name a list and its manifests")),
    };
    if list.full.contains('@') {
        return Err(CliError::new("a manifest list is named by a tag"));
    }
    let lists = Lists::open();
    if !args.amend && !lists.get(&list.full)?.is_empty() {
        return Err(CliError::new(
            "refusing to amend an existing manifest list with no --amend flag",
        ));
    }
    // All are there before the first is kept.
    let mut entries = Vec::new();
    for text in manifests {
        let name = super::name(&client, text).await?;
        let auth = registry::auth(&name.registry)?;
        let found = client
            .registry_manifest(&name.full, args.insecure, &auth)
            .await?;
        let kind = &found.descriptor.media_type;
        if kind.contains("list") || kind.contains("index") {
            return Err(CliError::new(format!("{text} is a manifest list")));
        }
        entries.push(Entry::new(&name.full, &found));
    }
    for entry in &entries {
        lists.put(&list.full, entry)?;
    }
    output::line(&format!("Created manifest list {}", list.full))?;
    Ok(0)
}
