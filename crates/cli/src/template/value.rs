//! The values templates work on: JSON with its order kept, plus Go's struct and missing values.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting that is printed or serialised.
const MAX_DEPTH: usize = 64;

/// A value as templates see it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// JSON null, Go's nil.
    Nil,
    /// What a missing map key yields; prints `<no value>`.
    Missing,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// A string.
    Str(String),
    /// A slice.
    List(Vec<Value>),
    /// A map or a struct.
    Map(Map),
}

/// A map or struct with the order of its fields kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Map {
    /// Fields in order of appearance.
    pub(crate) entries: Vec<(String, Value)>,
    /// The Go type to name in errors; `None` for a plain map.
    pub(crate) type_name: Option<&'static str>,
    /// Fields that Docker's type has although they were left out: found by name, never listed.
    pub(crate) optional: Vec<(&'static str, Value)>,
    /// Labels that the method `.Label "name"` looks up.
    pub(crate) labels: Vec<(String, String)>,
}

impl Map {
    /// A struct whose missing fields are errors that name `type_name`.
    pub(crate) fn of_type(type_name: &'static str) -> Self {
        Self {
            type_name: Some(type_name),
            ..Self::default()
        }
    }

    /// Adds a field.
    pub(crate) fn push(&mut self, name: &str, value: impl Into<Value>) {
        self.entries.push((name.to_owned(), value.into()));
    }

    /// A field by its exact name, or else by its name in any case: Go's field names and JSON's
    /// differ in case (`ID` and `Id`), and users write both.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(key, _)| key == name)
            .or_else(|| {
                self.entries
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
            })
            .map(|(_, value)| value)
            .or_else(|| {
                self.optional
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value)
            })
    }

    /// A field by its exact name.
    pub(crate) fn get_exact(&self, name: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// Fields sorted by name, as Go ranges over maps.
    pub(crate) fn sorted(&self) -> Vec<(&str, &Value)> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        all.sort_by(|a, b| a.0.cmp(b.0));
        all
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Map> for Value {
    fn from(value: Map) -> Self {
        Self::Map(value)
    }
}

impl Value {
    /// Go's truth: false, 0, "", nil and empty collections are false.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Nil | Self::Missing => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(value) => !value.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(map) => map.type_name.is_some() || !map.entries.is_empty(),
        }
    }

    /// What Go calls the type, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nil | Self::Missing => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(map) => map.type_name.unwrap_or("map[string]interface {}"),
        }
    }

    /// The text that `fmt.Print` gives.
    pub(crate) fn display(&self) -> String {
        let mut out = String::new();
        self.print(&mut out, 0);
        out
    }

    fn print(&self, out: &mut String, depth: usize) {
        if depth > MAX_DEPTH {
            out.push('…');
            return;
        }
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Missing => out.push_str("<no value>"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Float(value) => out.push_str(&float_text(*value)),
            Self::Str(value) => out.push_str(value),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    item.print(out, depth + 1);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push_str("map[");
                for (index, (key, value)) in map.sorted().into_iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    out.push_str(key);
                    out.push(':');
                    value.print(out, depth + 1);
                }
                out.push(']');
            }
        }
    }

    /// Compact JSON, as Go's encoder without HTML escapes writes it.
    pub(crate) fn json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out, 0, false);
        out
    }

    fn write_json(&self, out: &mut String, depth: usize, html: bool) {
        if depth > MAX_DEPTH {
            out.push_str("null");
            return;
        }
        match self {
            Self::Nil | Self::Missing => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Self::Float(value) => out.push_str(&float_text(*value)),
            Self::Str(value) => write_json_string(out, value, html),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out, depth + 1, html);
                }
                out.push(']');
            }
            Self::Map(map) => {
                out.push('{');
                for (index, (key, value)) in map.entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_json_string(out, key, html);
                    out.push(':');
                    value.write_json(
                        out,
                        depth + 1,
                        html || map.type_name.is_some_and(|name| name.starts_with('*')),
                    );
                }
                out.push('}');
            }
        }
    }

    /// Numeric or textual order, where both sides have the same basic kind.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Float(b)) => (*a as f64).partial_cmp(b),
            (Self::Float(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            (Self::Str(a), Self::Str(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) if a == b => Some(Ordering::Equal),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Writes a JSON string literal.
/// Docker's own list rows come out with `<`, `>` and `&` escaped, replies of the engine do not.
fn write_json_string(out: &mut String, text: &str, html: bool) {
    match serde_json::to_string(text) {
        Ok(quoted) if html => {
            out.push_str(
                &quoted
                    .replace('<', "\\u003c")
                    .replace('>', "\\u003e")
                    .replace('&', "\\u0026"),
            );
        }
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}

/// `%v` of a float64: shortest digits, exponent from 1e21 on.
fn float_text(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs();
    if (1e-4..1e21).contains(&magnitude) {
        return format!("{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::default();
        while let Some((key, value)) = access.next_entry::<String, Value>()? {
            map.entries.push((key, value));
        }
        Ok(Value::Map(map))
    }
}
