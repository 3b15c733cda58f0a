//! `hull system df`: what takes how much disk.

use clap::Args;
use hull_api_types::container::ContainerSummary;
use hull_api_types::system::DiskUsage;

use crate::commands::volume;
use crate::context::Context;
use crate::error::CliError;
use crate::format::list::{self, Listing};
use crate::format::{container, human, image};
use crate::output;
use crate::spec::{Arity, command};
use crate::template::{Map, Value};

const LISTING: Listing<'static> = Listing {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

const CONTAINERS: Listing<'static> = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    ..container::LISTING
};

const VOLUMES: Listing<'static> = Listing {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    ..volume::list::LISTING
};

/// Arguments of `hull system df`.
#[derive(Debug, Args)]
pub(crate) struct DfArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or 'TEMPLATE' (a Go template)
    #[arg(long, value_name = "string")]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(short, long)]
    verbose: bool,
}

command!(
    DfArgs,
    run,
    names = ["system df"],
    usage = "[OPTIONS]",
    about = "Show hull disk usage",
    arity = Arity::None,
);

async fn run(context: &Context, args: DfArgs) -> Result<u8, CliError> {
    let usage = context.client().await?.disk_usage().await?;
    if args.verbose {
        let text = match args.format.as_deref() {
            None | Some("" | "table") => verbose(&usage)?,
            Some(format) => list::render(&LISTING, &[detailed(&usage)], Some(format), false)?,
        };
        output::print(&text)?;
        return Ok(0);
    }
    list::print(&LISTING, &rows(&usage), args.format.as_deref(), false)?;
    Ok(0)
}

/// One row for each kind of thing.
fn rows(usage: &DiskUsage) -> Vec<Value> {
    let images_used: i64 = usage
        .images
        .iter()
        .filter(|image| image.containers != 0 && image.size >= 0 && image.shared_size >= 0)
        .map(|image| image.size - image.shared_size)
        .sum();
    let active = usage
        .images
        .iter()
        .filter(|image| image.containers > 0)
        .count();
    let mut out = vec![row(
        "Images",
        usage.images.len(),
        active,
        usage.layers_size,
        usage.layers_size - images_used,
    )];
    let runs = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let size = |wanted: bool| {
        usage
            .containers
            .iter()
            .filter(|container| runs(&container.state) == wanted)
            .map(|container| container.size_rw.unwrap_or(0))
            .sum::<i64>()
    };
    let active = usage
        .containers
        .iter()
        .filter(|container| runs(&container.state))
        .count();
    out.push(row(
        "Containers",
        usage.containers.len(),
        active,
        size(true) + size(false),
        size(false),
    ));
    let size = |wanted: bool| {
        usage
            .volumes
            .iter()
            .filter_map(|volume| volume.usage_data.as_ref())
            .filter(|data| data.size >= 0 && (data.ref_count > 0) == wanted)
            .map(|data| data.size)
            .sum::<i64>()
    };
    let active = usage
        .volumes
        .iter()
        .filter(|volume| {
            volume
                .usage_data
                .as_ref()
                .is_some_and(|data| data.ref_count > 0)
        })
        .count();
    out.push(row(
        "Local Volumes",
        usage.volumes.len(),
        active,
        size(true) + size(false),
        size(false),
    ));
    out.push(row("Build Cache", 0, 0, 0, 0));
    out
}

fn row(kind: &str, total: usize, active: usize, size: i64, reclaimable: i64) -> Value {
    let mut map = Map::of_type("*formatter.diskUsageContext");
    map.push("Active", active.to_string());
    let text = human::size4(reclaimable as f64);
    map.push(
        "Reclaimable",
        if size > 0 {
            format!("{text} ({}%)", reclaimable.saturating_mul(100) / size)
        } else {
            text
        },
    );
    map.push("Size", human::size4(size as f64));
    map.push("TotalCount", total.to_string());
    map.push("Type", kind);
    Value::Map(map)
}

/// The rows of each kind.
struct Details {
    images: Vec<Value>,
    containers: Vec<Value>,
    volumes: Vec<Value>,
}

fn details(usage: &DiskUsage) -> Details {
    let now = human::now();
    let images: Vec<Value> = usage
        .images
        .iter()
        .filter_map(|one| image::rows(one, false, false, now, None).into_iter().next())
        .collect();
    let containers: Vec<Value> = usage
        .containers
        .iter()
        .map(|one| {
            // Disk usage counts what is the container's own; the image below it is counted above.
            let own = ContainerSummary {
                size_root_fs: None,
                ..one.clone()
            };
            container::row(&own, false, now)
        })
        .collect();
    Details {
        images,
        containers,
        volumes: usage.volumes.iter().map(volume::list::row).collect(),
    }
}

/// What a template of `-v` works on.
fn detailed(usage: &DiskUsage) -> Value {
    let Details {
        images,
        containers,
        volumes,
    } = details(usage);
    let mut map = Map::of_type("*formatter.diskUsageContext");
    map.push("Images", Value::List(images));
    map.push("Containers", Value::List(containers));
    map.push("Volumes", Value::List(volumes));
    map.push("BuildCache", Value::List(Vec::new()));
    Value::Map(map)
}

fn verbose(usage: &DiskUsage) -> Result<String, CliError> {
    let Details {
        images,
        containers,
        volumes,
    } = details(usage);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: 0B\n\n{}",
        list::render(&image::LISTING_OF_USAGE, &images, None, false)?,
        list::render(&CONTAINERS, &containers, None, false)?,
        list::render(&VOLUMES, &volumes, None, false)?,
        crate::format::tabwriter::align(
            "CACHE ID\tCACHE TYPE\tSIZE\tCREATED\tLAST USED\tUSAGE\tSHARED\n"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_sum_up_as_docker() {
        let usage: DiskUsage = serde_json::from_str(
            r#"{"LayersSize":1000,"Images":[{"Id":"a","Size":600,"SharedSize":100,"Containers":1},{"Id":"b","Size":500,"SharedSize":100,"Containers":0}],
            "Containers":[{"Id":"c","State":"running","SizeRw":10},{"Id":"d","State":"exited","SizeRw":30}],
            "Volumes":[{"Name":"v","UsageData":{"RefCount":0,"Size":7}}]}"#,
        )
        .unwrap();
        assert_eq!(
            list::render(&LISTING, &rows(&usage), None, false).unwrap(),
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         1kB       500B (50%)\n\
             Containers      2         1         40B       30B (75%)\n\
             Local Volumes   1         0         7B        7B (100%)\n\
             Build Cache     0         0         0B        0B\n"
        );
    }
}
