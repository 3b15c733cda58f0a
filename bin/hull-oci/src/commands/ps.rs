//! `ps`: the container's processes as the host sees them.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use hull_container::Host;

use super::print;
use crate::cli::{Format, Ps};
use crate::state::Store;

pub(crate) fn ps(args: &Ps, store: &Store) -> Result<()> {
    let (_, record) = store.open(&args.id)?;
    let mut pids = record.pids(&Host::detect()?)?;
    pids.sort_unstable();
    if args.format == Format::Json {
        let text = serde_json::to_string(&pids).context("cannot write the list")?;
        return print(&format!("{text}\n"));
    }
    let default = ["-ef".to_owned()];
    let options = if args.options.is_empty() {
        &default[..]
    } else {
        &args.options[..]
    };
    let output = Command::new("ps")
        .args(options)
        .output()
        .context("cannot run ps: install procps or use --format json")?;
    if !output.status.success() {
        bail!(
            "ps failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    print(&select(&text, &pids).context("ps shows no column named PID: choose other options")?)
}

/// The heading and the lines of these processes.
fn select(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let heading = lines.next()?;
    let column = heading.split_whitespace().position(|name| name == "PID")?;
    let ours = lines.filter(|line| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|cell| cell.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    });
    Some(
        std::iter::once(heading)
            .chain(ours)
            .map(|line| format!("{line}\n"))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_keeps_heading_and_own_lines() {
        let text = "UID   PID  CMD\nroot    1  init\nroot   12  sh -c 1\n";
        assert_eq!(
            select(text, &[12]).as_deref(),
            Some("UID   PID  CMD\nroot   12  sh -c 1\n")
        );
        assert_eq!(select("CMD\n", &[1]), None);
    }
}
