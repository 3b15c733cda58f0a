//! From the arguments to a command: global flags, the command's name, its own arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::context::Context;
use crate::error::{CliError, ENGINE_ERROR};
use crate::parse::{self, Parsed};
use crate::{Hooks, daemon_start, help, output, tree};

/// Global flags and where the command starts.
#[derive(Debug, Default, PartialEq)]
struct Globals {
    host: Option<String>,
    debug: bool,
    version: bool,
    help: bool,
    rest: Vec<String>,
}

/// Runs the program.
pub(crate) fn run(args: Vec<OsString>, hooks: &Hooks) -> ExitCode {
    // What the daemon takes is its own business, and may be no UTF-8.
    if args.get(1).is_some_and(|arg| arg == "daemon") && args.get(2).is_none_or(|arg| arg != "stop")
    {
        return (hooks.daemon)(args.into_iter().skip(2).collect());
    }
    if args.get(1).is_some_and(|arg| arg == daemon_start::LAUNCH) {
        return daemon_start::launch();
    }
    match dispatch(args, hooks) {
        Ok(code) => ExitCode::from(code),
        Err(CliError::ClosedPipe) => ExitCode::SUCCESS,
        Err(CliError::Message { text, code }) => {
            if !text.is_empty() {
                output::error_line(&text);
            }
            ExitCode::from(code)
        }
    }
}

fn dispatch(args: Vec<OsString>, hooks: &Hooks) -> Result<u8, CliError> {
    let mut words = Vec::with_capacity(args.len());
    for arg in args.into_iter().skip(1) {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(arg) => {
                return Err(CliError::with_code(
                    format!("argument is not valid UTF-8: {}", arg.to_string_lossy()),
                    ENGINE_ERROR,
                ));
            }
        }
    }
    let globals = globals(words)?;
    if globals.version {
        output::line(&format!("Hull version {}", hooks.version))?;
        return Ok(0);
    }
    let mut rest = globals.rest;
    let mut wants_help = globals.help;
    if rest.first().is_some_and(|word| word == "help") {
        rest.remove(0);
        wants_help = true;
    }
    let Some(first) = rest.first().cloned() else {
        output::print(&help::program())?;
        return Ok(0);
    };
    let context = || Context::new(globals.host.as_deref(), globals.debug, hooks);
    let group = tree::GROUPS.iter().any(|(name, _)| *name == first);
    let (name, taken) = match rest.get(1) {
        Some(second) if group && !second.starts_with('-') => (format!("{first} {second}"), 2),
        None if group => {
            output::error_bytes(help::group(&first).as_bytes())?;
            return Ok(0);
        }
        Some(_) if group => {
            // `hull volume --help`, or a flag where a command should stand.
            let flag = rest.get(1).map_or("", String::as_str);
            if flag == "--help" || flag == "-h" {
                output::print(&help::group(&first))?;
                return Ok(0);
            }
            return Err(CliError::with_code(
                format!(
                    "unknown flag: {flag}\n\nUsage:  hull {first} COMMAND\n\nRun 'hull {first} --help' for more information"
                ),
                ENGINE_ERROR,
            ));
        }
        _ => (first.clone(), 1),
    };
    let Some(spec) = tree::find(&name) else {
        return Err(CliError::new(if group {
            format!(
                "hull: unknown command: hull {name}\n\nUsage:  hull {first} COMMAND\n\nRun 'hull {first} --help' for more information"
            )
        } else {
            format!("hull: unknown command: hull {name}\n\nRun 'hull --help' for more information")
        }));
    };
    let arguments = rest.get(taken..).unwrap_or_default();
    if wants_help {
        output::print(&help::command(spec, &name, &parse::build(spec)))?;
        return Ok(0);
    }
    match parse::parse(spec, &name, arguments)? {
        Parsed::Help(command) => {
            output::print(&help::command(spec, &name, &command))?;
            Ok(0)
        }
        Parsed::Matches(mut matches) => (spec.exec)(&context()?, &mut matches),
    }
}

/// Reads the flags before the command.
fn globals(words: Vec<String>) -> Result<Globals, CliError> {
    let mut out = Globals::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let unknown = |what: String| {
            CliError::with_code(
                format!(
                    "{what}\n\nUsage:  hull [OPTIONS] COMMAND [ARG...]\n\nRun 'hull --help' for more information"
                ),
                ENGINE_ERROR,
            )
        };
        if !word.starts_with('-') || word == "-" {
            out.rest.push(word);
            out.rest.extend(words);
            return Ok(out);
        }
        let (flag, attached) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None if !word.starts_with("--")
                && word.len() > 2
                && matches!(&word[..2], "-H" | "-l" | "-c") =>
            {
                (word[..2].to_owned(), Some(word[2..].to_owned()))
            }
            None => (word.clone(), None),
        };
        let mut value = || {
            attached.clone().or_else(|| words.next()).ok_or_else(|| {
                unknown(match flag.strip_prefix("--") {
                    Some(_) => format!("flag needs an argument: {flag}"),
                    None => format!("flag needs an argument: '{}' in {word}", &flag[1..]),
                })
            })
        };
        match flag.as_str() {
            "-H" | "--host" => out.host = Some(value()?),
            // Accepted so that scripts work unchanged; there is nothing for them to change.
            "-l" | "--log-level" | "-c" | "--context" | "--config" => {
                value()?;
            }
            "-D" | "--debug" => out.debug = true,
            "-v" | "--version" => out.version = true,
            "-h" | "--help" => out.help = true,
            _ if flag.starts_with("--") => return Err(unknown(format!("unknown flag: {flag}"))),
            _ => {
                let letter = flag.chars().nth(1).unwrap_or('-');
                return Err(unknown(format!(
                    "unknown shorthand flag: '{letter}' in {word}"
                )));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn globals_stop_at_the_command() {
        let parsed = globals(words(&["-D", "-H", "unix:///x", "run", "-H", "y"])).unwrap();
        assert_eq!(parsed.host.as_deref(), Some("unix:///x"));
        assert!(parsed.debug);
        assert_eq!(parsed.rest, words(&["run", "-H", "y"]));
        assert_eq!(
            globals(words(&["--host=unix:///y", "ps"]))
                .unwrap()
                .host
                .as_deref(),
            Some("unix:///y")
        );
        assert_eq!(
            globals(words(&["-Hunix:///z", "ps"]))
                .unwrap()
                .host
                .as_deref(),
            Some("unix:///z")
        );
    }

    #[test]
    fn globals_unknown_flag_exits_125() {
        match globals(words(&["--foo", "ps"])) {
            Err(CliError::Message { text, code }) => {
                assert_eq!(code, 125);
                assert!(text.starts_with("unknown flag: --foo\n"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command_builds_and_no_name_is_used_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for spec in tree::SPECS {
            parse::build(spec).debug_assert();
            for name in spec.names {
                assert!(seen.insert(*name), "{name}");
            }
        }
    }
}
