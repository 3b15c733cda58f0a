//! The translations by themselves, for fuzzers and tests of other packages.

use std::path::Path;

use anyhow::Result;
use hull_proto::LaunchPlan;

use crate::spec;

/// Translates a config.json as if it lay in `bundle`; opens the namespaces that it names by path.
/// A control group in systemd's notation is placed as with `--systemd-cgroup`.
///
/// # Errors
/// As `create` would say them.
pub fn config(bytes: &[u8], bundle: &Path) -> Result<LaunchPlan> {
    let spec: oci_spec::runtime::Spec = spec::parse_json(bytes, Path::new(spec::CONFIG_FILE))?;
    let by_systemd = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .is_some_and(|path| path.to_string_lossy().matches(':').count() == 2);
    let mut done = spec::translate_spec(spec, bundle, "fuzz", Path::new("/nonexistent"))?;
    spec::place_cgroup(&done.spec, &mut done.plan, by_systemd)?;
    Ok(done.plan)
}

/// Translates a process.json as `exec` does.
///
/// # Errors
/// As `exec` would say them.
pub fn process(bytes: &[u8]) -> Result<hull_proto::plan::ProcessPlan> {
    let process = spec::parse_json(bytes, Path::new("process.json"))?;
    spec::translate_process(&process, "process", &mut Vec::new())
}
