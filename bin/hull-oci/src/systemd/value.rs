//! Values of D-Bus messages with their types.
//!
//! Source: the D-Bus specification, "Type System" and "Marshaling".

use anyhow::{Context as _, Result, bail};

/// Deepest nesting of arrays, structures and variants together.
const MAX_DEPTH: usize = 32;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(String),
    /// Object path.
    Path(String),
    Signature(String),
    /// Signature of the elements, and they.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Entry(Box<Value>, Box<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".to_owned(),
            Self::Bool(_) => "b".to_owned(),
            Self::I16(_) => "n".to_owned(),
            Self::U16(_) => "q".to_owned(),
            Self::I32(_) => "i".to_owned(),
            Self::U32(_) => "u".to_owned(),
            Self::I64(_) => "x".to_owned(),
            Self::U64(_) => "t".to_owned(),
            Self::F64(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Path(_) => "o".to_owned(),
            Self::Signature(_) => "g".to_owned(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", signature_of(fields)),
            Self::Entry(key, value) => format!("{{{}{}}}", key.signature(), value.signature()),
            Self::Variant(_) => "v".to_owned(),
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(inner) => inner.as_text(),
            _ => None,
        }
    }
}

/// Signature of values in a row.
pub(crate) fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// Splits the first complete type off a signature.
fn first_type(signature: &str, depth: usize) -> Result<(&str, &str)> {
    if depth > MAX_DEPTH {
        bail!("a D-Bus type is nested too deeply");
    }
    let invalid = || format!("invalid D-Bus signature {signature:?}");
    let mut rest = signature;
    let kind = rest.bytes().next().with_context(invalid)?;
    rest = rest.get(1..).with_context(invalid)?;
    match kind {
        b'a' => rest = first_type(rest, depth + 1)?.1,
        b'(' | b'{' => {
            let end = if kind == b'(' { ')' } else { '}' };
            while !rest.starts_with(end) {
                rest = first_type(rest, depth + 1)?.1;
            }
            rest = rest.get(1..).with_context(invalid)?;
        }
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'g'
        | b'v' | b'h' => {}
        _ => bail!(invalid()),
    }
    signature
        .split_at_checked(signature.len() - rest.len())
        .with_context(invalid)
}

/// Where a type begins.
fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a' | b'h') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Bytes of a message, in little-endian order.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn text(&mut self, text: &str) {
        self.align(4);
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn length(&mut self, length: usize) {
        // Messages are far smaller than 4 GiB: what they are made of has bounds.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    pub(crate) fn write(&mut self, value: &Value) {
        match value {
            Value::Byte(value) => self.0.push(*value),
            Value::Bool(value) => self.number(u32::from(*value).to_le_bytes()),
            Value::I16(value) => self.number(value.to_le_bytes()),
            Value::U16(value) => self.number(value.to_le_bytes()),
            Value::I32(value) => self.number(value.to_le_bytes()),
            Value::U32(value) => self.number(value.to_le_bytes()),
            Value::I64(value) => self.number(value.to_le_bytes()),
            Value::U64(value) => self.number(value.to_le_bytes()),
            Value::F64(value) => self.number(value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Signature(text) => {
                self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.0.extend_from_slice(text.as_bytes());
                self.0.push(0);
            }
            Value::Array(element, values) => {
                self.align(4);
                let at = self.0.len();
                self.length(0);
                self.align(alignment(element));
                let start = self.0.len();
                for value in values {
                    self.write(value);
                }
                let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
                if let Some(slot) = self.0.get_mut(at..at + 4) {
                    slot.copy_from_slice(&length.to_le_bytes());
                }
            }
            Value::Struct(fields) => {
                self.align(8);
                for field in fields {
                    self.write(field);
                }
            }
            Value::Entry(key, value) => {
                self.align(8);
                self.write(key);
                self.write(value);
            }
            Value::Variant(inner) => {
                self.write(&Value::Signature(inner.signature()));
                self.write(inner);
            }
        }
    }
}

/// Reads what another program wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    pub(crate) big_endian: bool,
}

