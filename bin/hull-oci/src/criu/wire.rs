//! As much of the wire format of protocol buffers as CRIU's messages need.

/// Deepest tag that is taken: field numbers of CRIU are far below.
const MAX_VARINT_BYTES: u32 = 10;

/// A message in the making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

/// A field as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Message {
    pub(crate) fn number(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.varint(value.cast_unsigned());
    }

    /// Only if it is set: the default of all flags.
    pub(crate) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    pub(crate) fn text(&mut self, field: u32, value: &str) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    pub(crate) fn nested(&mut self, field: u32, value: &Self) {
        self.tag(field, 2);
        self.varint(value.0.len() as u64);
        self.0.extend(&value.0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn tag(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// All fields of a message, in order; none if it is damaged.
pub(crate) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut list = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            1 => Value::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return None,
        };
        list.push((tag >> 3, value));
    }
    Some(list)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for index in 0..MAX_VARINT_BYTES {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f).checked_shl(index * 7)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_built_message_are_those_put_in() {
        let mut inner = Message::default();
        inner.text(1, "key");
        inner.number(2, -1);
        let mut message = Message::default();
        message.number(1, 300);
        message.flag(2, true);
        message.flag(3, false);
        message.nested(27, &inner);
        let list = fields(message.bytes()).expect("whole");
        assert_eq!(
            list,
            [
                (1, Value::Number(300)),
                (2, Value::Number(1)),
                (27, Value::Bytes(inner.bytes()))
            ]
        );
        let list = fields(inner.bytes()).expect("whole");
        assert_eq!(list[1], (2, Value::Number(u64::MAX)));
    }

    #[test]
    fn fields_damaged_messages_are_none() {
        for bad in [&[0x08][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 12]] {
            assert_eq!(fields(bad), None, "{bad:?}");
        }
        assert_eq!(fields(&[]), Some(Vec::new()));
    }
}
