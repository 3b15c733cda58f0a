//! Changes of JSON that keep it JSON: a fuzzer that knows bytes alone seldom gets past the parser.

use serde_json::{Map, Value};

/// Numbers at which something often breaks.
const NUMBERS: [i128; 20] = [
    -1,
    0,
    1,
    2,
    31,
    64,
    100,
    1000,
    1024,
    10_000,
    65_535,
    65_536,
    i32::MAX as i128,
    i32::MIN as i128,
    u32::MAX as i128,
    u32::MAX as i128 + 1,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128,
    4_294_967_294,
];
/// Texts at which something often breaks.
const TEXTS: [&str; 20] = [
    "",
    "/",
    ".",
    "..",
    "/..",
    "a/../b",
    "//",
    "\0",
    "a\0b",
    "-1",
    "0",
    "max",
    ":",
    ",",
    "=",
    "a:b:c",
    "\u{fffd}é",
    "/proc/self/fd/9",
    "0-3,7",
    "18446744073709551616",
];
/// Deeper than any field of a bundle.
const MAX_DEPTH: usize = 24;

/// A small generator of numbers (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn new(seed: u32) -> Self {
        let mut numbers = Self(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Small seeds have to spread over the whole state first.
        for _ in 0..8 {
            numbers.next();
        }
        numbers
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len()))
    }
}

/// A changed copy of a JSON text, or nothing if it is none. `other` is a second text to take parts of.
#[must_use]
pub fn json(data: &[u8], other: Option<&[u8]>, seed: u32) -> Option<Vec<u8>> {
    let mut root: Value = serde_json::from_slice(data).ok()?;
    let donor: Option<Value> = other.and_then(|bytes| serde_json::from_slice(bytes).ok());
    let mut numbers = Numbers::new(seed);
    for _ in 0..=numbers.below(3) {
        let count = nodes(&root);
        let mut at = numbers.below(count);
        let gift = match &donor {
            Some(donor) if numbers.below(3) == 0 => {
                let mut at = numbers.below(nodes(donor));
                nth(donor, &mut at).cloned()
            }
            _ => {
                let mut at = numbers.below(count);
                nth(&root, &mut at).cloned()
            }
        };
        if let Some(node) = nth_mut(&mut root, &mut at) {
            change(node, gift, &mut numbers);
        }
    }
    serde_json::to_vec(&root).ok()
}

/// A changed copy of bytes that are no JSON: a byte or a number here and there, a part twice or not
/// at all.
#[must_use]
pub fn bytes(data: &[u8], seed: u32) -> Vec<u8> {
    let mut out = data.to_vec();
    let mut numbers = Numbers::new(seed);
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(out.len());
        let len = numbers.below(40).min(out.len() - at);
        match numbers.below(6) {
            0 => drop(out.drain(at..at + len)),
            1 => {
                let part = out.get(at..at + len).unwrap_or_default().to_vec();
                out.splice(at..at, part);
            }
            2 => {
                let text = numbers.pick(&TEXTS).copied().unwrap_or_default();
                let end = (at + text.len()).min(out.len());
                out.splice(at..end, text.bytes());
            }
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte = u8::try_from(numbers.below(256)).unwrap_or(0);
                }
            }
        }
    }
    out
}

fn change(node: &mut Value, gift: Option<Value>, numbers: &mut Numbers) {
    if numbers.below(5) == 0
        && let Some(gift) = gift.clone().filter(|gift| depth(gift) < MAX_DEPTH / 2)
    {
        *node = gift;
        return;
    }
    match node {
        Value::Null => *node = Value::Bool(true),
        Value::Bool(value) => *value = !*value,
        Value::Number(_) => *node = number(node, numbers),
        Value::String(text) => change_text(text, numbers),
        Value::Array(list) => change_list(list, gift, numbers),
        Value::Object(map) => change_map(map, gift, numbers),
    }
}

fn number(old: &Value, numbers: &mut Numbers) -> Value {
    let was = old
        .as_i64()
        .map(i128::from)
        .or_else(|| old.as_u64().map(i128::from))
        .unwrap_or(0);
    let new = match numbers.below(5) {
        0 => was + 1,
        1 => was - 1,
        2 => was ^ (1 << numbers.below(64)),
        3 => -was,
        _ => numbers.pick(&NUMBERS).copied().unwrap_or(0),
    };
    u64::try_from(new)
        .map(Value::from)
        .or_else(|_| i64::try_from(new).map(Value::from))
        .unwrap_or(Value::from(0.5))
}

fn change_text(text: &mut String, numbers: &mut Numbers) {
    let characters: Vec<char> = text.chars().collect();
    let at = numbers.below(characters.len() + 1);
    let (head, tail) = characters.split_at(at);
    let (head, tail): (String, String) = (head.iter().collect(), tail.iter().collect());
    let piece = numbers.pick(&TEXTS).copied().unwrap_or_default();
    *text = match numbers.below(6) {
        0 => piece.to_owned(),
        1 => format!("{head}{piece}{tail}"),
        2 => head,
        3 => tail,
        4 => format!("{tail}{head}"),
        _ => format!("{head}{}", tail.chars().skip(1).collect::<String>()),
    };
}

fn change_list(list: &mut Vec<Value>, gift: Option<Value>, numbers: &mut Numbers) {
    let at = numbers.below(list.len());
    match numbers.below(4) {
        0 if !list.is_empty() => drop(list.remove(at)),
        1 if !list.is_empty() => list.extend(list.get(at).cloned()),
        2 if list.len() > 1 => list.swap(0, at),
        _ => list.extend(gift.filter(|gift| depth(gift) < MAX_DEPTH / 2)),
    }
}

fn change_map(map: &mut Map<String, Value>, gift: Option<Value>, numbers: &mut Numbers) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let Some(key) = numbers.pick(&keys) else {
        return;
    };
    match (numbers.below(3), gift) {
        (0, _) => drop(map.remove(key)),
        (1, Some(gift)) if depth(&gift) < MAX_DEPTH / 2 => drop(map.insert(key.clone(), gift)),
        _ => {
            if let (Some(value), Some(other)) = (map.get(key).cloned(), numbers.pick(&keys)) {
                map.insert(other.clone(), value);
            }
        }
    }
}

/// Parts of a value, itself among them.
fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn nth<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter().find_map(|part| nth(part, at)),
        Value::Object(map) => map.values().find_map(|part| nth(part, at)),
        _ => None,
    }
}

fn nth_mut<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|part| nth_mut(part, at)),
        Value::Object(map) => map.values_mut().find_map(|part| nth_mut(part, at)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_changes_keep_it_json_and_differ() {
        let text = br#"{"a":[1,2,{"b":"c"}],"d":{"e":null,"f":-7},"g":true}"#;
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..2_000 {
            let changed = json(text, Some(b"[\"x\",9]"), seed).expect("json");
            serde_json::from_slice::<Value>(&changed).expect("still json");
            seen.insert(changed);
        }
        assert!(seen.len() > 200, "{}", seen.len());
        assert_eq!(json(b"{", None, 1), None);
    }
}
