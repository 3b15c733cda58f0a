//! `hull manifest annotate`: says for which platform a manifest of a list is.

use clap::Args;
use hull_api_types::image::Platform;

use super::store::Lists;
use crate::context::Context;
use crate::error::CliError;
use crate::spec::{Arity, command};

/// Operating systems and architectures of Go.
const SYSTEMS: [&str; 12] = [
    "linux",
    "windows",
    "darwin",
    "freebsd",
    "netbsd",
    "openbsd",
    "dragonfly",
    "solaris",
    "aix",
    "android",
    "wasip1",
    "js",
];
const ARCHITECTURES: [&str; 16] = [
    "amd64", "386", "arm", "arm64", "ppc64", "ppc64le", "s390x", "riscv64", "mips", "mipsle",
    "mips64", "mips64le", "loong64", "sparc64", "wasm", "armbe",
];

/// Arguments of `hull manifest annotate`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Set architecture
    #[arg(long, value_name = "string")]
    arch: Option<String>,
    /// Set operating system
    #[arg(long, value_name = "string")]
    os: Option<String>,
    /// Set operating system feature
    #[arg(long, value_name = "strings", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set operating system version
    #[arg(long, value_name = "string")]
    os_version: Option<String>,
    /// Set architecture variant
    #[arg(long, value_name = "string")]
    variant: Option<String>,
    /// The list and the manifest
    args: Vec<String>,
}

command!(
    AnnotateArgs,
    run,
    names = ["manifest annotate"],
    usage = "[OPTIONS] MANIFEST_LIST MANIFEST",
    about = "Add additional information to a local image manifest",
    arity = Arity::Exactly(2),
);

async fn run(context: &Context, args: AnnotateArgs) -> Result<u8, CliError> {
    let [list, manifest] = args.args.as_slice() else {
        return Err(CliError::new("name a list and a manifest of it"));
    };
    let client = context.client().await?;
    let list_name = super::name(&client, list).await?;
    let name = super::name(&client, manifest).await?;
    let lists = Lists::open();
    let entries = lists.get(&list_name.full)?;
    let entry = entries.into_iter().find(|entry| entry.name == name.full);
    let Some(mut entry) = entry else {
        return Err(CliError::new(format!(
            "manifest for image {manifest} does not exist in {list}"
        )));
    };
    let platform = entry.descriptor.platform.get_or_insert_default();
    change(platform, &args);
    check(platform)?;
    lists.put(&list_name.full, &entry)?;
    Ok(0)
}

fn change(platform: &mut Platform, args: &AnnotateArgs) {
    if let Some(arch) = &args.arch {
        platform.architecture.clone_from(arch);
    }
    if let Some(os) = &args.os {
        platform.os.clone_from(os);
    }
    if let Some(version) = &args.os_version {
        platform.os_version.clone_from(version);
    }
    if let Some(variant) = &args.variant {
        platform.variant.clone_from(variant);
    }
    for feature in &args.os_features {
        if !platform.os_features.contains(feature) {
            platform.os_features.push(feature.clone());
        }
    }
}

fn check(platform: &Platform) -> Result<(), CliError> {
    let (os, architecture) = (&*platform.os, &*platform.architecture);
    if SYSTEMS.contains(&os) && ARCHITECTURES.contains(&architecture) {
        return Ok(());
    }
    Err(CliError::new(format!(
        "manifest entry for image has unsupported os/arch combination: {os}/{architecture}"
    )))
}
