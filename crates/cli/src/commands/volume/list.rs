//! `hull volume ls`.

use clap::Args;
use hull_api_types::volume::Volume;

use crate::context::Context;
use crate::error::CliError;
use crate::format::list::{self, Listing};
use crate::format::{container, human};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::{Map, Value};
use crate::values::filter;

/// The list of volumes.
pub(crate) const LISTING: Listing<'static> = Listing {
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Availability", "AVAILABILITY"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
};

/// Arguments of `hull volume ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Only display volume names
    #[arg(short, long)]
    quiet: bool,
}

command!(
    ListArgs,
    run,
    names = ["volume ls", "volume list"],
    usage = "[OPTIONS]",
    about = "List volumes",
    arity = Arity::None,
);

async fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    let mut reply = context.client().await?.volume_list(&filters).await?;
    for warning in reply.warnings.iter().flatten() {
        output::error_line(&format!("WARNING: {warning}"));
    }
    reply.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = reply.volumes.iter().map(row).collect();
    list::print(&LISTING, &rows, args.format.as_deref(), args.quiet)?;
    Ok(0)
}

/// The placeholders of a volume.
pub(crate) fn row(volume: &Volume) -> Value {
    let mut map = Map::of_type("*formatter.volumeContext");
    map.push("Availability", "N/A");
    map.push("Driver", volume.driver.clone());
    map.push("Group", "N/A");
    map.push("Labels", container::labels(volume.labels.iter().flatten()));
    map.push(
        "Links",
        volume
            .usage_data
            .as_ref()
            .map_or("N/A".to_owned(), |usage| usage.ref_count.to_string()),
    );
    map.push("Mountpoint", volume.mountpoint.clone());
    map.push("Name", volume.name.clone());
    map.push("Scope", volume.scope.clone());
    map.push(
        "Size",
        volume
            .usage_data
            .as_ref()
            .filter(|usage| usage.size >= 0)
            .map_or("N/A".to_owned(), |usage| human::size(usage.size)),
    );
    map.push("Status", "N/A");
    map.labels = volume
        .labels
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Map(map)
}
