//! The bar that Docker's server draws for clients which do not draw their own.

use hull_api_types::progress::ProgressDetail;

/// Signs of the bar.
const WIDTH: usize = 50;
const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
/// Significant digits of a size.
const DIGITS: usize = 4;

/// A bar with sizes, such as `[==>   ]  1.2MB/3.4MB`; empty for what has no size.
pub(super) fn bar(detail: &ProgressDetail) -> String {
    let (current, total) = (detail.current, detail.total);
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return format!("{:>8}", size(current));
    }
    let part = i128::from(current.clamp(0, total)) * WIDTH as i128 / i128::from(total);
    let done = usize::try_from(part).unwrap_or(0).min(WIDTH);
    format!(
        "[{}>{}] {:>8}/{}",
        "=".repeat(done),
        " ".repeat(WIDTH - done),
        size(current),
        size(total)
    )
}

/// Decimal units, four digits, no zeros at the end.
fn size(bytes: i64) -> String {
    let mut value = bytes.max(0) as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let whole = format!("{value:.0}").len();
    let text = format!("{value:.*}", DIGITS.saturating_sub(whole));
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(current: i64, total: i64) -> String {
        bar(&ProgressDetail {
            current,
            total,
            ..ProgressDetail::default()
        })
    }

    #[test]
    fn bar_of_a_half_is_dockers() {
        let expected = format!("[{}>{}]   1.05MB/2.1MB", "=".repeat(25), " ".repeat(25));
        assert_eq!(of(1_050_000, 2_100_000), expected);
        assert_eq!(of(1_234, 0), " 1.234kB");
        assert_eq!(of(0, 0), "");
        assert!(of(5, 5).starts_with(&format!("[{}>] ", "=".repeat(50))));
        assert!(of(i64::MAX, 1).contains("9.223EB/1B"));
    }
}
