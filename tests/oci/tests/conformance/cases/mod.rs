//! The cases, by part of the specification.

mod commands;
mod config;
mod refusals;

use hull_oci_tests::{Kind, Runtime};
use serde_json::Value;

/// One item of the specification.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn(&Runtime) + Send + Sync>,
}

impl Case {
    pub(crate) fn new(name: &'static str, run: impl Fn(&Runtime) + Send + Sync + 'static) -> Self {
        let run = Box::new(run);
        Self { name, run }
    }

    /// A bundle with changes, its script, and what it prints: all of it, or what the line contains
    /// if that begins with `~`.
    pub(crate) fn says(
        name: &'static str,
        changes: Vec<(&'static str, Value)>,
        script: &'static str,
        expected: &'static str,
    ) -> Self {
        Self::new(name, move |runtime| {
            let said = runtime.script(&changes, script);
            match expected.strip_prefix('~') {
                Some(part) => assert!(said.contains(part), "said {said}"),
                None => assert_eq!(said.trim_end(), expected),
            }
        })
    }

    /// Why Debian's runc 1.1.5 or crun 1.8.1 does not pass, where that is known.
    pub(crate) fn lacking(&self, kind: Kind) -> Option<&'static str> {
        let list = match kind {
            Kind::Hull => return None,
            Kind::Runc => RUNC_LACKS,
            Kind::Crun => CRUN_LACKS,
        };
        list.iter()
            .find(|(prefix, _)| self.name.starts_with(prefix))
            .map(|&(_, reason)| reason)
    }
}

const RUNC_LACKS: &[(&str, &str)] = &[
    ("process.scheduler", "came with a later version"),
    ("process.ioPriority", "came with a later version"),
    ("domainname", "came with a later version"),
    ("linux.namespaces.time.", "came with a later version"),
    ("linux.personality", "came with a later version"),
    (
        "linux.rootfsPropagation",
        "cannot begin from an unbindable root",
    ),
    ("hooks.poststart", "runs it at create"),
    ("refused.ociVersion", "does not look at it"),
    ("refused.capability-unknown", "leaves it out"),
    ("refused.memory-policy", "does not know the field"),
];
const CRUN_LACKS: &[(&str, &str)] = &[
    ("linux.resources.", "runs without control groups here"),
    ("pause.", "runs without control groups here"),
    ("ps.", "runs without control groups here"),
    ("update.", "runs without control groups here"),
    ("failed.cpus", "runs without control groups here"),
    ("process.scheduler", "came with a later version"),
    ("process.ioPriority", "came with a later version"),
    ("linux.namespaces.time.", "fails on the offset"),
    ("mounts.propagation", "leaves a tmpfs private"),
    ("state.missing", "has other words"),
    ("log.json", "has other words"),
    ("exec.cwd-env-user", "loses PATH where --env is given"),
    ("events.", "has no such command"),
    ("features", "came with a later version"),
    ("refused.", "is lenient with contradictions"),
];

pub(crate) fn all() -> Vec<Case> {
    let mut all = config::cases();
    all.extend(commands::cases());
    all.extend(refusals::cases());
    all
}
