//! Errors and warnings: on standard error, and in the file callers such as containerd read.

use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::{Globals, LogFormat};

/// Where messages go.
pub(crate) struct Log {
    file: Option<(File, LogFormat)>,
}

impl Log {
    /// Standard error alone.
    pub(crate) fn stderr() -> Self {
        Self { file: None }
    }

    /// As the global options say.
    pub(crate) fn open(globals: &Globals) -> Result<Self> {
        let Some(path) = &globals.log else {
            return Ok(Self::stderr());
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open the log {}", path.display()))?;
        Ok(Self {
            file: Some((file, globals.log_format)),
        })
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    fn write(&self, level: &str, message: &str) {
        eprintln!("hull-oci: {level}: {message}");
        let Some((file, format)) = &self.file else {
            return;
        };
        let time = OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default();
        let line = match format {
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            LogFormat::Json => {
                let object = serde_json::json!({ "level": level, "msg": message, "time": time });
                format!("{object}\n")
            }
        };
        // A log that cannot be written must not change what the command does.
        let mut file = file;
        let _ = file.write_all(line.as_bytes());
    }
}