impl Reader<'_> {
    pub(crate) fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.align(N);
        let bytes = self.raw(N)?;
        let mut array = <[u8; N]>::try_from(bytes)?;
        if self.big_endian {
            array.reverse();
        }
        Ok(array)
    }

    fn raw(&mut self, length: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(length);
        let range = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(length);
        range.context("a D-Bus message ends early")
    }

    fn text(&mut self, length: usize) -> Result<String> {
        let text = std::str::from_utf8(self.raw(length)?)
            .context("a D-Bus message has text that is not UTF-8")?
            .to_owned();
        self.raw(1)?;
        Ok(text)
    }

    fn length(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.take()?).try_into()?)
    }

    /// Values of a signature in a row.
    pub(crate) fn read_all(&mut self, signature: &str) -> Result<Vec<Value>> {
        self.values(signature, 0)
    }

    fn values(&mut self, mut signature: &str, depth: usize) -> Result<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = first_type(signature, depth)?;
            values.push(self.read(first, depth)?);
            signature = rest;
        }
        Ok(values)
    }

    fn read(&mut self, signature: &str, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            bail!("a D-Bus value is nested too deeply");
        }
        let kind = signature.bytes().next().unwrap_or(0);
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match kind {
            b'y' => Value::Byte(u8::from_le_bytes(self.take()?)),
            b'b' => Value::Bool(u32::from_le_bytes(self.take()?) != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.take()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.take()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.take()?)),
            b'u' | b'h' => Value::U32(u32::from_le_bytes(self.take()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.take()?)),
            b't' => Value::U64(u64::from_le_bytes(self.take()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.take()?)),
            b's' | b'o' => {
                let length = self.length()?;
                let text = self.text(length)?;
                if kind == b's' {
                    Value::Text(text)
                } else {
                    Value::Path(text)
                }
            }
            b'g' => {
                let [length] = self.take::<1>()?;
                Value::Signature(self.text(length.into())?)
            }
            b'a' => {
                let length = self.length()?;
                self.align(alignment(inner));
                let end = self.at.saturating_add(length);
                if end > self.bytes.len() {
                    bail!("a D-Bus message ends early");
                }
                let mut values = Vec::new();
                while self.at < end {
                    values.push(self.read(inner, depth + 1)?);
                }
                Value::Array(inner.to_owned(), values)
            }
            b'(' => {
                self.align(8);
                let fields = inner.strip_suffix(')').unwrap_or(inner);
                Value::Struct(self.values(fields, depth + 1)?)
            }
            b'{' => {
                self.align(8);
                let both = inner.strip_suffix('}').unwrap_or(inner);
                let mut both = self.values(both, depth + 1)?.into_iter();
                match (both.next(), both.next(), both.next()) {
                    (Some(key), Some(value), None) => Value::Entry(key.into(), value.into()),
                    _ => bail!("invalid D-Bus signature {signature:?}"),
                }
            }
            b'v' => {
                let [length] = self.take::<1>()?;
                let signature = self.text(length.into())?;
                let (first, rest) = first_type(&signature, depth + 1)?;
                if !rest.is_empty() {
                    bail!("a D-Bus variant has several types: {signature:?}");
                }
                Value::Variant(self.read(first, depth + 1)?.into())
            }
            _ => bail!("invalid D-Bus signature {signature:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_then_read_is_the_same_in_every_type() {
        let values = vec![
            Value::Byte(7),
            Value::U64(1 << 40),
            Value::Bool(true),
            Value::I16(-3),
            Value::text("a text"),
            Value::Path("/a/b".to_owned()),
            Value::Array("(sv)".to_owned(), Vec::new()),
            Value::Array(
                "(sv)".to_owned(),
                vec![Value::Struct(vec![
                    Value::text("PIDs"),
                    Value::Variant(
                        Value::Array("u".to_owned(), vec![Value::U32(1), Value::U32(2)]).into(),
                    ),
                ])],
            ),
            Value::Array(
                "{sx}".to_owned(),
                vec![Value::Entry(Value::text("k").into(), Value::I64(-1).into())],
            ),
            Value::F64(1.5),
            Value::Signature("a{sv}".to_owned()),
        ];
        let mut writer = Writer::default();
        for value in &values {
            writer.write(value);
        }
        let signature = signature_of(&values);
        let mut reader = Reader {
            bytes: &writer.0,
            at: 0,
            big_endian: false,
        };
        assert_eq!(reader.read_all(&signature).expect("read"), values);
        for end in 0..writer.0.len() {
            let bytes = writer.0.get(..end).expect("shorter");
            let mut reader = Reader {
                bytes,
                at: 0,
                big_endian: false,
            };
            assert!(reader.read_all(&signature).is_err(), "{end}");
        }
    }

    #[test]
    fn read_all_damaged_signatures_are_refused() {
        let deep = "a".repeat(100) + "s";
        for bad in ["(", "(s", "a", "z", "{s}", deep.as_str()] {
            let mut reader = Reader {
                bytes: &[0; 64],
                at: 0,
                big_endian: false,
            };
            // Empty arrays of anything are read without their element.
            assert!(reader.read_all(bad).is_err() || bad == "{s}", "{bad}");
        }
    }
}
