//! `hull search`: repositories of a registry.

use clap::Args;
use hull_api_types::image::SearchResult;

use crate::context::Context;
use crate::error::CliError;
use crate::format::list::{self, Listing};
use crate::registry;
use crate::spec::{Arity, command};
use crate::template::{Map, Value};
use crate::values::filter;

/// Longest description in the table.
const SHORT: usize = 45;

const LISTING: Listing<'static> = Listing {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    quiet: "{{.Name}}",
    headers: &[
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
        ("IsAutomated", "AUTOMATED"),
    ],
};

/// Arguments of `hull search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Pretty-print search using a Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Max number of search results
    #[arg(long, value_name = "int", value_parser = crate::values::scalar::go_int)]
    limit: Option<i64>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// What to look for
    args: Vec<String>,
}

command!(
    SearchArgs,
    run,
    names = ["search"],
    usage = "[OPTIONS] TERM",
    about = "Search a registry for images",
    arity = Arity::Exactly(1),
);

async fn run(context: &Context, args: SearchArgs) -> Result<u8, CliError> {
    let term = args.args.first().map_or("", String::as_str);
    let filters = filter::collect(&args.filter);
    let client = context.client().await?;
    let auth = registry::auth(&registry::of(&client, term).await?)?;
    let found = client
        .image_search(term, args.limit, &filters, &auth)
        .await?;
    let rows: Vec<_> = found.iter().map(|hit| row(hit, args.no_trunc)).collect();
    list::print(&LISTING, &rows, args.format.as_deref(), false)?;
    Ok(0)
}

fn row(hit: &SearchResult, no_trunc: bool) -> Value {
    let mut map = Map::of_type("*registry.searchContext");
    let mark = |yes: bool| if yes { "[OK]" } else { "" };
    map.push("Name", hit.name.clone());
    map.push("Description", description(&hit.description, no_trunc));
    map.push("StarCount", hit.star_count.to_string());
    map.push("IsOfficial", mark(hit.is_official));
    map.push("IsAutomated", mark(hit.is_automated));
    Value::Map(map)
}

fn description(text: &str, no_trunc: bool) -> String {
    // A registry does not get to write control characters on a terminal.
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if no_trunc || clean.chars().count() <= SHORT {
        return clean;
    }
    let mut short: String = clean.chars().take(SHORT - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn description_is_cut_and_cleaned() {
        assert_eq!(description("a\nb\u{1b}c", false), "a b c");
        let long = "x".repeat(60);
        assert_eq!(description(&long, false).chars().count(), SHORT);
        assert_eq!(description(&long, true), long);
    }
}
