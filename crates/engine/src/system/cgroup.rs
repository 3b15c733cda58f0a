//! Control groups without a shim: killed and removed by the daemon itself.

use hull_model::{Error, Result};
use hull_sys::cgroup::Hierarchies;
use hull_sys::features::Features;

/// Kills every process in a group and removes it; a group that is not there counts as done.
///
/// # Errors
/// If a process does not die or the group stays busy.
pub(crate) fn kill_and_remove(path: &str) -> Result<()> {
    let fail = |e| Error::internal(format!("cannot clear control group {path}"), e);
    let hierarchies = Hierarchies::detect().map_err(fail)?;
    if let Some(group) = hierarchies.open(path, Features::probe()).map_err(fail)? {
        group.kill_all().map_err(fail)?;
        group.remove().map_err(fail)?;
    }
    Ok(())
}

/// Names of the groups directly below a parent.
pub(crate) fn children(parent: &str) -> Vec<String> {
    let Ok(hierarchies) = Hierarchies::detect() else {
        return Vec::new();
    };
    hierarchies.children(parent)
}
