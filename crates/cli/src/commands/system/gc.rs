//! `hull system gc`: removes what nothing uses, by age, last use and a budget of space.

use clap::Args;
use hull_api_types::gc::GcReport;
use hull_client::GcOptions;

use crate::context::Context;
use crate::error::CliError;
use crate::format::human;
use crate::format::list::{self, Listing};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::Value;

/// For `--format`: the whole report is one row.
const LISTING: Listing<'static> = Listing {
    table: "{{len .Images}}\t{{.LayersDeleted}}\t{{.SpaceReclaimed}}\t{{.SpaceKept}}",
    quiet: "{{.SpaceReclaimed}}",
    headers: &[
        ("Images", "IMAGES"),
        ("LayersDeleted", "LAYERS"),
        ("SpaceReclaimed", "RECLAIMED"),
        ("SpaceKept", "KEPT"),
    ],
};

/// Arguments of `hull system gc`.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Format output using a custom template: 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Remove the unused images used least recently until all take no more than this (50G)
    #[arg(long, value_name = "bytes", alias = "budget", value_parser = crate::values::scalar::size)]
    keep_size: Option<i64>,
    /// Remove unused images that came so long ago (30d, 12h)
    #[arg(long, value_name = "duration")]
    older_than: Option<String>,
    /// Remove images that no container has used for so long (30d, 12h)
    #[arg(long, value_name = "duration")]
    unused_for: Option<String>,
}

command!(
    GcArgs,
    run,
    names = ["system gc"],
    usage = "[OPTIONS]",
    about = "Remove images and layers that nothing uses; without limits by the daemon's policy",
    arity = Arity::None,
);

async fn run(context: &Context, args: GcArgs) -> Result<u8, CliError> {
    let options = GcOptions {
        unused_for: args.unused_for,
        older_than: args.older_than,
        keep_size: args.keep_size,
        dry_run: args.dry_run,
    };
    let report = context.client().await?.gc(&options).await?;
    match args.format.as_deref() {
        Some(format) => {
            let row = serde_json::to_string(&report)
                .and_then(|text| serde_json::from_str::<Value>(&text))
                .map_err(|error| CliError::new(format!("cannot read the reply: {error}")))?;
            list::print(&LISTING, &[row], Some(format), false)?;
        }
        None => output::print(&text(&report))?,
    }
    Ok(0)
}

fn text(report: &GcReport) -> String {
    let mut out = String::new();
    let (images, layers, space) = if report.dry_run {
        (
            "Would delete images:",
            "Would delete layers",
            "Reclaimable space",
        )
    } else {
        ("Deleted images:", "Deleted layers", "Total reclaimed space")
    };
    if !report.images.is_empty() {
        out.push_str(images);
        out.push('\n');
    }
    for image in &report.images {
        let names = if image.names.is_empty() {
            "<none>".to_owned()
        } else {
            image.names.join(", ")
        };
        out.push_str(&format!(
            "{}  {names}  ({}, last used {})\n",
            human::short_id(&image.id),
            image.reason,
            image.last_used.get(..19).unwrap_or(&image.last_used),
        ));
    }
    if report.layers_deleted > 0 {
        out.push_str(&format!("{layers}: {}\n", report.layers_deleted));
    }
    out.push_str(&format!(
        "{space}: {}\n",
        human::size4(report.space_reclaimed as f64)
    ));
    out
}

#[cfg(test)]
mod tests {
    use hull_api_types::gc::GcImage;

    use super::*;

    #[test]
    fn text_names_what_went_and_why() {
        let mut report = GcReport {
            images: vec![GcImage {
                id: "sha256:0123456789abcdef".into(),
                names: vec!["a:1".into(), "b:2".into()],
                reason: "idle".into(),
                last_used: "2026-01-02T03:04:05.123456789Z".into(),
                size: 5,
            }],
            layers_deleted: 2,
            space_reclaimed: 1500,
            ..GcReport::default()
        };
        assert_eq!(
            text(&report),
            "Deleted images:\n0123456789ab  a:1, b:2  (idle, last used 2026-01-02T03:04:05)\n\
             Deleted layers: 2\nTotal reclaimed space: 1.5kB\n"
        );
        report.images.clear();
        report.layers_deleted = 0;
        report.dry_run = true;
        assert_eq!(text(&report), "Reclaimable space: 1.5kB\n");
    }
}
