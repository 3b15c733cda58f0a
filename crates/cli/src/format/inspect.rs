//! Replies of the engine as `inspect` prints them: indented JSON with its order kept, or by template.

use crate::error::CliError;
use crate::template::{Map, MissingKey, Mode, Template, Value};

/// Exit code of a template that cannot be parsed.
const MALFORMED_TEMPLATE: u8 = 64;
/// Deepest nesting that is indented; the engine's replies are far from it.
const MAX_DEPTH: usize = 256;

/// Fields that the engine leaves out when there is nothing, and that templates test with `if`.
const OPTIONAL: [(&str, &str, bool); 5] = [
    ("State", "Health", false),
    ("Config", "Healthcheck", false),
    ("Config", "ExposedPorts", true),
    ("Config", "Volumes", true),
    ("HostConfig", "Mounts", false),
];

/// Indents JSON by four blanks, as Go does: order kept, empty objects and arrays on one line.
pub(crate) fn indent(json: &[u8], margin: usize) -> String {
    let text = String::from_utf8_lossy(json);
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let chars = text.chars().filter_outside_strings();
    let mut pending_open = false;
    for (c, in_string) in chars {
        if in_string {
            if pending_open {
                line(&mut out, depth, margin);
                pending_open = false;
            }
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                if pending_open {
                    line(&mut out, depth, margin);
                }
                out.push(c);
                depth = (depth + 1).min(MAX_DEPTH);
                pending_open = true;
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if pending_open {
                    pending_open = false;
                } else {
                    line(&mut out, depth, margin);
                }
                out.push(c);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth, margin);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => {
                if pending_open {
                    line(&mut out, depth, margin);
                    pending_open = false;
                }
                out.push(c);
            }
        }
    }
    out
}

fn line(out: &mut String, depth: usize, margin: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', margin + depth * 4));
}

/// Tells for each character of a JSON text whether it belongs to a string.
trait OutsideStrings: Iterator<Item = char> + Sized {
    fn filter_outside_strings(self) -> StringMarks<Self> {
        StringMarks {
            chars: self,
            inside: false,
            escaped: false,
        }
    }
}

impl<I: Iterator<Item = char>> OutsideStrings for I {}

struct StringMarks<I> {
    chars: I,
    inside: bool,
    escaped: bool,
}

impl<I: Iterator<Item = char>> Iterator for StringMarks<I> {
    type Item = (char, bool);

    fn next(&mut self) -> Option<(char, bool)> {
        let c = self.chars.next()?;
        if !self.inside {
            self.inside = c == '"';
            return Some((c, self.inside));
        }
        if self.escaped {
            self.escaped = false;
        } else if c == '\\' {
            self.escaped = true;
        } else if c == '"' {
            self.inside = false;
        }
        Some((c, true))
    }
}

/// Prints elements by the user's format: nothing is a JSON array, `json` the same on one line.
pub(crate) fn render(elements: &[bytes::Bytes], format: Option<&str>) -> Result<String, CliError> {
    match format {
        None | Some("") => {
            if elements.is_empty() {
                return Ok("[]\n".to_owned());
            }
            let texts: Vec<String> = elements
                .iter()
                .map(|element| format!("    {}", indent(element.trim_ascii(), 4)))
                .collect();
            Ok(format!("[\n{}\n]\n", texts.join(",\n")))
        }
        Some("json") => {
            let texts: Vec<String> = elements
                .iter()
                .map(|element| value(element).map(|value| value.json()))
                .collect::<Result<_, _>>()?;
            Ok(format!("[{}]\n", texts.join(",")))
        }
        Some(source) => {
            let template = Template::parse(source, MissingKey::Error).map_err(|error| {
                CliError::with_code(
                    format!("template parsing error: {error}"),
                    MALFORMED_TEMPLATE,
                )
            })?;
            let mut out = String::new();
            for element in elements {
                let mut value = value(element)?;
                complete(&mut value);
                out.push_str(&template.run(&value, Mode::Row)?);
                out.push('\n');
            }
            Ok(out)
        }
    }
}

/// A reply as a value.
pub(crate) fn value(json: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(json)
        .map_err(|error| CliError::new(format!("unable to read inspect data: {error}")))
}

/// Adds fields that Docker's types have although the reply leaves them out.
fn complete(value: &mut Value) {
    let Value::Map(map) = value else { return };
    for (outer, inner, is_map) in OPTIONAL {
        if let Some((_, Value::Map(nested))) = map.entries.iter_mut().find(|(key, _)| key == outer)
            && nested.get_exact(inner).is_none()
        {
            nested.optional.push((
                inner,
                if is_map {
                    Value::Map(Map::default())
                } else {
                    Value::Nil
                },
            ));
        }
    }
    fill_lists(map, 0);
}

/// Go prints a missing list as `[]` and a missing map as `map[]`; in JSON both are null.
fn fill_lists(map: &mut Map, depth: usize) {
    const MAPS: [&str; 4] = ["Volumes", "Labels", "ExposedPorts", "PortBindings"];
    const LISTS: [&str; 14] = [
        "Cmd",
        "Entrypoint",
        "Env",
        "OnBuild",
        "Binds",
        "CapAdd",
        "CapDrop",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "SecurityOpt",
        "ExecIDs",
    ];
    if depth > 8 {
        return;
    }
    for (key, value) in &mut map.entries {
        match value {
            Value::Nil if LISTS.contains(&key.as_str()) => *value = Value::List(Vec::new()),
            Value::Nil if MAPS.contains(&key.as_str()) => *value = Value::Map(Map::default()),
            Value::Map(inner) => fill_lists(inner, depth + 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &'static str, format: Option<&str>) -> String {
        render(&[bytes::Bytes::from_static(json.as_bytes())], format)
            .unwrap_or_else(|error| error.text().to_owned())
    }

    #[test]
    fn render_indents_as_docker() {
        assert_eq!(
            one(
                r#"{"Id":"a","L":[1,2],"E":{},"F":[],"S":"x{\"y\": 1}"}"#,
                None
            ),
            "[\n    {\n        \"Id\": \"a\",\n        \"L\": [\n            1,\n            2\n        ],\n        \"E\": {},\n        \"F\": [],\n        \"S\": \"x{\\\"y\\\": 1}\"\n    }\n]\n"
        );
        assert_eq!(render(&[], None).unwrap(), "[]\n");
        assert_eq!(
            one(r#"[[],[{}],["a"]]"#, None),
            "[\n    [\n        [],\n        [\n            {}\n        ],\n        [\n            \"a\"\n        ]\n    ]\n]\n"
        );
    }

    #[test]
    fn render_json_and_templates() {
        assert_eq!(
            one(r#"{"b":1,"a":2}"#, Some("json")),
            "[{\"b\":1,\"a\":2}]\n"
        );
        assert_eq!(
            one(
                r#"{"State":{"Status":"running"}}"#,
                Some("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}")
            ),
            "none\n"
        );
        assert_eq!(
            one(r#"{"Config":{"Cmd":null}}"#, Some("{{.Config.Cmd}}")),
            "[]\n"
        );
        assert_eq!(
            one(r#"{"Id":"a"}"#, Some("{{.Nope}}")),
            "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\""
        );
    }
}
