//! The daemon's limit of open files: each published port and each running container needs some.

use hull_model::Ulimit;
use hull_sys::rlimit::{self, Limit};

const NOFILE: &str = "nofile";

/// Raises the soft limit of this process to its hard one. Gives back what it was, for the
/// containers: programs that close every possible descriptor suffer from a high soft limit.
pub(crate) fn raise() -> Option<Ulimit> {
    let resource = rlimit::from_name(NOFILE)?;
    let old = rlimit::get(resource).ok()?;
    let raised = Limit {
        soft: old.hard,
        hard: old.hard,
    };
    if let Err(error) = rlimit::set(resource, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files: many published ports may exhaust it");
    }
    let number = |n: u64| i64::try_from(n).unwrap_or(-1);
    Some(Ulimit {
        name: NOFILE.into(),
        soft: number(old.soft),
        hard: number(old.hard),
    })
}

/// Adds the limit to a process that has none of its own.
pub(crate) fn inherit(rlimits: &mut Vec<Ulimit>, limit: Option<&Ulimit>) {
    if let Some(limit) = limit.filter(|l| !rlimits.iter().any(|own| own.name == l.name)) {
        rlimits.push(limit.clone());
    }
}
