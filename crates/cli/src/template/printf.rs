//! Go's `fmt.Sprintf` for the verbs users write in templates.

use super::value::Value;

/// Widest field.
const MAX_WIDTH: usize = 4096;

/// Formats `arguments` as `format` says; mistakes show in the text, as in Go.
pub(super) fn format(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut next = 0;
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.peek().copied() {
            match flag {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                ' ' => flags.space = true,
                _ => break,
            }
            chars.next();
        }
        let mut number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            if chars.peek() == Some(&'*') {
                chars.next();
                let value = arguments.get(next);
                next += 1;
                return match value {
                    Some(Value::Int(width)) => usize::try_from(*width).ok(),
                    _ => None,
                };
            }
            let mut width: Option<usize> = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
                width = Some(
                    width
                        .unwrap_or(0)
                        .saturating_mul(10)
                        .saturating_add(digit as usize),
                );
                chars.next();
            }
            width
        };
        let width = number(&mut chars).unwrap_or(0).min(MAX_WIDTH);
        let precision = if chars.peek() == Some(&'.') {
            chars.next();
            Some(number(&mut chars).unwrap_or(0).min(MAX_WIDTH))
        } else {
            None
        };
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = arguments.get(next) else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        next += 1;
        let text = verb_text(verb, value, &flags, precision);
        pad(&mut out, &text, width, &flags);
    }
    if next < arguments.len() {
        let extra: Vec<String> = arguments[next..]
            .iter()
            .map(|value| format!("{}={}", value.kind(), value.display()))
            .collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
}

fn pad(out: &mut String, text: &str, width: usize, flags: &Flags) {
    let missing = width.saturating_sub(text.chars().count());
    if flags.left {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.zero {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}

fn verb_text(verb: char, value: &Value, flags: &Flags, precision: Option<usize>) -> String {
    match (verb, value) {
        ('v', value) => value.display(),
        ('s', Value::Str(text)) => match precision {
            Some(length) => text.chars().take(length).collect(),
            None => text.clone(),
        },
        ('s' | 'q', Value::List(items)) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| verb_text(verb, item, flags, precision))
                .collect();
            format!("[{}]", items.join(" "))
        }
        ('s', Value::Map(_)) => value.display(),
        ('q', Value::Str(text)) => crate::format::human::quote(text),
        ('d', Value::Int(number)) if flags.plus && *number >= 0 => format!("+{number}"),
        ('d', Value::Int(number)) if flags.space && *number >= 0 => format!(" {number}"),
        ('d', Value::Int(number)) => number.to_string(),
        ('x', Value::Int(number)) if *number < 0 => format!(
            "-{}{:x}",
            if flags.sharp { "0x" } else { "" },
            number.unsigned_abs()
        ),
        ('x', Value::Int(number)) => format!("{}{number:x}", if flags.sharp { "0x" } else { "" }),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('c', Value::Int(number)) => u32::try_from(*number)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        ('x', Value::Str(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f' | 'F', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        ('g', Value::Float(_)) => value.display(),
        ('e', Value::Float(number)) => format!("{number:.*e}", precision.unwrap_or(6)),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('T', value) => value.kind().to_owned(),
        (verb, Value::Nil | Value::Missing) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={})", value.kind(), value.display()),
    }
}
