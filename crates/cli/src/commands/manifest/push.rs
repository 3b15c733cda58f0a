//! `hull manifest push`: a list to a registry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hull_api_types::image::ListPush;

use super::store::{Lists, document};
use super::{full, repository};
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::registry;
use crate::spec::{Arity, command};

/// Arguments of `hull manifest push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Allow push to an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Remove the local manifest list after push
    #[arg(short, long)]
    purge: bool,
    /// The list
    args: Vec<String>,
}

command!(
    PushArgs,
    run,
    names = ["manifest push"],
    usage = "[OPTIONS] MANIFEST_LIST",
    about = "Push a manifest list to a repository",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: PushArgs) -> Result<u8, CliError> {
    let client = context.client().await?;
    let text = args.args.first().map_or("", String::as_str);
    let list = super::name(&client, text).await?;
    let lists = Lists::open();
    let entries = lists.get(&list.full)?;
    if entries.is_empty() {
        return Err(CliError::new(format!("{} not found", list.full)));
    }
    let mut names = Vec::new();
    for entry in &entries {
        let platform = entry.descriptor.platform.as_ref();
        if platform.is_none_or(|own| own.os.is_empty() || own.architecture.is_empty()) {
            return Err(CliError::new(format!(
                "manifest {} must have an OS and Architecture to be pushed to a registry",
                entry.name
            )));
        }
        names.push(format!(
            "{}@{}",
            repository(&entry.name),
            entry.descriptor.digest
        ));
    }
    let (raw, media_type) = document(&entries);
    let push = ListPush {
        target: full(&list.full, &list.registry),
        media_type: media_type.to_owned(),
        raw: STANDARD.encode(raw),
        entries: names.clone(),
        insecure: args.insecure,
    };
    let auth = registry::auth(&list.registry)?;
    let pushed = client.registry_push_list(&push, &auth).await?;
    let target = repository(&list.full);
    for (entry, name) in entries.iter().zip(&names) {
        if repository(name) != target {
            let digest = &entry.descriptor.digest;
            output::line(&format!(
                "Pushed ref {target}@{digest} with digest: {digest}"
            ))?;
        }
    }
    output::line(&pushed.digest)?;
    if args.purge {
        lists.remove(&list.full)?;
    }
    Ok(0)
}
