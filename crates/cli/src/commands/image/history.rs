//! `hull history`: how an image came to be.

use clap::Args;
use hull_api_types::image::HistoryItem;

use crate::context::Context;
use crate::error::CliError;
use crate::format::human;
use crate::format::list::{self, Listing};
use crate::spec::{Arity, command};
use crate::template::{Map, Value};

/// Width of the instruction that made a layer.
const CREATED_BY_WIDTH: usize = 45;

const LISTING: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

/// The table with plain numbers.
const PLAIN: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    ..LISTING
};

/// Arguments of `hull history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Print sizes and dates in human readable format (default true)
    #[arg(short = 'H', long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_parser = crate::values::scalar::go_bool)]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// The image
    args: Vec<String>,
}

command!(
    HistoryArgs,
    run,
    names = ["history", "image history"],
    usage = "[OPTIONS] IMAGE",
    about = "Show the history of an image",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: HistoryArgs) -> Result<u8, CliError> {
    let name = args.args.first().map_or("", String::as_str);
    let items = context.client().await?.image_history(name).await?;
    let now = human::now();
    let rows: Vec<Value> = items
        .iter()
        .map(|item| row(item, args.human, args.no_trunc, now))
        .collect();
    let listing = if args.human { LISTING } else { PLAIN };
    list::print(&listing, &rows, args.format.as_deref(), args.quiet)?;
    Ok(0)
}

fn row(item: &HistoryItem, human: bool, no_trunc: bool, now: i64) -> Value {
    let created_by = item.created_by.replace('\t', " ");
    let mut map = Map::of_type("*formatter.historyContext");
    map.push("Comment", item.comment.clone());
    map.push("CreatedAt", human::rfc3339(item.created));
    map.push(
        "CreatedBy",
        if no_trunc {
            created_by
        } else {
            human::ellipsis(&created_by, CREATED_BY_WIDTH)
        },
    );
    map.push(
        "CreatedSince",
        match (human, item.created) {
            (true, created) if created <= 0 => "N/A".to_owned(),
            (true, created) => human::ago(created, now),
            (false, created) => human::rfc3339(created),
        },
    );
    map.push(
        "ID",
        if no_trunc {
            item.id.clone()
        } else {
            human::short_id(&item.id)
        },
    );
    map.push(
        "Size",
        if human {
            human::size(item.size)
        } else {
            item.size.to_string()
        },
    );
    Value::Map(map)
}
