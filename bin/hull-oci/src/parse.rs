//! The translations by themselves, for fuzzers and tests of other packages.

use std::path::Path;

use anyhow::Result;
use hull_proto::LaunchPlan;

use crate::log::Said;
use crate::spec;

/// Translates a config.json as if it lay in `bundle`; opens the namespaces that it names by path.
/// A control group in systemd's notation is placed as with `--systemd-cgroup`.
///
/// # Errors
/// As `create` would say them.
pub fn config(bytes: &[u8], bundle: &Path) -> Result<LaunchPlan> {
    let mut said = Said::default();
    let spec = spec::parse_config(bytes, Path::new(spec::CONFIG_FILE), &mut said)?;
    let by_systemd = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .is_some_and(|path| path.to_string_lossy().matches(':').count() == 2);
    let mut done = spec::translate_spec(spec, bundle, "fuzz", Path::new("/nonexistent"), said)?;
    spec::place_cgroup(&done.spec, &mut done.plan, by_systemd)?;
    Ok(done.plan)
}

/// Translates a process.json as `exec` does.
///
/// # Errors
/// As `exec` would say them.
pub fn process(bytes: &[u8]) -> Result<hull_proto::plan::ProcessPlan> {
    let mut said = Said::default();
    let process = spec::parse_process(bytes, Path::new("process.json"), &mut said)?;
    spec::translate_process(&process, "process", &mut said)
}
