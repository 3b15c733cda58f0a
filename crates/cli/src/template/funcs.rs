//! The functions of templates: Go's own and the ones Docker adds.

use std::cmp::Ordering;

use super::value::Value;

/// Widest padding of `pad` and of printf's widths.
const MAX_WIDTH: usize = 4096;

/// Whether rows or the header of a table are being made; in a header, functions leave the words alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Values.
    Row,
    /// Column titles.
    Header,
}

/// Whether `name` is a function.
pub(super) fn known(name: &str) -> bool {
    matches!(
        name,
        "and"
            | "or"
            | "not"
            | "eq"
            | "ne"
            | "lt"
            | "le"
            | "gt"
            | "ge"
            | "len"
            | "index"
            | "slice"
            | "print"
            | "printf"
            | "println"
            | "html"
            | "js"
            | "urlquery"
            | "json"
            | "split"
            | "join"
            | "title"
            | "lower"
            | "upper"
            | "pad"
            | "truncate"
    )
}

/// Calls a function; the error is the text after `error calling NAME: `.
pub(super) fn call(name: &str, arguments: &[Value], mode: Mode) -> Result<Value, String> {
    if mode == Mode::Header
        && let Some(value) = header(name, arguments)
    {
        return Ok(value);
    }
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            for other in rest {
                if equal(first, other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        ("ne", [a, b]) => Ok(Value::Bool(!equal(a, b)?)),
        ("lt" | "le" | "gt" | "ge", [a, b]) => {
            if matches!(a, Value::Bool(_) | Value::List(_) | Value::Map(_)) {
                return Err("invalid type for comparison".to_owned());
            }
            let order = a.compare(b).ok_or("incompatible types for comparison")?;
            Ok(Value::Bool(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }))
        }
        ("len", [value]) => match value {
            Value::Str(text) => Ok(Value::Int(text.len() as i64)),
            Value::List(items) => Ok(Value::Int(items.len() as i64)),
            Value::Map(map) => Ok(Value::Int(map.entries.len() as i64)),
            Value::Nil | Value::Missing => Ok(Value::Int(0)),
            other => Err(format!("len of type {}", other.kind())),
        },
        ("index", [value, keys @ ..]) => index(value, keys),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("print", _) => Ok(Value::Str(print(arguments))),
        ("println", _) => {
            let mut text = arguments
                .iter()
                .map(Value::display)
                .collect::<Vec<_>>()
                .join(" ");
            text.push('\n');
            Ok(Value::Str(text))
        }
        ("printf", [Value::Str(format), rest @ ..]) => {
            Ok(Value::Str(super::printf::format(format, rest)))
        }
        ("html", _) => Ok(Value::Str(escape_html(&print(arguments)))),
        ("js", _) => Ok(Value::Str(print(arguments).escape_default().to_string())),
        ("urlquery", _) => Ok(Value::Str(query_escape(&print(arguments)))),
        ("json", [value]) => Ok(Value::Str(value.json())),
        ("split", [text, separator]) => {
            let (text, separator) = (string(text)?, string(separator)?);
            let parts: Vec<Value> = if separator.is_empty() {
                text.chars().map(|c| Value::Str(c.to_string())).collect()
            } else {
                text.split(separator).map(Value::from).collect()
            };
            Ok(Value::List(parts))
        }
        ("join", [list, separator]) => {
            let separator = string(separator)?;
            match list {
                Value::List(items) => Ok(Value::Str(
                    items
                        .iter()
                        .map(Value::display)
                        .collect::<Vec<_>>()
                        .join(separator),
                )),
                Value::Nil | Value::Missing => Ok(Value::Str(String::new())),
                other => Err(format!(
                    "wrong type for value; expected []string; got {}",
                    other.kind()
                )),
            }
        }
        ("title", [text]) => Ok(Value::Str(title(string(text)?))),
        ("lower", [text]) => Ok(Value::Str(string(text)?.to_lowercase())),
        ("upper", [text]) => Ok(Value::Str(string(text)?.to_uppercase())),
        ("pad", [text, Value::Int(before), Value::Int(after)]) => {
            let text = string(text)?;
            if text.is_empty() {
                return Ok(Value::Str(String::new()));
            }
            let blanks =
                |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0).min(MAX_WIDTH));
            Ok(Value::Str(format!(
                "{}{text}{}",
                blanks(before),
                blanks(after)
            )))
        }
        ("truncate", [text, Value::Int(length)]) => {
            let text = string(text)?;
            let length = usize::try_from(*length).map_err(|_| "negative length")?;
            Ok(Value::Str(text.chars().take(length).collect()))
        }
        _ => Err(format!(
            "wrong number or type of arguments ({} given)",
            arguments.len()
        )),
    }
}

