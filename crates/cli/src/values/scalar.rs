//! Booleans, numbers, sizes and durations as Go and Docker read them.

/// Nanoseconds in a second.
const SECOND: f64 = 1e9;

/// `strconv.ParseBool`.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// `strconv.ParseInt` with any base, as Go's flags read integers.
pub(crate) fn go_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match (
        lower.strip_prefix("0x"),
        lower.strip_prefix("0o"),
        lower.strip_prefix("0b"),
        lower.strip_prefix('0'),
    ) {
        (Some(hex), ..) => (16, hex),
        (_, Some(octal), ..) => (8, octal),
        (_, _, Some(binary), _) => (2, binary),
        (.., Some(octal)) if !octal.is_empty() => (8, octal),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        ));
    }
    let out_of_range = || format!("strconv.ParseInt: parsing {text:?}: value out of range");
    let value = i128::from_str_radix(digits, radix).map_err(|_| out_of_range())?;
    i64::try_from(if negative { -value } else { value }).map_err(|_| out_of_range())
}

/// Bytes: `512`, `64m`, `1.5g`, `10 MiB`.
pub(crate) fn size(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(invalid());
    }
    let value: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "ki" | "kib" => 1024.0,
        "m" | "mb" | "mi" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "p" | "pb" | "pi" | "pib" => 1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(invalid()),
    };
    let bytes = value * factor;
    if !bytes.is_finite() || bytes >= i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(bytes as i64)
}

/// Bytes, or -1 for no limit.
pub(crate) fn size_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { size(text) }
}

/// Billionths of a CPU: `1.5`.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let unreadable = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return Err(unreadable());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| unreadable())?
    };
    let nano: i64 = format!("{fraction:0<9}")
        .parse()
        .map_err(|_| unreadable())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|whole| whole.checked_add(nano))
        .ok_or_else(unreadable)
}

/// `time.ParseDuration`, in nanoseconds: `1h30m`, `500ms`, `1.5s`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let quoted = format!("{text:?}");
    let invalid = || format!("time: invalid duration {quoted}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.is_empty() || number == "." {
            return Err(invalid());
        }
        let value: f64 = number.parse().map_err(|_| invalid())?;
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => SECOND,
            "m" => 60.0 * SECOND,
            "h" => 3600.0 * SECOND,
            "" => return Err(format!("time: missing unit in duration {quoted}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {quoted}")),
        };
        total += value * factor;
        rest = next;
    }
    if total >= i64::MAX as f64 {
        return Err(invalid());
    }
    let total = total.round() as i64;
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_bool_and_int_speak_go() {
        assert_eq!(go_bool("True"), Ok(true));
        assert_eq!(
            go_bool("foo").unwrap_err(),
            "strconv.ParseBool: parsing \"foo\": invalid syntax"
        );
        assert_eq!(go_int("0x10"), Ok(16));
        assert_eq!(go_int("-1"), Ok(-1));
        assert_eq!(go_int("010"), Ok(8));
        assert_eq!(go_int("0"), Ok(0));
        assert_eq!(
            go_int("abc").unwrap_err(),
            "strconv.ParseInt: parsing \"abc\": invalid syntax"
        );
        assert!(
            go_int("99999999999999999999")
                .unwrap_err()
                .ends_with("value out of range")
        );
        assert!(go_int("").is_err());
    }

    #[test]
    fn size_takes_dockers_units() {
        assert_eq!(size("64m"), Ok(64 << 20));
        assert_eq!(size("1.5g"), Ok(3 << 29));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("100b"), Ok(100));
        assert_eq!(size("2KB"), Ok(2048));
        assert_eq!(size("abc").unwrap_err(), "invalid size: 'abc'");
        assert!(size("-1").is_err());
        assert!(size("1x").is_err());
        assert!(size("").is_err());
        assert!(size("999999999999p").is_err());
        assert_eq!(size_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn cpus_are_decimal() {
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("0.0000000001").unwrap_err(), "value is too precise");
        assert!(cpus("a").is_err());
        assert!(cpus("-1").is_err());
        assert!(cpus("").is_err());
    }

    #[test]
    fn duration_is_gos() {
        assert_eq!(duration("1h30m"), Ok(5_400_000_000_000));
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(duration("100ms"), Ok(100_000_000));
        assert_eq!(duration("-5s"), Ok(-5_000_000_000));
        assert_eq!(
            duration("5").unwrap_err(),
            "time: missing unit in duration \"5\""
        );
        assert_eq!(
            duration("5x").unwrap_err(),
            "time: unknown unit \"x\" in duration \"5x\""
        );
        assert_eq!(duration("").unwrap_err(), "time: invalid duration \"\"");
    }
}
