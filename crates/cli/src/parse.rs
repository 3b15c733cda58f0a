//! Parses one command's arguments with clap, under the rules and with the messages of Docker's flags.
//!
//! Differences from clap's own rules: boolean flags take `=true` and `=false`, a later flag overrides an
//! earlier one, values may start with a dash, and `-h` is no help flag.

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::error::{CliError, ENGINE_ERROR};
use crate::spec::Spec;

/// Name of the positional arguments in every command.
pub(crate) const POSITIONALS: &str = "args";

/// What parsing came to.
pub(crate) enum Parsed {
    /// Run the command.
    Matches(Box<ArgMatches>),
    /// `--help` was asked for.
    Help(Box<Command>),
}

/// Builds the clap command of `spec`.
pub(crate) fn build(spec: &Spec) -> Command {
    let command = Command::new("hull")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args_override_self(true);
    (spec.build)(command)
        .mut_args(|arg| {
            if arg.is_positional() {
                return arg;
            }
            match arg.get_action() {
                ArgAction::SetTrue => boolean(arg),
                ArgAction::Set | ArgAction::Append if !arg.is_require_equals_set() => {
                    arg.allow_hyphen_values(true)
                }
                _ => arg,
            }
        })
        .arg(
            Arg::new("help")
                .long("help")
                .help("Print usage")
                .action(ArgAction::Help),
        )
}

/// Go's boolean flag: alone it is true, `=VALUE` sets it.
fn boolean(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .value_parser(ValueParser::from(
            crate::values::scalar::go_bool as fn(&str) -> Result<bool, String>,
        ))
}

/// Parses `args` for `spec`, called as `name`.
pub(crate) fn parse(spec: &Spec, name: &str, args: &[String]) -> Result<Parsed, CliError> {
    let mut command = build(spec);
    match command.try_get_matches_from_mut(args) {
        Ok(matches) => {
            let count = matches
                .try_get_many::<String>(POSITIONALS)
                .ok()
                .flatten()
                .map_or(0, Iterator::count);
            spec.arity.check(count, name, spec.usage)?;
            Ok(Parsed::Matches(Box::new(matches)))
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Parsed::Help(Box::new(command))),
        Err(error) if spec_takes_none(spec) && unexpected_positional(&error) => {
            spec.arity.check(1, name, spec.usage)?;
            Err(CliError::with_code(error.to_string(), ENGINE_ERROR))
        }
        Err(error) => Err(CliError::with_code(
            format!(
                "{}\n\nUsage:  hull {name}{}{}\n\nRun 'hull {name} --help' for more information",
                describe(&command, &error, args),
                if spec.usage.is_empty() { "" } else { " " },
                spec.usage
            ),
            ENGINE_ERROR,
        )),
    }
}

fn spec_takes_none(spec: &Spec) -> bool {
    matches!(spec.arity, crate::spec::Arity::None)
}

fn unexpected_positional(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::UnknownArgument
        && context(error, ContextKind::InvalidArg).is_some_and(|arg| !arg.starts_with('-'))
}

fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// The message of Go's flag package for what clap found.
fn describe(command: &Command, error: &clap::Error, args: &[String]) -> String {
    let invalid = context(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => match invalid.strip_prefix("--") {
            Some(_) => format!(
                "unknown flag: {}",
                invalid.split('=').next().unwrap_or(invalid)
            ),
            None => {
                let letter = invalid.chars().nth(1).unwrap_or('-');
                let cluster = args.iter().find(|arg| {
                    arg.starts_with('-') && !arg.starts_with("--") && arg.contains(letter)
                });
                let rest = cluster
                    .and_then(|cluster| cluster.find(letter).and_then(|at| cluster.get(at..)));
                match rest {
                    Some(rest) => format!("unknown shorthand flag: '{letter}' in -{rest}"),
                    None => format!("unknown shorthand flag: '{letter}' in {invalid}"),
                }
            }
        },
        ErrorKind::ValueValidation => {
            let value = context(error, ContextKind::InvalidValue).unwrap_or_default();
            let reason = std::error::Error::source(error)
                .map(ToString::to_string)
                .unwrap_or_default();
            format!(
                "invalid argument {} for \"{}\" flag: {reason}",
                crate::format::human::quote(value),
                flag_names(command, invalid)
            )
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::TooFewValues => {
            let long = invalid.split([' ', '=']).next().unwrap_or(invalid);
            match args.last() {
                Some(last) if last.starts_with("--") || !last.starts_with('-') => {
                    format!("flag needs an argument: {long}")
                }
                Some(last) => {
                    let letter = find(command, long).and_then(Arg::get_short).unwrap_or('-');
                    format!("flag needs an argument: '{letter}' in {last}")
                }
                None => format!("flag needs an argument: {long}"),
            }
        }
        _ => error.to_string(),
    }
}

/// The flag that clap shows as `--name <value>` or `-n <value>`.
fn find<'a>(command: &'a Command, shown: &str) -> Option<&'a Arg> {
    let flag = shown.split([' ', '=', '[']).next().unwrap_or(shown);
    command
        .get_arguments()
        .find(|arg| match flag.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => {
                arg.get_short().is_some()
                    && arg.get_short()
                        == flag.strip_prefix('-').and_then(|rest| rest.chars().next())
            }
        })
}

fn flag_names(command: &Command, shown: &str) -> String {
    match find(command, shown) {
        Some(arg) => match (arg.get_short(), arg.get_long()) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (None, Some(long)) => format!("--{long}"),
            _ => shown.to_owned(),
        },
        None => shown.to_owned(),
    }
}
