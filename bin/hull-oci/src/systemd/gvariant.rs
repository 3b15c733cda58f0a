//! Values of annotations `org.systemd.property.*`, in GVariant's text format.
//!
//! Source: GLib's "GVariant Text Format"; the parts that properties of units are made of.

use anyhow::{Context as _, Result, bail};

use super::value::Value;

/// Deepest nesting.
const MAX_DEPTH: usize = 8;
const US_PER_SECOND: u64 = 1_000_000;

/// A property by its name and the text of its value. As in runc, `…Sec` of whole seconds becomes
/// `…USec`.
pub(crate) fn property(name: &str, text: &str) -> Result<(String, Value)> {
    let value = parse(text).with_context(|| {
        format!("config.json: annotations.org.systemd.property.{name}: {text:?}")
    })?;
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Ok((name.to_owned(), value));
    };
    let microseconds = match value {
        Value::I32(seconds) => u64::try_from(seconds).ok(),
        Value::I64(seconds) => u64::try_from(seconds).ok(),
        Value::U32(seconds) => Some(seconds.into()),
        Value::U64(seconds) => Some(seconds),
        Value::F64(seconds) if seconds >= 0.0 => {
            let microseconds = seconds * US_PER_SECOND as f64;
            return Ok((format!("{stem}USec"), Value::U64(microseconds as u64)));
        }
        _ => None,
    };
    let microseconds = microseconds
        .and_then(|seconds| seconds.checked_mul(US_PER_SECOND))
        .with_context(|| {
            format!(
                "config.json: annotations.org.systemd.property.{name}: {text:?} is no number of \
                 seconds"
            )
        })?;
    Ok((format!("{stem}USec"), Value::U64(microseconds)))
}

/// Parses a whole text.
fn parse(text: &str) -> Result<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, 0)?;
    parser.skip_blanks();
    if !parser.rest.is_empty() {
        bail!("{:?} is left over", parser.rest);
    }
    Ok(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn takes(&mut self, token: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        word
    }

    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            bail!("it is nested too deeply");
        }
        self.skip_blanks();
        match self.rest.chars().next() {
            None => bail!("a value is missing"),
            Some('@') => {
                self.rest = self.rest.get(1..).unwrap_or_default();
                let signature = self.word(|c| !c.is_whitespace()).to_owned();
                self.value(Some(&signature), depth + 1)
            }
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('<') => {
                self.takes('<');
                let inner = self.value(None, depth + 1)?;
                if !self.takes('>') {
                    bail!("'>' is missing");
                }
                Ok(Value::Variant(inner.into()))
            }
            Some('\'' | '"') => self.text(wanted),
            Some(_) => self.scalar(wanted, depth),
        }
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        let mut element = match wanted {
            Some(signature) => Some(
                signature
                    .strip_prefix('a')
                    .with_context(|| format!("an array is not of type {signature:?}"))?
                    .to_owned(),
            ),
            None => None,
        };
        self.takes('[');
        let mut values = Vec::new();
        while !self.takes(']') {
            if !values.is_empty() && !self.takes(',') {
                bail!("',' is missing in an array");
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            let signature = value.signature();
            if element.get_or_insert_with(|| signature.clone()) != &signature {
                bail!("the elements of an array are of several types");
            }
            values.push(value);
        }
        let element = element.context("an empty array needs its type, as in \"@as []\"")?;
        Ok(Value::Array(element, values))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        self.takes('(');
        let mut fields = Vec::new();
        while !self.takes(')') {
            if !fields.is_empty() && !self.takes(',') {
                bail!("',' is missing in a tuple");
            }
            if self.takes(')') {
                break;
            }
            fields.push(self.value(None, depth + 1)?);
        }
        let value = Value::Struct(fields);
        match wanted {
            Some(signature) if signature != value.signature() => {
                bail!("a tuple is not of type {signature:?}")
            }
            _ => Ok(value),
        }
    }

    fn text(&mut self, wanted: Option<&str>) -> Result<Value> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next().context("a quote is not closed")? {
                c if Some(c) == quote => break,
                '\\' => match chars.next().context("a quote is not closed")? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                },
                c => text.push(c),
            }
        }
        self.rest = chars.as_str();
        match wanted {
            None | Some("s") => Ok(Value::Text(text)),
            Some("o") => Ok(Value::Path(text)),
            Some("g") => Ok(Value::Signature(text)),
            Some(signature) => bail!("text is not of type {signature:?}"),
        }
    }

    fn scalar(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value> {
        let word = self.word(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
        if word.is_empty() {
            bail!("{:?} is no value", self.rest);
        }
        let named = match word {
            "true" | "false" if matches!(wanted, None | Some("b")) => {
                return Ok(Value::Bool(word == "true"));
            }
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "objectpath" => "o",
            "signature" => "g",
            number => return self::number(number, wanted),
        };
        self.value(Some(named), depth + 1)
    }
}

fn number(word: &str, wanted: Option<&str>) -> Result<Value> {
    let float = || word.parse::<f64>();
    let integer = || -> Result<i128> {
        let (digits, radix) = match word.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None => (word, 10),
        };
        i128::from_str_radix(digits, radix).with_context(|| format!("{word:?} is no value"))
    };
    Ok(match wanted {
        // Without a type a whole number is an int32, as in GVariant.
        None if word.contains('.') => Value::F64(float()?),
        None | Some("i") => Value::I32(i32::try_from(integer()?)?),
        Some("y") => Value::Byte(u8::try_from(integer()?)?),
        Some("n") => Value::I16(i16::try_from(integer()?)?),
        Some("q") => Value::U16(u16::try_from(integer()?)?),
        Some("u") => Value::U32(u32::try_from(integer()?)?),
        Some("x") => Value::I64(i64::try_from(integer()?)?),
        Some("t") => Value::U64(u64::try_from(integer()?)?),
        Some("d") => Value::F64(float()?),
        Some(signature) => bail!("{word:?} is not of type {signature:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_values_of_each_type() {
        let array = |element: &str, values| Value::Array(element.to_owned(), values);
        for (text, value) in [
            ("true", Value::Bool(true)),
            ("42", Value::I32(42)),
            ("uint64 42", Value::U64(42)),
            ("@t 42", Value::U64(42)),
            ("1.5", Value::F64(1.5)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a\"b""#, Value::text("a\"b")),
            ("@as []", array("s", vec![])),
            (
                "['a', 'b']",
                array("s", vec![Value::text("a"), Value::text("b")]),
            ),
            (
                "[('a', uint32 1)]",
                array(
                    "(su)",
                    vec![Value::Struct(vec![Value::text("a"), Value::U32(1)])],
                ),
            ),
        ] {
            assert_eq!(parse(text).expect(text), value, "{text}");
        }
        for bad in [
            "",
            "[",
            "[]",
            "'a",
            "1 2",
            "uint32 -1",
            "[1,'a']",
            "nope",
            "@s 1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn property_seconds_become_microseconds() {
        let pair = |name: &str, value| (name.to_owned(), value);
        assert_eq!(
            property("TimeoutStopSec", "30").expect("property"),
            pair("TimeoutStopUSec", Value::U64(30_000_000))
        );
        assert_eq!(
            property("TimeoutStopUSec", "uint64 5").expect("property"),
            pair("TimeoutStopUSec", Value::U64(5))
        );
        assert!(property("TimeoutStopSec", "'x'").is_err());
    }
}
