//! `hull tag`: gives an image another name.

use clap::Args;

use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};
use crate::values::reference;

/// Arguments of `hull tag`.
#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The image and its new name
    args: Vec<String>,
}

command!(
    TagArgs,
    run,
    names = ["tag", "image tag"],
    usage = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    arity = Arity::Exactly(2),
);

async fn run(context: &Context, args: TagArgs) -> Result<u8, CliError> {
    let [source, target] = args.args.as_slice() else {
        return Err(CliError::new("image and new name are needed"));
    };
    reference::check(target).map_err(|error| {
        CliError::new(format!(
            "Error parsing reference: {target:?} is not a valid repository/tag: {error}"
        ))
    })?;
    if target.contains('@') {
        return Err(CliError::new(
            "refusing to create a tag with a digest reference",
        ));
    }
    let (repository, tag) = reference::split(target);
    context
        .client()
        .await?
        .image_tag(source, &repository, &tag)
        .await?;
    Ok(0)
}
