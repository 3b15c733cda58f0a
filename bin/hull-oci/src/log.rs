//! Errors and warnings, in the form in which callers such as containerd read runc's.
//!
//! Without `--log`, lines go to standard error. With it they go to the file, and errors, without
//! time and level, to standard error, too.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::{Globals, LogFormat};

/// What there is to say of a bundle that is taken all the same.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// What is not as the bundle has it.
    pub(crate) warnings: Vec<String>,
    /// What makes no difference, and many bundles have.
    pub(crate) details: Vec<String>,
}

impl Said {
    pub(crate) fn tell(&self, log: &Log) {
        for warning in &self.warnings {
            log.warn(warning);
        }
        for detail in &self.details {
            log.debug(detail);
        }
    }
}

/// Where messages go.
pub(crate) struct Log {
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// Standard error alone.
    pub(crate) fn stderr() -> Self {
        Self {
            file: None,
            format: LogFormat::Text,
            debug: false,
        }
    }

    /// As the global options say.
    pub(crate) fn open(globals: &Globals) -> Result<Self> {
        let path = globals
            .log
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        let open = |path: &std::path::PathBuf| {
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("cannot open the log {}", path.display()))
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            format: globals.log_format,
            debug: globals.debug,
        })
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let time = OffsetDateTime::now_utc()
            .replace_nanosecond(0)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .unwrap_or_default();
        let line = line(self.format, level, message, &time);
        // A log that cannot be written must not change what the command does.
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// One line of the log.
fn line(format: LogFormat, level: &str, message: &str, time: &str) -> String {
    match format {
        LogFormat::Text => {
            // Quoted as JSON, which unlike Rust's notation leaves quotes such as ' alone.
            let quoted = serde_json::Value::from(message);
            format!("time=\"{time}\" level={level} msg={quoted}\n")
        }
        LogFormat::Json => {
            let object = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{object}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_as_engines_read_it() {
        let text = line(LogFormat::Text, "error", "no \"x\"", "T");
        assert_eq!(text, "time=\"T\" level=error msg=\"no \\\"x\\\"\"\n");
        let json = line(LogFormat::Json, "error", "a\nb", "T");
        assert_eq!(
            json,
            "{\"level\":\"error\",\"msg\":\"a\\nb\",\"time\":\"T\"}\n"
        );
    }
}
