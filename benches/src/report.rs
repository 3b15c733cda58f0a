//! Results as a table, as JSON and as an SVG plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

/// One promise and what was measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// Short name, as in docs/SPEC.md.
    pub name: &'static str,
    /// What was measured, with its unit.
    pub what: String,
    /// Hull's figure.
    pub hull: f64,
    /// Whose figure it is compared with.
    pub peer_name: &'static str,
    /// The peer's figure.
    pub peer: f64,
    /// How many times better Hull is (the peer's time over Hull's, or Hull's rate over the peer's).
    pub factor: f64,
    /// How many times better it promises to be.
    pub promised: f64,
}

impl Row {
    /// Hull's figure beside a peer's, where less is better.
    pub fn less(
        name: &'static str,
        what: impl Into<String>,
        [hull, peer]: [f64; 2],
        peer_name: &'static str,
        promised: f64,
    ) -> Self {
        Self {
            name,
            what: what.into(),
            hull,
            peer_name,
            peer,
            factor: peer / hull,
            promised,
        }
    }

    /// Hull's figure beside a peer's, where more is better.
    pub fn more(
        name: &'static str,
        what: impl Into<String>,
        [hull, peer]: [f64; 2],
        peer_name: &'static str,
        promised: f64,
    ) -> Self {
        Self {
            factor: hull / peer,
            ..Self::less(name, what, [hull, peer], peer_name, promised)
        }
    }

    /// The promise is kept.
    pub fn is_kept(&self) -> bool {
        self.factor >= self.promised
    }
}

/// The table, in columns.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<16} {:<54} {:>10} {:>10} {:<18} {:>8} {:>9}\n",
        "row", "what", "hull", "peer", "", "factor", "promised"
    );
    for r in rows {
        let verdict = if r.is_kept() { "" } else { "  MISSED" };
        let _ = writeln!(
            text,
            "{:<16} {:<54} {:>10.2} {:>10.2} {:<18} {:>7.2}x {:>8.2}x{verdict}",
            r.name, r.what, r.hull, r.peer, r.peer_name, r.factor, r.promised
        );
    }
    text
}

/// Writes `NAME.json` and `NAME.svg`.
///
/// # Errors
/// If the folder cannot be written.
pub fn write(dir: &Path, name: &str, rows: &[Row]) -> Result<()> {
    fs::create_dir_all(dir)?;
    let list: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({"row": r.name, "what": r.what, "hull": r.hull, "peer": r.peer, "peer_name": r.peer_name,
                   "factor": r.factor, "promised": r.promised, "kept": r.is_kept()})
        })
        .collect();
    fs::write(
        dir.join(format!("{name}.json")),
        serde_json::to_vec_pretty(&list)?,
    )?;
    fs::write(dir.join(format!("{name}.svg")), svg(rows))?;
    Ok(())
}

/// Bars of the factors, on a logarithmic scale; a mark shows what was promised.
fn svg(rows: &[Row]) -> String {
    const WIDTH: f64 = 860.0;
    const LEFT: f64 = 360.0;
    const HEIGHT: f64 = 26.0;
    let most = rows
        .iter()
        .map(|r| r.factor.max(r.promised))
        .fold(10.0, f64::max);
    let scale = |factor: f64| (factor.max(1.0).ln() / most.ln()) * (WIDTH - LEFT - 80.0);
    let total = HEIGHT * (rows.len() as f64 + 2.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{total}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">How many times better than the peer (logarithmic; the mark is the promise)</text>\n"
    );
    for (i, r) in rows.iter().enumerate() {
        let y = HEIGHT * (i as f64 + 1.5);
        let colour = if r.is_kept() { "#2a7" } else { "#c43" };
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{} vs {}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n\
             <line x1=\"{m:.1}\" x2=\"{m:.1}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"black\" stroke-width=\"2\"/>\n\
             <text x=\"{:.1}\" y=\"{:.0}\">{:.1}x</text>",
            LEFT - 8.0,
            y + 11.0,
            r.what,
            r.peer_name,
            y,
            scale(r.factor).max(1.0),
            y - 2.0,
            y + 16.0,
            LEFT + scale(r.factor).max(scale(r.promised)) + 8.0,
            y + 11.0,
            r.factor,
            m = LEFT + scale(r.promised),
        );
    }
    text.push_str("</svg>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missed_promise_is_named_in_the_table() {
        let row = Row {
            name: "run",
            what: "run, ms".into(),
            hull: 10.0,
            peer_name: "docker",
            peer: 100.0,
            factor: 10.0,
            promised: 25.0,
        };
        assert!(table(std::slice::from_ref(&row)).contains("MISSED"));
        assert!(svg(&[row]).contains("#c43"));
    }
}
