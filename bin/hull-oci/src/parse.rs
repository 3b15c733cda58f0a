//! The translations by themselves, for fuzzers and tests of other packages.

use std::path::Path;

use anyhow::Result;
use hull_proto::LaunchPlan;

use crate::spec;

/// Translates a config.json as if it lay in `bundle`; opens the namespaces that it names by path.
///
/// # Errors
/// As `create` would say them.
pub fn config(bytes: &[u8], bundle: &Path) -> Result<LaunchPlan> {
    let spec = spec::parse_json(bytes, Path::new(spec::CONFIG_FILE))?;
    spec::translate_spec(spec, bundle, "fuzz", Path::new("/nonexistent")).map(|done| done.plan)
}

/// Translates a process.json as `exec` does.
///
/// # Errors
/// As `exec` would say them.
pub fn process(bytes: &[u8]) -> Result<hull_proto::plan::ProcessPlan> {
    let process = spec::parse_json(bytes, Path::new("process.json"))?;
    spec::translate_process(&process, "process", &mut Vec::new())
}
