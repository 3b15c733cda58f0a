//! `list`.

use anyhow::{Context as _, Result};
use hull_container::Host;

use super::print;
use super::state::Shown;
use crate::cli::{Format, List};
use crate::state::Store;

pub(crate) fn list(args: &List, store: &Store) -> Result<()> {
    let containers = store.list()?;
    if args.quiet {
        let names: String = containers
            .iter()
            .map(|(_, record)| format!("{}\n", record.id))
            .collect();
        return print(&names);
    }
    let host = Host::detect()?;
    let shown = containers
        .into_iter()
        .map(|(entry, record)| Shown::new(&entry, record, &host))
        .collect::<Result<Vec<_>>>()?;
    match args.format {
        Format::Json => {
            let text = serde_json::to_string(&shown).context("cannot write the list")?;
            print(&format!("{text}\n"))
        }
        Format::Table => print(&table(&shown)),
    }
}

fn table(list: &[Shown]) -> String {
    const GAP: usize = 3;
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    rows.extend(list.iter().map(|shown| {
        let bundle = shown.bundle.display().to_string();
        [
            &shown.id,
            &shown.pid.to_string(),
            shown.status,
            &bundle,
            &shown.created,
            &shown.owner,
        ]
        .map(str::to_owned)
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells: String = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:0$}", width + GAP))
            .collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
}
