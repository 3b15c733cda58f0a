//! Points in time as users write them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::clock::now_ns;

/// ns since 1970 of `1h30m` (ago), `1700000000[.5]`, or an RFC 3339 date.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if let Some(ago) = duration_ns(text) {
        return Some(now_ns() as i64 - ago);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.is_finite() && seconds.abs() < 9e9).then_some((seconds * 1e9) as i64);
    }
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|t| i64::try_from(t.unix_timestamp_nanos()).ok())
}

/// Go's durations: numbers with the units h, m, s, ms.
fn duration_ns(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (factor, tail) = [("ms", 1e6), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)]
            .iter()
            .find_map(|(unit, factor)| tail.strip_prefix(unit).map(|t| (*factor, t)))?;
        total += number * factor;
        rest = tail;
    }
    (!text.is_empty() && total < 9e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_of_mixed_units_is_their_sum() {
        assert_eq!(duration_ns("1h30m"), Some(5_400_000_000_000));
        assert_eq!(duration_ns("10ms"), Some(10_000_000));
        assert_eq!(duration_ns("10"), None);
        assert_eq!(duration_ns(""), None);
    }

    #[test]
    fn parse_date_and_seconds() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(parse("1.5"), Some(1_500_000_000));
        assert_eq!(parse("yesterday"), None);
    }
}
