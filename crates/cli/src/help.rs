//! Help texts in the layout of Docker's.

use std::fmt::Write as _;

use clap::{ArgAction, Command};

use crate::spec::Spec;
use crate::tree;

/// Width where there is no terminal.
const DEFAULT_WIDTH: usize = 80;
/// Narrowest column of descriptions.
const MIN_DESCRIPTION: usize = 24;

/// Help of one command.
pub(crate) fn command(spec: &Spec, name: &str, command: &Command) -> String {
    let mut out = format!(
        "Usage:  hull {name}{}{}\n\n{}\n",
        if spec.usage.is_empty() { "" } else { " " },
        spec.usage,
        spec.about
    );
    if spec.names.len() > 1 {
        let forms: Vec<String> = spec
            .names
            .iter()
            .rev()
            .map(|name| format!("hull {name}"))
            .collect();
        let _ = write!(out, "\nAliases:\n  {}\n", forms.join(", "));
    }
    let options = options(command);
    if !options.is_empty() {
        let _ = write!(out, "\nOptions:\n{options}");
    }
    out
}

fn options(command: &Command) -> String {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for arg in command
        .get_arguments()
        .filter(|arg| !arg.is_positional() && !arg.is_hide_set())
    {
        let Some(long) = arg.get_long() else { continue };
        if long == "help" {
            continue;
        }
        let mut left = match arg.get_short() {
            Some(short) => format!("  -{short}, --{long}"),
            None => format!("      --{long}"),
        };
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
            && !arg.is_require_equals_set();
        if takes_value {
            let kind = arg
                .get_value_names()
                .and_then(|names| names.first())
                .map_or("string", |name| name.as_str());
            // Derive's default value name is the field's in capitals, which says nothing about the type.
            let kind = if kind.chars().any(char::is_uppercase) {
                "string"
            } else {
                kind
            };
            left.push(' ');
            left.push_str(kind);
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        rows.push((long.to_owned(), left, help));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let margin = rows
        .iter()
        .map(|row| row.1.chars().count())
        .max()
        .unwrap_or(0)
        + 3;
    let width = width();
    let mut out = String::new();
    for (_, left, help) in rows {
        let mut lines = wrap(&help, width.saturating_sub(margin).max(MIN_DESCRIPTION)).into_iter();
        let _ = writeln!(out, "{left:margin$}{}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{:margin$}{line}", "");
        }
    }
    out
}

/// Breaks a text at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => DEFAULT_WIDTH,
    }
}

/// Help of a group of commands.
pub(crate) fn group(group: &str) -> String {
    let about = tree::GROUPS
        .iter()
        .find(|(name, _)| *name == group)
        .map_or("", |(_, about)| about);
    let mut rows: Vec<(&str, &str)> = tree::SPECS
        .iter()
        .filter_map(|spec| {
            spec.names
                .iter()
                .filter_map(|name| name.split_once(' '))
                .find(|(first, _)| *first == group)
                .map(|(_, name)| (name, spec.about))
        })
        .collect();
    rows.sort_unstable();
    let mut out = format!("Usage:  hull {group} COMMAND\n\n{about}\n\nCommands:\n");
    list(&mut out, &rows);
    let _ = write!(
        out,
        "\nRun 'hull {group} COMMAND --help' for more information on a command.\n"
    );
    out
}

/// Help of the program.
pub(crate) fn program() -> String {
    const COMMON: [&str; 6] = ["run", "exec", "ps", "images", "version", "info"];
    let mut out = "Usage:  hull [OPTIONS] COMMAND\n\nA container engine: one command runs a container, one flag makes it a virtual machine\n\nCommon Commands:\n".to_owned();
    let find = |wanted: &str| {
        tree::SPECS
            .iter()
            .find(|spec| spec.names.contains(&wanted))
            .map(|spec| spec.about)
    };
    let common: Vec<(&str, &str)> = COMMON
        .iter()
        .filter_map(|name| find(name).map(|about| (*name, about)))
        .collect();
    list(&mut out, &common);
    out.push_str("\nManagement Commands:\n");
    list(&mut out, tree::GROUPS);
    out.push_str("\nCommands:\n");
    let mut rows: Vec<(&str, &str)> = tree::SPECS
        .iter()
        .filter_map(|spec| {
            spec.names
                .first()
                .filter(|name| !name.contains(' '))
                .map(|name| (*name, spec.about))
        })
        .filter(|(name, _)| !COMMON.contains(name))
        .collect();
    rows.sort_unstable();
    list(&mut out, &rows);
    out.push_str(
        "\nGlobal Options:\n  -D, --debug              Enable debug mode\n  -H, --host string        Daemon socket to connect to (unix://PATH, ssh://[USER@]HOST)\n  -l, --log-level string   Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\") (default \"info\")\n  -v, --version            Print version information and quit\n\nRun 'hull COMMAND --help' for more information on a command.\n",
    );
    out
}

fn list(out: &mut String, rows: &[(&str, &str)]) {
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(9) + 3;
    for (name, about) in rows {
        let _ = writeln!(
            out,
            "  {name:width$}{}",
            about.split(". ").next().unwrap_or_default()
        );
    }
}
