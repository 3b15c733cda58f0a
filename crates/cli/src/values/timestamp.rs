//! `--since` and `--until`: times, Unix seconds, or durations before now.

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

use super::scalar::duration;
use crate::error::CliError;

/// The time as the API takes it: Unix seconds with a fraction.
fn parse(text: &str) -> Result<String, String> {
    parse_at(text, OffsetDateTime::now_utc())
}

/// The value of a flag, where it is given.
pub(crate) fn flag(name: &str, value: Option<&str>) -> Result<Option<String>, CliError> {
    match value.filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => parse(value)
            .map(Some)
            .map_err(|error| CliError::new(format!("invalid value for {name:?}: {error}"))),
    }
}

fn parse_at(text: &str, now: OffsetDateTime) -> Result<String, String> {
    if let Ok(nanoseconds) = duration(text)
        && text != "0"
    {
        let at = now.unix_timestamp_nanos() - i128::from(nanoseconds);
        return Ok(seconds(at));
    }
    let numeric = text.split_once('.').map_or_else(
        || digits(text),
        |(whole, fraction)| digits(whole) && digits(fraction),
    );
    if numeric {
        return Ok(text.to_owned());
    }
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(seconds(time.unix_timestamp_nanos()));
    }
    // Without a zone the time is UTC.
    let date_time = [
        PrimitiveDateTime::parse(
            text,
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond]"),
        ),
        PrimitiveDateTime::parse(
            text,
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]"),
        ),
        PrimitiveDateTime::parse(
            text,
            format_description!("[year]-[month]-[day]T[hour]:[minute]"),
        ),
    ];
    if let Some(time) = date_time.into_iter().find_map(Result::ok) {
        return Ok(seconds(time.assume_utc().unix_timestamp_nanos()));
    }
    let date = text.strip_suffix('Z').unwrap_or(text);
    if let Ok(date) = Date::parse(date, format_description!("[year]-[month]-[day]")) {
        return Ok(seconds(date.midnight().assume_utc().unix_timestamp_nanos()));
    }
    Err(format!(
        "failed to parse value as time or duration: {text:?}"
    ))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit())
}

fn seconds(nanoseconds: i128) -> String {
    format!(
        "{}.{:09}",
        nanoseconds.div_euclid(1_000_000_000),
        nanoseconds.rem_euclid(1_000_000_000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_all_forms() {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let parse = |text| parse_at(text, now);
        assert_eq!(parse("42m").unwrap(), "1699997480.000000000");
        assert_eq!(parse("1700000000").unwrap(), "1700000000");
        assert_eq!(parse("1700000000.5").unwrap(), "1700000000.5");
        assert_eq!(
            parse("2023-11-14T22:13:20Z").unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(
            parse("2023-11-14T22:13:20").unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(parse("2023-11-14T22:13").unwrap(), "1699999980.000000000");
        assert_eq!(parse("2023-11-14").unwrap(), "1699920000.000000000");
        assert!(parse("yesterday").is_err());
    }
}
