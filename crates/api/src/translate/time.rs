//! Times as the API writes and reads them.
use std::time::{SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use hull_model::{Error, Result};

/// Go's zero time: it never happened.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";
const NS: i64 = 1_000_000_000;

/// Now, ns since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(i64::MAX)
}

/// Writes RFC 3339 with as many digits of the second as it needs; 0 is never.
pub(crate) fn rfc3339(ns: u64) -> String {
    if ns == 0 {
        return NEVER.to_owned();
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| NEVER.to_owned())
}

/// Reads RFC 3339 into Unix seconds; what is no time is 0.
pub(crate) fn unix_seconds(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}

/// Reads a point in time: Unix seconds with a fraction, RFC 3339, a date, or a span back from
/// now such as `1h30m`. "" and "0" are none.
///
/// # Errors
/// If it is none of these.
pub(crate) fn timestamp(name: &str, text: &str) -> Result<Option<i64>> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    unix(text)
        .or_else(|| calendar(text))
        .or_else(|| span(text).map(|ns| now_ns().saturating_sub(ns)))
        .map(Some)
        .ok_or_else(|| {
            Error::invalid(format!(
                "invalid value for {name:?}: {text:?}: want Unix seconds, RFC 3339 or a span such as 10m"
            ))
        })
}

fn unix(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    seconds
        .parse::<i64>()
        .ok()?
        .checked_mul(NS)?
        .checked_add(nanos)
}

fn calendar(text: &str) -> Option<i64> {
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ if text.ends_with('Z') || text.get(11..).is_some_and(|t| t.contains(['+', '-'])) => {
            text.to_owned()
        }
        _ => format!("{text}Z"),
    };
    let time = OffsetDateTime::parse(&whole, &Rfc3339).ok()?;
    time.unix_timestamp_nanos().try_into().ok()
}

/// Reads Go's durations: `300ms`, `1.5h`, `2h45m`.
fn span(text: &str) -> Option<i64> {
    let (text, sign) = text
        .strip_prefix('-')
        .map_or((text, 1.0), |rest| (rest, -1.0));
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += value.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (!text.is_empty() && total < 9e18).then_some((sign * total) as i64)
}

/// How long ago, for people, as Docker says it.
pub(crate) fn human(ns: i64) -> String {
    let seconds = ns.max(0) / NS;
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_each_form() {
        let want = Some(1_136_073_600 * NS);
        for text in [
            "1136073600",
            "1136073600.000000000",
            "2006-01-01T00:00:00Z",
            "2006-01-01",
            "2006-01-01T00:00",
            "2006-01-01T00:00:00",
            "2006-01-01T01:00:00+01:00",
        ] {
            assert_eq!(timestamp("since", text).unwrap(), want, "{text}");
        }
        assert_eq!(timestamp("since", "5.25").unwrap(), Some(5_250_000_000));
        assert_eq!(timestamp("since", "").unwrap(), None);
        let ago = now_ns() - timestamp("until", "1h30m").unwrap().unwrap();
        assert!((ago - 5400 * NS).abs() < NS, "{ago}");
        for bad in ["yesterday", "1x", "-", "2006-13-01", "99999999999999999999"] {
            assert!(timestamp("since", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_docker_does() {
        assert_eq!(rfc3339(0), NEVER);
        assert_eq!(rfc3339(1_136_073_600_500_000_000), "2006-01-01T00:00:00.5Z");
        assert_eq!(unix_seconds("2006-01-01T00:00:00.5Z"), 1_136_073_600);
        assert_eq!(unix_seconds("?"), 0);
    }

    #[test]
    fn spans_are_told_in_dockers_words() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (1_300_000, "2 weeks"),
        ] {
            assert_eq!(human(seconds * NS), want, "{seconds}");
        }
    }
}
