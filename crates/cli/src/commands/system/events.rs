//! `hull events`: what happens, as it happens.

use std::fmt::Write as _;

use clap::Args;
use hull_api_types::system::Event;
use time::OffsetDateTime;

use crate::context::Context;
use crate::error::CliError;
use crate::format::inspect;
use crate::output;
use crate::spec::{Arity, command};
use crate::template::{MissingKey, Mode, Template};
use crate::values::{filter, timestamp};

/// Arguments of `hull events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "filter", value_parser = filter::parse)]
    filter: Vec<filter::Filter>,
    /// Format output using a custom template: 'json' prints JSON, 'TEMPLATE' prints output using the given Go template
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "string")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "string")]
    until: Option<String>,
}

command!(
    EventsArgs,
    run,
    names = ["events", "system events"],
    usage = "[OPTIONS]",
    about = "Get real time events from the server",
    arity = Arity::None,
);

async fn run(context: &Context, args: EventsArgs) -> Result<u8, CliError> {
    let filters = filter::collect(&args.filter);
    let template = match args.format.as_deref().filter(|format| !format.is_empty()) {
        Some("json") => Some(Template::parse("{{json .}}", MissingKey::NoValue)?),
        Some(source) => Some(Template::parse(source, MissingKey::NoValue)?),
        None => None,
    };
    let since = timestamp::flag("since", args.since.as_deref())?;
    let until = timestamp::flag("until", args.until.as_deref())?;
    let mut stream = context
        .client()
        .await?
        .events(since.as_deref(), until.as_deref(), &filters)
        .await?;
    while let Some(line) = stream.next_line().await? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match &template {
            Some(template) => output::line(&template.run(&inspect::value(&line)?, Mode::Row)?)?,
            None => {
                let event: Event = serde_json::from_slice(&line)
                    .map_err(|error| CliError::new(format!("unreadable event: {error}")))?;
                output::line(&text(&event))?;
            }
        }
    }
    Ok(0)
}

/// `TIME TYPE ACTION ID (name=value, …)`.
fn text(event: &Event) -> String {
    let mut out = String::new();
    let nanoseconds = if event.time_nano != 0 {
        i128::from(event.time_nano)
    } else {
        i128::from(event.time) * 1_000_000_000
    };
    if nanoseconds != 0
        && let Ok(t) = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
    {
        let _ = write!(
            out,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z ",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.nanosecond()
        );
    }
    let _ = write!(out, "{} {} {}", event.kind, event.action, event.actor.id);
    if !event.actor.attributes.is_empty() {
        let attributes: Vec<String> = event
            .actor
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let _ = write!(out, " ({})", attributes.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_dockers_line() {
        let event: Event = serde_json::from_str(
            r#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":{"name":"web","image":"nginx"}},"time":1700000000,"timeNano":1700000000000000001}"#,
        )
        .unwrap();
        assert_eq!(
            text(&event),
            "2023-11-14T22:13:20.000000001Z container start abc (image=nginx, name=web)"
        );
    }
}
