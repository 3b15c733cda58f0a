//! Sizes, durations and times as Docker prints them for people.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `%.{precision}g` of C and Go: significant digits, no trailing zeros, exponent for large numbers.
pub(crate) fn general(value: f64, precision: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let exponent: i32 = scientific
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    let trim = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= precision as i32 {
        let mantissa = scientific.split('e').next().unwrap_or_default();
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}

fn scaled(size: f64, base: f64, units: &[&str], precision: usize) -> String {
    let mut value = size;
    let mut index = 0;
    while value >= base && index + 1 < units.len() {
        value /= base;
        index += 1;
    }
    format!(
        "{}{}",
        general(value, precision),
        units.get(index).copied().unwrap_or_default()
    )
}

/// A size in decimal units with three digits: `1.23MB`.
pub(crate) fn size(bytes: i64) -> String {
    scaled(
        bytes as f64,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
        3,
    )
}

/// A size in decimal units with four digits: `1.234MB`.
pub(crate) fn size4(bytes: f64) -> String {
    scaled(
        bytes,
        1000.0,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
        4,
    )
}

/// A size in binary units with four digits: `1.205MiB`.
pub(crate) fn binary_size(bytes: f64) -> String {
    scaled(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
        4,
    )
}

/// A duration: `5 seconds`, `About an hour`, `3 weeks`.
pub(crate) fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0 + 0.5).floor() as i64;
    match seconds {
        s if s < 1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < 60 => format!("{s} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        s => format!("{} years", s / 3600 / 24 / 365),
    }
}

/// `duration` since a time in Unix seconds, with `ago`.
pub(crate) fn ago(unix: i64, now: i64) -> String {
    format!("{} ago", duration(now.saturating_sub(unix)))
}

/// Now, in Unix seconds.
pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// `2006-01-02 15:04:05 +0000 UTC`, as Go prints a time in UTC.
pub(crate) fn timestamp(unix: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(unix) {
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} +0000 UTC",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => String::new(),
    }
}

/// RFC 3339 of a time in Unix seconds: `2006-01-02T15:04:05Z`.
pub(crate) fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// An RFC 3339 time as Go prints it: `2006-01-02 15:04:05.999999999 +0000 UTC`.
pub(crate) fn go_time(text: &str) -> String {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(t) => {
            let whole = timestamp(t.unix_timestamp());
            match t.nanosecond() {
                0 => whole,
                nanoseconds => {
                    let fraction = format!("{nanoseconds:09}");
                    whole.replacen(" +", &format!(".{} +", fraction.trim_end_matches('0')), 1)
                }
            }
        }
        Err(_) => text.to_owned(),
    }
}

/// Go's quoting of a string.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// At most `width` characters, the last of them `…` where something was left out.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// The short form of an id: twelve digits, without its algorithm.
pub(crate) fn short_id(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    digits.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_prints_three_digits_as_docker() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1000), "1kB");
        assert_eq!(size(1234), "1.23kB");
        assert_eq!(size(4_261_573), "4.26MB");
        assert_eq!(size(187_000_000), "187MB");
        assert_eq!(size(1_234_567_890), "1.23GB");
        assert_eq!(size(999_999), "1e+03kB");
    }

    #[test]
    fn binary_size_prints_four_digits_as_docker_stats() {
        assert_eq!(binary_size(1024.0), "1KiB");
        assert_eq!(binary_size(1_263_616.0), "1.205MiB");
        assert_eq!(binary_size(25_198_354_432.0), "23.47GiB");
    }

    #[test]
    fn duration_follows_dockers_words() {
        assert_eq!(duration(0), "Less than a second");
        assert_eq!(duration(1), "1 second");
        assert_eq!(duration(59), "59 seconds");
        assert_eq!(duration(60), "About a minute");
        assert_eq!(duration(119), "About a minute");
        assert_eq!(duration(120), "2 minutes");
        assert_eq!(duration(3600), "About an hour");
        assert_eq!(duration(7200), "2 hours");
        assert_eq!(duration(47 * 3600), "47 hours");
        assert_eq!(duration(48 * 3600), "2 days");
        assert_eq!(duration(14 * 24 * 3600), "2 weeks");
        assert_eq!(duration(60 * 24 * 3600), "2 months");
        assert_eq!(duration(3 * 365 * 24 * 3600), "3 years");
    }

    #[test]
    fn quote_and_ellipsis() {
        assert_eq!(quote("a \"b\"\n"), "\"a \\\"b\\\"\\n\"");
        assert_eq!(
            ellipsis("docker-entrypoint.sh nginx", 20),
            "docker-entrypoint.s…"
        );
        assert_eq!(ellipsis("short", 20), "short");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }

    #[test]
    fn timestamp_is_gos() {
        assert_eq!(timestamp(1_700_000_000), "2023-11-14 22:13:20 +0000 UTC");
        assert_eq!(
            go_time("2023-11-14T22:13:20.0500Z"),
            "2023-11-14 22:13:20.05 +0000 UTC"
        );
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
