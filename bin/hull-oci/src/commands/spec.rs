//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::cli::Spec;
use crate::spec::CONFIG_FILE;

/// A shell on a terminal, in namespaces of its own, on a read-only root.
pub(crate) const TEMPLATE: &str = include_str!("template.json");

pub(crate) fn spec(args: &Spec) -> Result<()> {
    if args.rootless {
        bail!("--rootless is not supported: user namespaces come later");
    }
    let path = args
        .bundle
        .as_deref()
        .unwrap_or(Path::new("."))
        .join(CONFIG_FILE);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file
            .write_all(TEMPLATE.as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("file {} exists. Remove it first", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}
