//! Amounts as people write them in settings: stretches of time and sizes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A stretch of time: `30d`, `1h30m`, `500ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

/// A number of bytes: `10G`, `10GB` and `10GiB` are the same, as for Docker's sizes of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

/// Units of time in milliseconds; the longer names first.
const TIMES: [(&str, u64); 6] = [
    ("ms", 1),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
];
const SIZES: [char; 6] = ['b', 'k', 'm', 'g', 't', 'p'];

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!(
                "invalid duration {text:?}: want one such as 30d, 12h or 1h30m"
            ))
        };
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(end);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let (unit, tail) = TIMES
                .iter()
                .find_map(|(name, unit)| tail.strip_prefix(name).map(|tail| (*unit, tail)))
                .ok_or_else(wrong)?;
            let part =
                Duration::try_from_secs_f64(number * unit as f64 / 1000.0).map_err(|_| wrong())?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

impl FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!(
                "invalid size {text:?}: want bytes, or a number with k, m, g or t"
            ))
        };
        let lower = text.trim().to_ascii_lowercase();
        let end = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start();
        let mut letters = unit.chars();
        let power = match letters.next() {
            None => 0,
            Some(letter) => SIZES
                .iter()
                .position(|known| *known == letter)
                .ok_or_else(wrong)?,
        };
        let rest = letters.as_str();
        if !(rest.is_empty() || power > 0 && matches!(rest, "b" | "ib")) {
            return Err(wrong());
        }
        let bytes = number * 1024f64.powi(i32::try_from(power).map_err(|_| wrong())?);
        // Beyond this no disk goes.
        if !bytes.is_finite() || bytes >= 9e18 {
            return Err(wrong());
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0");
        }
        for (name, unit) in [TIMES[2], TIMES[3], TIMES[4], TIMES[5], TIMES[0]] {
            if left / unit > 0 {
                write!(f, "{}{name}", left / unit)?;
                left %= unit;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<String> for Span {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Bytes {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_of_mixed_units_is_their_sum() {
        let seconds = |text: &str| text.parse::<Span>().map(|span| span.0.as_secs_f64());
        assert_eq!(seconds("1h30m").unwrap(), 5400.0);
        assert_eq!(seconds("2d").unwrap(), 172_800.0);
        assert_eq!(seconds("1w").unwrap(), 604_800.0);
        assert_eq!(seconds("1.5s").unwrap(), 1.5);
        assert_eq!(seconds("250ms").unwrap(), 0.25);
        assert_eq!(seconds("0").unwrap(), 0.0);
        for bad in ["", "5", "h", "-1h", "1y", "1h 1", "99999999999999999999w"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for text in ["1d12h", "90d", "1m1s", "5ms", "0"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bytes_are_counted_in_powers_of_1024() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0);
        assert_eq!(bytes("1024").unwrap(), 1024);
        assert_eq!(bytes("10G").unwrap(), 10 << 30);
        assert_eq!(bytes("10gb").unwrap(), 10 << 30);
        assert_eq!(bytes("10 GiB").unwrap(), 10 << 30);
        assert_eq!(bytes("1.5k").unwrap(), 1536);
        assert_eq!(bytes("7b").unwrap(), 7);
        for bad in ["", "g", "-1", "1x", "1bib", "1gx", "1e9", "9999999p"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
