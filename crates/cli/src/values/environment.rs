//! Environment variables and labels: `-e`, `--env-file`, `-l`, `--label-file`.

use std::collections::BTreeMap;

use crate::error::io_text;

/// Largest file of variables or labels.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// A variable as `-e` takes it: a bare name takes the client's value, or stays bare where it has none.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    if !text.contains('=')
        && let Ok(value) = std::env::var(text)
    {
        return Ok(format!("{text}={value}"));
    }
    Ok(text.to_owned())
}

/// All variables: those of files first, so that `-e` overrides them.
pub(crate) fn variables(files: &[String], given: &[String]) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for file in files {
        out.extend(read_file(file, |name| std::env::var(name).ok())?);
    }
    for text in given {
        out.push(variable(text)?);
    }
    Ok(out)
}

/// All labels, files first.
pub(crate) fn labels(
    files: &[String],
    given: &[String],
) -> Result<BTreeMap<String, String>, String> {
    let mut lines = Vec::new();
    for file in files {
        lines.extend(read_file(file, |_| Some(String::new()))?);
    }
    for label in given {
        if label.starts_with('=') || label.is_empty() {
            return Err(format!("invalid label '{label}': empty name"));
        }
        lines.push(label.clone());
    }
    Ok(pairs(&lines))
}

/// `KEY=VALUE` lines as a map; a bare key has the empty value.
pub(crate) fn pairs(lines: &[String]) -> BTreeMap<String, String> {
    lines
        .iter()
        .map(|line| match line.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (line.clone(), String::new()),
        })
        .collect()
}

/// Lines of `NAME=VALUE`, comments and blank lines left out; `bare` gives a bare name's value.
fn read_file(path: &str, bare: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("open {path}: {}", io_text(&error)))?;
    if metadata.len() > MAX_FILE {
        return Err(format!("{path} is larger than {MAX_FILE} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| format!("open {path}: {}", io_text(&error)))?;
    parse_lines(path, &bytes, bare)
}

fn parse_lines(
    path: &str,
    bytes: &[u8],
    bare: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut out = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| {
            format!(
                "invalid env file ({path}): invalid utf8 bytes at line {}",
                index + 1
            )
        })?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        if name.trim_start().is_empty() {
            return Err(format!(
                "invalid env file ({path}): no variable name on line '{line}'"
            ));
        }
        if name.contains([' ', '\t']) {
            return Err(format!(
                "invalid env file ({path}): variable '{name}' contains whitespaces"
            ));
        }
        match value {
            Some(value) => out.push(format!("{name}={value}")),
            None => {
                if let Some(value) = bare(name.trim()) {
                    out.push(format!("{}={value}", name.trim()));
                }
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_lines_follows_dockers_rules() {
        let text =
            b"\xef\xbb\xbf# comment\n\nA=1\n  B=two words # kept\r\nBARE\nNONE\nC=\"quoted\"\n";
        let got = parse_lines("f", text, |name| (name == "BARE").then(|| "x".to_owned())).unwrap();
        assert_eq!(got, ["A=1", "B=two words # kept", "BARE=x", "C=\"quoted\""]);
        assert!(
            parse_lines("f", b"=x", |_| None)
                .unwrap_err()
                .contains("no variable name")
        );
        assert!(
            parse_lines("f", b"A B=x", |_| None)
                .unwrap_err()
                .contains("contains whitespaces")
        );
        assert!(
            parse_lines("f", b"A=\xff", |_| None)
                .unwrap_err()
                .contains("invalid utf8")
        );
    }

    #[test]
    fn variable_bare_name_without_value_stays_bare() {
        assert_eq!(
            variable("HULL_NO_SUCH_VARIABLE"),
            Ok("HULL_NO_SUCH_VARIABLE".to_owned())
        );
        assert_eq!(variable("A=b=c"), Ok("A=b=c".to_owned()));
        assert!(variable("=x").is_err());
    }

    #[test]
    fn variables_missing_file_is_named() {
        assert_eq!(
            variables(&["/nope".into()], &[]).unwrap_err(),
            "open /nope: no such file or directory"
        );
    }

    #[test]
    fn labels_bare_key_is_empty() {
        let got = labels(&[], &["a=1".into(), "b".into()]).unwrap();
        assert_eq!(got.get("a").map(String::as_str), Some("1"));
        assert_eq!(got.get("b").map(String::as_str), Some(""));
    }
}
