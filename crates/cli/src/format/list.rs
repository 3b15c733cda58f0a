//! Prints a list by Docker's `--format`: `table`, `table TEMPLATE`, `json`, `TEMPLATE`.

use crate::error::CliError;
use crate::output;
use crate::template::{Map, MissingKey, Mode, Template, TemplateError, Value};

use super::tabwriter;

/// How one kind of list is printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing<'a> {
    /// Template of the default table, without the word `table`.
    pub(crate) table: &'a str,
    /// What `-q` prints.
    pub(crate) quiet: &'a str,
    /// Placeholders and their column titles.
    pub(crate) headers: &'a [(&'a str, &'a str)],
}

/// Prints `rows`. `format` is the user's, `-q` is `quiet`.
pub(crate) fn print(
    listing: &Listing<'_>,
    rows: &[Value],
    format: Option<&str>,
    quiet: bool,
) -> Result<(), CliError> {
    output::print(&render(listing, rows, format, quiet)?)
}

/// The text that [`print()`] prints.
pub(crate) fn render(
    listing: &Listing<'_>,
    rows: &[Value],
    format: Option<&str>,
    quiet: bool,
) -> Result<String, CliError> {
    let format = format
        .map(str::trim)
        .filter(|format| !format.is_empty())
        .unwrap_or("table");
    if quiet && (format == "table" || format == "raw") {
        return by_template(listing.quiet, rows);
    }
    if format == "json" {
        return by_template("{{json .}}", rows);
    }
    match format.strip_prefix("table") {
        Some("") => table(listing, listing.table, rows),
        Some(template)
            if template.starts_with(char::is_whitespace) || template.starts_with("{{") =>
        {
            let source = if quiet { listing.quiet } else { template };
            table(listing, source, rows)
        }
        _ => by_template(format, rows),
    }
}

fn parse(source: &str) -> Result<Template, CliError> {
    Template::parse(&unescape(source), MissingKey::NoValue)
        .map_err(|error| CliError::new(format!("failed to parse template: {error}")))
}

fn unfit(error: TemplateError) -> CliError {
    CliError::new(format!("failed to execute template: {error}"))
}

/// Users write `\t` and `\n` for the characters.
fn unescape(source: &str) -> String {
    source
        .trim_matches(' ')
        .replace("\\t", "\t")
        .replace("\\n", "\n")
}

fn by_template(source: &str, rows: &[Value]) -> Result<String, CliError> {
    let template = parse(source)?;
    let mut out = String::new();
    for row in rows {
        out.push_str(&template.run(row, Mode::Row).map_err(unfit)?);
        out.push('\n');
    }
    Ok(out)
}

fn table(listing: &Listing<'_>, source: &str, rows: &[Value]) -> Result<String, CliError> {
    let template = parse(source)?;
    let mut header = Map::default();
    for (name, title) in listing.headers {
        header.push(name, *title);
    }
    let mut text = header_line(&template, header)?;
    text.push('\n');
    for row in rows {
        text.push_str(&template.run(row, Mode::Row).map_err(unfit)?);
        text.push('\n');
    }
    Ok(tabwriter::align(&text))
}

/// The header; a placeholder without a title, or `.Label "x"`, shows what Docker shows.
fn header_line(template: &Template, mut header: Map) -> Result<String, CliError> {
    header.labels.clear();
    header.type_name = None;
    template
        .run(&Value::Map(header), Mode::Header)
        .map_err(unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'static> = Listing {
        table: "{{.ID}}\t{{.Name}}",
        quiet: "{{.ID}}",
        headers: &[("ID", "THING ID"), ("Name", "NAME")],
    };

    fn rows() -> Vec<Value> {
        let mut map = Map::of_type("*formatter.thing");
        map.push("ID", "1");
        map.push("Name", "one");
        vec![Value::Map(map)]
    }

    #[test]
    fn render_default_table_and_quiet() {
        assert_eq!(
            render(&LISTING, &rows(), None, false).unwrap(),
            "THING ID   NAME\n1          one\n"
        );
        assert_eq!(render(&LISTING, &rows(), None, true).unwrap(), "1\n");
        assert_eq!(
            render(&LISTING, &[], None, false).unwrap(),
            "THING ID   NAME\n"
        );
    }

    #[test]
    fn render_own_formats() {
        assert_eq!(
            render(&LISTING, &rows(), Some("{{.Name}}\\t{{.ID}}"), false).unwrap(),
            "one\t1\n"
        );
        assert_eq!(
            render(&LISTING, &rows(), Some("table {{.Name}}\\t{{.ID}}"), false).unwrap(),
            "NAME      THING ID\none       1\n"
        );
        assert_eq!(
            render(&LISTING, &rows(), Some("json"), false).unwrap(),
            "{\"ID\":\"1\",\"Name\":\"one\"}\n"
        );
        assert_eq!(
            render(&LISTING, &rows(), Some("table {{upper .Name}}"), false).unwrap(),
            "NAME\nONE\n"
        );
        assert_eq!(
            render(&LISTING, &rows(), Some("{{.Nope}}"), false)
                .unwrap_err()
                .text(),
            "failed to execute template: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.thing"
        );
    }
}