/// What functions do to column titles: nothing that would spoil the word.
fn header(name: &str, arguments: &[Value]) -> Option<Value> {
    match (name, arguments) {
        ("json" | "title" | "lower" | "upper", [value]) => Some(value.clone()),
        ("truncate" | "split" | "join", [value, ..]) => Some(value.clone()),
        ("index" | "slice", [value @ Value::Str(_), ..]) => Some(value.clone()),
        _ => None,
    }
}

fn string(value: &Value) -> Result<&str, String> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Nil | Value::Missing => Ok(""),
        other => Err(format!(
            "wrong type for value; expected string; got {}",
            other.kind()
        )),
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Nil | Value::Missing, Value::Nil | Value::Missing) => Ok(true),
        (Value::Nil | Value::Missing, _) | (_, Value::Nil | Value::Missing) => Ok(false),
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
            Err("non-comparable type".to_owned())
        }
        _ => match a.compare(b) {
            Some(order) => Ok(order == Ordering::Equal),
            None => Err("incompatible types for comparison".to_owned()),
        },
    }
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut current = value.clone();
    for key in keys {
        current = match (&current, key) {
            (Value::List(items), Value::Int(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| items.get(position))
                .cloned()
                .ok_or_else(|| format!("reflect: slice index out of range: {position}"))?,
            (Value::Str(text), Value::Int(position)) => usize::try_from(*position)
                .ok()
                .and_then(|position| text.as_bytes().get(position))
                .map(|byte| Value::Int(i64::from(*byte)))
                .ok_or_else(|| format!("index out of range: {position}"))?,
            // The zero value of Docker's maps prints as nothing, unlike a missing field.
            (Value::Map(map), Value::Str(key)) => map
                .get_exact(key)
                .cloned()
                .unwrap_or_else(|| Value::Str(String::new())),
            (Value::List(_), other) => {
                return Err(format!(
                    "cannot index slice/array with type {}",
                    other.kind()
                ));
            }
            (Value::Map(_), other) => {
                return Err(format!("value has type {}; should be string", other.kind()));
            }
            (Value::Nil | Value::Missing, _) => return Err("index of untyped nil".to_owned()),
            (other, _) => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(current)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = match value {
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.kind())),
    };
    let bound = |position: usize, default: usize| match bounds.get(position) {
        None => Ok(default),
        Some(Value::Int(index)) => usize::try_from(*index)
            .ok()
            .filter(|index| *index <= length)
            .ok_or_else(|| format!("index out of range: {index}")),
        Some(other) => Err(format!(
            "cannot index slice/array with type {}",
            other.kind()
        )),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match value {
        Value::Str(text) => Ok(Value::Str(
            String::from_utf8_lossy(text.as_bytes().get(from..to).unwrap_or_default()).into_owned(),
        )),
        Value::List(items) => Ok(Value::List(
            items.get(from..to).unwrap_or_default().to_vec(),
        )),
        _ => Ok(Value::Nil),
    }
}

/// `fmt.Sprint`: a blank between two operands neither of which is a string.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut after_string = true;
    for value in arguments {
        let is_string = matches!(value, Value::Str(_));
        if !after_string && !is_string {
            out.push(' ');
        }
        out.push_str(&value.display());
        after_string = is_string;
    }
    out
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = true;
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_');
    }
    out
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
