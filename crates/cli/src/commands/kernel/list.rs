//! `hull kernel ls`.

use clap::Args;
use hull_api_types::kernel::Kernel;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::context::Context;
use crate::error::CliError;
use crate::format::human;
use crate::format::list::{self, Listing};
use crate::spec::{Arity, command};
use crate::template::{Map, Value};

/// The list of kernels.
const LISTING: Listing<'static> = Listing {
    table: "{{.Name}}\t{{.Version}}\t{{.Default}}\t{{.Digest}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.Name}}",
    headers: &[
        ("Name", "KERNEL"),
        ("Version", "VERSION"),
        ("Architecture", "ARCHITECTURE"),
        ("Default", "DEFAULT"),
        ("Digest", "DIGEST"),
        ("ConfigDigest", "CONFIG DIGEST"),
        ("Source", "SOURCE"),
        ("CreatedAt", "INSTALLED AT"),
        ("CreatedSince", "INSTALLED"),
        ("Size", "SIZE"),
        ("Path", "PATH"),
    ],
};

/// Arguments of `hull kernel ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display names
    #[arg(short, long)]
    quiet: bool,
}

command!(
    ListArgs,
    run,
    names = ["kernel ls", "kernel list"],
    usage = "[OPTIONS]",
    about = "List the kernels that virtual machines can boot",
    arity = Arity::None,
);

async fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let kernels = context.client().await?.kernel_list().await?;
    let rows: Vec<_> = kernels.iter().map(|one| row(one, args.no_trunc)).collect();
    list::print(&LISTING, &rows, args.format.as_deref(), args.quiet)?;
    Ok(0)
}

fn row(kernel: &Kernel, whole: bool) -> Value {
    let digest = |text: &str| match whole {
        true => text.to_owned(),
        false => human::short_id(text.trim_start_matches("sha256:")),
    };
    let installed = OffsetDateTime::parse(&kernel.created_at, &Rfc3339)
        .map_or(0, OffsetDateTime::unix_timestamp);
    let mut map = Map::of_type("*formatter.kernelContext");
    map.push("Architecture", kernel.architecture.clone());
    map.push("ConfigDigest", digest(&kernel.config_digest));
    map.push("CreatedAt", human::timestamp(installed));
    map.push("CreatedSince", human::ago(installed, human::now()));
    map.push("Default", if kernel.default { "*" } else { "" });
    map.push("Digest", digest(&kernel.digest));
    map.push("Name", kernel.name.clone());
    map.push("Path", kernel.path.clone());
    let size = i64::try_from(kernel.size).unwrap_or(i64::MAX);
    map.push("Size", human::size(size));
    map.push("Source", kernel.source.clone());
    map.push("Version", kernel.version.clone());
    Value::Map(map)
}
