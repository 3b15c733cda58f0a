//! What hull/hello prints: the walls around it, as seen from inside.

mod address;
mod limits;

use std::fs;
use std::process::ExitCode;

use hull_sys::caps::CapSet;
use rustix::time::Timespec;

use crate::say;
use limits::Limits;

/// When the engine got the request for this container: CLOCK_REALTIME in microseconds.
const REQUEST_TIME: &str = "HULL_REQUEST_TIME_US";
/// Set to `vm` where the kernel belongs to the sandbox.
const ISOLATION: &str = "HULL_ISOLATION";

/// A start that takes longer is no start but a wrong clock or a stale variable.
const MAX_START_US: i64 = 600_000_000;

/// Columns before the values.
const LABEL_WIDTH: usize = 16;
/// Columns of a line of text.
const LINE_WIDTH: usize = 80;

/// Prints the report.
pub(crate) fn run(started: Timespec) -> ExitCode {
    let isolated_by_vm = is_vm();
    let mut report = Report::default();
    report.text("Hello from Hull!\n\nThis process looked around. What it sees:\n");
    if isolated_by_vm {
        report.row("isolation", "vm: a kernel of its own");
    } else {
        report.row(
            "isolation",
            "container: namespaces and control groups of a shared kernel",
        );
    }
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let owner = if isolated_by_vm {
        "the guest's own"
    } else {
        "the host's"
    };
    report.row("kernel", &format!("Linux {release}, {owner}"));
    report.row("process id", &rustix::process::getpid().to_string());
    let limits = Limits::read();
    report.row("memory", &limits.memory_text());
    report.row("cpu", &limits.cpu_text());
    report.row("processes", &limits.processes_text());
    report.row("capabilities", &capabilities());
    report.row("address", &address());
    report.row("started in", &start_time(started));
    report.text("\nNext, a throw-away copy of this very machine:  hull run --rm -it host bash\n");
    say(&report.0);
    ExitCode::SUCCESS
}

fn is_vm() -> bool {
    std::env::var_os(ISOLATION).is_some_and(|value| value == "vm")
        || fs::read_to_string("/proc/cmdline").is_ok_and(|line| {
            line.split_ascii_whitespace()
                .any(|word| word == "hull.isolation=vm")
        })
}

fn capabilities() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    let Some(bits) = bits else {
        return "unknown: /proc/self/status does not say".to_owned();
    };
    let names = |set: CapSet| -> Vec<String> {
        let short = |name: &String| name.trim_start_matches("CAP_").to_ascii_lowercase();
        set.names().iter().map(short).collect()
    };
    let held = names(CapSet::from_bits(bits));
    let missing = names(CapSet::from_bits(!bits));
    match (held.len(), missing.len()) {
        (0, _) => "none".to_owned(),
        (count, 0) => format!("all {count}"),
        (count, lacking) if lacking < count => format!("all but {}", missing.join(" ")),
        (count, _) => format!("{count}: {}", held.join(" ")),
    }
}

fn address() -> String {
    match address::read() {
        Ok(list) if list.is_empty() => "none, only the loopback".to_owned(),
        Ok(list) => list.join(", "),
        Err(errno) => format!("unknown: {errno}"),
    }
}

fn start_time(started: Timespec) -> String {
    let requested = std::env::var(REQUEST_TIME)
        .ok()
        .and_then(|value| value.parse::<i64>().ok());
    let now = started
        .tv_sec
        .saturating_mul(1_000_000)
        .saturating_add(started.tv_nsec / 1000);
    match requested.map(|requested| now.saturating_sub(requested)) {
        Some(micros) if (0..=MAX_START_US).contains(&micros) => {
            format!(
                "{} µs, from the request to the first instruction",
                grouped(micros)
            )
        }
        Some(_) => format!("unknown: {REQUEST_TIME} does not fit the clock"),
        None => "unknown: the engine left no time of the request".to_owned(),
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The text so far.
#[derive(Default)]
struct Report(String);

impl Report {
    fn text(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// A label and its value, broken between words and kept in the value's column.
    fn row(&mut self, label: &str, value: &str) {
        self.0.push_str(&format!("  {label:LABEL_WIDTH$}"));
        let mut column = LABEL_WIDTH + 2;
        for (at, word) in value.split(' ').enumerate() {
            let width = word.chars().count();
            if at > 0 && column + 1 + width > LINE_WIDTH {
                self.0.push_str(&format!("\n{:1$}", "", LABEL_WIDTH + 2));
                column = LABEL_WIDTH + 2;
            } else if at > 0 {
                self.0.push(' ');
                column += 1;
            }
            self.0.push_str(word);
            column += width;
        }
        self.0.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_numbers_get_commas() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1234), "1,234");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn row_long_value_stays_in_its_column() {
        let mut report = Report::default();
        report.row("capabilities", &"word ".repeat(40));
        for line in report.0.lines() {
            assert!(line.chars().count() <= LINE_WIDTH, "{line:?}");
            assert_eq!(line.find("word"), Some(LABEL_WIDTH + 2));
        }
    }
}
