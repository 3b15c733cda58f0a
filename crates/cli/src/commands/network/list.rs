//! `hull network ls`.

use clap::Args;
use hull_api_types::network::NetworkResource;

use crate::context::Context;
use crate::error::CliError;
use crate::format::list::{self, Listing};
use crate::format::{container, human};
use crate::spec::{Arity, command};
use crate::template::{Map, Value};
use crate::values::filter;

const LISTING: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

/// Arguments of `hull network ls`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
}

command!(
    ListArgs,
    run,
    names = ["network ls", "network list"],
    usage = "[OPTIONS]",
    about = "List networks",
    arity = Arity::None,
);

async fn run(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    let mut networks = context.client().await?.network_list(&filters).await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<_> = networks
        .iter()
        .map(|network| row(network, args.no_trunc))
        .collect();
    list::print(&LISTING, &rows, args.format.as_deref(), args.quiet)?;
    Ok(0)
}

fn row(network: &NetworkResource, no_trunc: bool) -> Value {
    let mut map = Map::of_type("*network.networkContext");
    let created = human::go_time(&network.created);
    map.push("CreatedAt", created);
    map.push("Driver", network.driver.clone());
    map.push(
        "ID",
        if no_trunc {
            network.id.clone()
        } else {
            human::short_id(&network.id)
        },
    );
    map.push("IPv4", network.enable_ipv4.to_string());
    map.push("IPv6", network.enable_ipv6.to_string());
    map.push("Internal", network.internal.to_string());
    map.push("Labels", container::labels(network.labels.iter()));
    map.push("Name", network.name.clone());
    map.push("Scope", network.scope.clone());
    map.labels = network
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Map(map)
}
