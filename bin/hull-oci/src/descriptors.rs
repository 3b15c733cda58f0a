//! Descriptors of the caller that the program gets: `--preserve-fds`, and those of socket
//! activation (sd_listen_fds(3)), which come first.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use hull_proto::plan::ProcessPlan;

/// Most descriptors passed on.
const MAX_FDS: u32 = 1024;

/// How many from 3 on the program gets; the plan's environment tells it of those that listen.
pub(crate) fn preserved(wanted: u32, plan: &mut ProcessPlan) -> Result<u32> {
    let listening = listening()?;
    if listening > 0 {
        plan.env.push(format!("LISTEN_FDS={listening}"));
        // In its pid namespace; one without has no use for them.
        plan.env.push("LISTEN_PID=1".to_owned());
    }
    let count = wanted.saturating_add(listening);
    if count > MAX_FDS {
        bail!("--preserve-fds {wanted} is more than {MAX_FDS}");
    }
    for number in 3..count + 3 {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            bail!("--preserve-fds {wanted}: descriptor {number} is not open");
        }
    }
    Ok(count)
}

fn listening() -> Result<u32> {
    let own = std::process::id().to_string();
    match (std::env::var("LISTEN_FDS"), std::env::var("LISTEN_PID")) {
        (Ok(count), Ok(pid)) if pid == own => count
            .parse()
            .with_context(|| format!("LISTEN_FDS={count} is no number")),
        _ => Ok(0),
    }
}
