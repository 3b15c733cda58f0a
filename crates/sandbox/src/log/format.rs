//! One line of a json-file log, byte for byte as Docker writes it.
//!
//! ```text
//! {"log":"hello\n","stream":"stdout","time":"2026-11-24T05:47:02.123456789Z"}
//! ```
//!
//! Strings are escaped as Go's `encoding/json` does: `<`, `>`, `&` and control characters as
//! `\u00xx`, U+2028 and U+2029 likewise, and each byte that is not UTF-8 as U+FFFD.

const HEX: [u8; 16] = *b"0123456789abcdef";
const NANOS: u64 = 1_000_000_000;
const SECONDS_A_DAY: u64 = 86_400;

/// Appends one log line; `whole` adds the newline that ended it.
pub(crate) fn line(
    out: &mut Vec<u8>,
    text: &[u8],
    whole: bool,
    stream: &str,
    time: &mut Clock,
    at_ns: u64,
) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    if whole {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    time.write(out, at_ns);
    out.extend_from_slice(b"\"}\n");
}

/// Appends text as the inside of a JSON string.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    while !text.is_empty() {
        match std::str::from_utf8(text) {
            Ok(valid) => {
                escape_valid(out, valid.as_bytes());
                return;
            }
            Err(error) => {
                let (valid, rest) = text.split_at(error.valid_up_to());
                escape_valid(out, valid);
                // Go replaces byte by byte, where Rust would replace a truncated sequence once.
                out.extend_from_slice(b"\\ufffd");
                text = rest.get(1..).unwrap_or_default();
            }
        }
    }
}

fn escape_valid(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let special = match byte {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => 1,
            // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
            0xe2 if matches!(text.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => 3,
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&text[plain..at]);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                let last = if text.get(at + 2) == Some(&0xa8) {
                    b'8'
                } else {
                    b'9'
                };
                out.extend_from_slice(b"\\u202");
                out.push(last);
            }
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
        }
        at += special;
        plain = at;
    }
    out.extend_from_slice(&text[plain..]);
}

/// Writes times as RFC 3339 with nanoseconds and without trailing zeros, and remembers the last
/// second so that a burst of lines does not compute the calendar again.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    second: Option<u64>,
    text: [u8; 19],
}

impl Clock {
    /// Appends the time, ns since 1970, in UTC.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, at_ns: u64) {
        let (second, nanos) = (at_ns / NANOS, at_ns % NANOS);
        if self.second != Some(second) {
            self.text = calendar(second);
            self.second = Some(second);
        }
        out.extend_from_slice(&self.text);
        if nanos > 0 {
            let mut digits = [0u8; 10];
            digits[0] = b'.';
            let mut rest = nanos;
            for digit in digits[1..].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let end = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
            out.extend_from_slice(&digits[..=end]);
        }
        out.push(b'Z');
    }
}

/// `2026-11-24T05:47:02` of a second since 1970.
fn calendar(second: u64) -> [u8; 19] {
    // Days since 0000-03-01, so that a leap day is the last of its year; 400 years are an era.
    let days = second / SECONDS_A_DAY + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let time = second % SECONDS_A_DAY;
    let mut text = *b"0000-00-00T00:00:00";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, time / 3600),
        (14, 2, time / 60 % 60),
        (17, 2, time % 60),
    ];
    for (start, width, mut value) in fields {
        for digit in text[start..start + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8], whole: bool, at_ns: u64) -> String {
        let mut out = Vec::new();
        line(
            &mut out,
            text,
            whole,
            "stdout",
            &mut Clock::default(),
            at_ns,
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn line_plain_text_is_dockers_record() {
        assert_eq!(
            written(b"hello", true, 1_795_499_222_123_456_700),
            "{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-24T05:47:02.1234567Z\"}\n"
        );
    }

    #[test]
    fn line_without_newline_keeps_it_absent() {
        assert!(written(b"x", false, 0).starts_with("{\"log\":\"x\",\"stream\""));
        assert!(written(b"x", false, 0).contains("\"1970-01-01T00:00:00Z\""));
    }

    #[test]
    fn escape_special_characters_as_go_does() {
        let text = "q\" b\\ <&> \t\r \u{1b}[0m é \u{2028}\u{2029} \u{20ac}\x7f".as_bytes();
        assert!(written(text, true, 0).contains(
            "q\\\" b\\\\ \\u003c\\u0026\\u003e \\u0009\\r \\u001b[0m é \\u2028\\u2029 €\x7f\\n"
        ));
    }

    #[test]
    fn escape_invalid_utf8_replaces_each_byte() {
        assert!(
            written(b"a\xff\xe2\x82b\xc3", true, 0)
                .contains("\"a\\ufffd\\ufffd\\ufffdb\\ufffd\\n\"")
        );
    }

    #[test]
    fn line_any_bytes_is_json_that_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        let value: serde_json::Value = serde_json::from_str(&written(&all, true, 5)).unwrap();
        assert!(value["log"].as_str().unwrap().ends_with("\u{fffd}\n"));
    }

    #[test]
    fn calendar_around_leap_days_is_right() {
        for (second, text) in [
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_767_225_599, "2025-12-31T23:59:59"),
        ] {
            assert_eq!(std::str::from_utf8(&calendar(second)).unwrap(), text);
        }
    }
}
