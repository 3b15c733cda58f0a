//! The command line of the usual commands, read without describing the others: to do so for all is
//! a good part of what a short command costs, and of the memory that it takes.

use std::ffi::OsString;

use clap::{ArgMatches, Args as _, Error, FromArgMatches as _, Parser as _};

use crate::cli::{Cli, Command, Create, Delete, Exec, Globals, Id, Kill, Run};

type Describe = fn(clap::Command) -> clap::Command;
type Take = fn(&ArgMatches) -> Result<Command, Error>;

/// Commands that an engine calls for each container.
const USUAL: [(&str, Describe, Take); 7] = [
    ("create", Create::augment_args, |matches| {
        Create::from_arg_matches(matches).map(Command::Create)
    }),
    ("start", Id::augment_args, |matches| {
        Id::from_arg_matches(matches).map(Command::Start)
    }),
    ("run", Run::augment_args, |matches| {
        Run::from_arg_matches(matches).map(Command::Run)
    }),
    ("exec", Exec::augment_args, |matches| {
        Exec::from_arg_matches(matches).map(Command::Exec)
    }),
    ("state", Id::augment_args, |matches| {
        Id::from_arg_matches(matches).map(Command::State)
    }),
    ("kill", Kill::augment_args, |matches| {
        Kill::from_arg_matches(matches).map(Command::Kill)
    }),
    ("delete", Delete::augment_args, |matches| {
        Delete::from_arg_matches(matches).map(Command::Delete)
    }),
];

/// Reads a command line, with the program's name in front.
pub(crate) fn read(words: Vec<OsString>) -> Result<Cli, Error> {
    match usual(&words) {
        Some(cli) => Ok(cli),
        // Other commands, and what is to be said of wrong ones, or as help.
        None => Cli::try_parse_from(words),
    }
}

/// The first word that names a usual command is tried as it. Where it is something else, such as
/// the value of an option, what follows is no option and no command that is known here.
fn usual(words: &[OsString]) -> Option<Cli> {
    let (name, describe, take) = words
        .iter()
        .skip(1)
        .find_map(|word| USUAL.iter().find(|(name, _, _)| word == *name))?;
    let command = Globals::augment_args(clap::Command::new("hull-oci"))
        .subcommand_required(true)
        .subcommand(describe(clap::Command::new(*name)));
    let matches = command.try_get_matches_from(words).ok()?;
    let globals = Globals::from_arg_matches(&matches).ok()?;
    let (_, matches) = matches.subcommand()?;
    Some(Cli::new(globals, take(matches).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        let all = std::iter::once("hull-oci").chain(line.split_whitespace());
        all.map(OsString::from).collect()
    }

    #[test]
    fn usual_commands_are_read_as_by_the_whole_description() {
        for line in [
            "create --bundle /b --pid-file p --preserve-fds 2 --no-pivot c",
            "--root /r --log l --log-format json --debug run -d --keep -b /b c",
            "--systemd-cgroup start c",
            "--rootless true exec -d --cap A --cap B -e X=1 -g 5 c ls -l -d --help",
            "exec --cgroup cpu:a --cgroup memory:b c sh",
            "state c",
            "kill --all c 9",
            "kill c -9",
            "delete --force c",
        ] {
            let quick = usual(&words(line)).unwrap_or_else(|| panic!("{line}"));
            let whole = Cli::try_parse_from(words(line)).expect(line);
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn usual_everything_else_is_left_to_the_whole_description() {
        for line in [
            "",
            "features",
            "--root run list",
            "--root exec state",
            "create --help",
            "create",
            "run --nonsense c",
            "delete c d",
            "--version run",
        ] {
            assert!(usual(&words(line)).is_none(), "{line}");
        }
        // Here the word in front is a value, and the command comes later.
        let line = "--root run run c";
        let quick = usual(&words(line)).expect(line);
        let whole = Cli::try_parse_from(words(line)).expect(line);
        assert_eq!(format!("{quick:?}"), format!("{whole:?}"));
    }
}
