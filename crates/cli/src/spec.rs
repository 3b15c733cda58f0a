//! What a command is: its names, its help, how many arguments it takes, and what runs it.

use clap::ArgMatches;

use crate::context::Context;
use crate::error::CliError;

/// How many positional arguments a command takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arity {
    /// None.
    None,
    /// Exactly so many.
    Exactly(usize),
    /// So many or more.
    AtLeast(usize),
    /// So many or fewer.
    AtMost(usize),
    /// Between the two.
    Between(usize, usize),
    /// Any number.
    Any,
}

/// A command of the tree.
pub(crate) struct Spec {
    /// Every form it is called by; the first is the shortest.
    pub(crate) names: &'static [&'static str],
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// How many arguments it takes.
    pub(crate) arity: Arity,
    /// Adds its arguments to a clap command.
    pub(crate) build: fn(clap::Command) -> clap::Command,
    /// Runs it and gives the exit code.
    pub(crate) exec: fn(&Context, &mut ArgMatches) -> Result<u8, CliError>,
}

/// Declares a command: `command!(Args, run, names = [..], usage = "..", about = "..", arity = ..)`.
macro_rules! command {
    ($args:ty, $run:path, names = [$($name:literal),+ $(,)?], usage = $usage:literal, about = $about:literal, arity = $arity:expr $(,)?) => {
        /// This command's entry in the tree.
        pub(crate) static SPEC: $crate::spec::Spec = $crate::spec::Spec {
            names: &[$($name),+],
            usage: $usage,
            about: $about,
            arity: $arity,
            build: <$args as clap::Args>::augment_args,
            exec: |context, matches| {
                let args = <$args as clap::FromArgMatches>::from_arg_matches_mut(matches)
                    .map_err(|error| $crate::error::CliError::with_code(error.to_string(), $crate::error::ENGINE_ERROR))?;
                context.block_on($run(context, args))
            },
        };
    };
}

pub(crate) use command;

impl Arity {
    /// Checks a count; the error is Docker's.
    pub(crate) fn check(self, count: usize, name: &str, usage: &str) -> Result<(), CliError> {
        let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
        let (what, pointer) = match self {
            Self::None if count > 0 => ("accepts no arguments".to_owned(), "Run"),
            Self::Exactly(n) if count != n => (format!("requires {n} {}", plural(n)), "Run"),
            Self::AtLeast(n) if count < n => {
                (format!("requires at least {n} {}", plural(n)), "See")
            }
            Self::AtMost(n) if count > n => (format!("requires at most {n} {}", plural(n)), "Run"),
            Self::Between(low, high) if count < low || count > high => (
                format!(
                    "requires at least {low} and at most {high} {}",
                    plural(high)
                ),
                "Run",
            ),
            _ => return Ok(()),
        };
        Err(CliError::new(format!(
            "hull: 'hull {name}' {what}\n\nUsage:  hull {name}{}{usage}\n\n{pointer} 'hull {name} --help' for more information",
            if usage.is_empty() { "" } else { " " }
        )))
    }
}
