//! The command line. The daemon alone writes it, so there is no need for a parser library.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// Folder of the sandbox in the run folder.
    pub(crate) dir: PathBuf,
    /// Wait for the sandbox first; `dir` is then a placeholder of the same length.
    pub(crate) standby: bool,
    /// Say nothing on standard error.
    pub(crate) quiet: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let (mut dir, mut standby, mut quiet) = (None, false, false);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let name = arg.to_string_lossy().into_owned();
            let mut value = || args.next().with_context(|| format!("{name} needs a value"));
            match name.as_str() {
                "--dir" => dir = Some(PathBuf::from(value()?)),
                "--standby" => standby = true,
                "--log-level" => match value()?.to_str() {
                    Some("off" | "error") => quiet = true,
                    Some("warn" | "info" | "debug" | "trace") => quiet = false,
                    _ => bail!("--log-level is one of off, error, warn, info, debug, trace"),
                },
                _ => bail!("unknown argument {name}; this program is started by hull daemon"),
            }
        }
        let dir = dir.context("--dir is missing; this program is started by hull daemon")?;
        Ok(Self {
            dir,
            standby,
            quiet,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> anyhow::Result<Args> {
        Args::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn parse_all_arguments_reads_them() {
        let args = parse(&["--dir", "/run/x", "--standby", "--log-level", "off"]).unwrap();
        assert_eq!(
            args,
            Args {
                dir: "/run/x".into(),
                standby: true,
                quiet: true
            }
        );
    }

    #[test]
    fn parse_missing_or_unknown_is_refused() {
        for bad in [
            &[] as &[&str],
            &["--dir"],
            &["--nope"],
            &["--dir", "x", "--log-level", "loud"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
