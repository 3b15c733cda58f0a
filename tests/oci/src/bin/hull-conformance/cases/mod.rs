//! The cases, by part of the specification.

mod commands;
mod config;
mod groups;
mod hooks;
mod lifecycle;
mod mounts;
mod process;
mod refusals;
mod rootless;
mod seccomp;
mod terminals;

use hull_oci_tests::Runtime;
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
}

pub(crate) fn all() -> Vec<Case> {
    let mut all = config::cases();
    all.extend(process::cases());
    all.extend(mounts::cases());
    all.extend(groups::cases());
    all.extend(hooks::cases());
    all.extend(seccomp::cases());
    all.extend(commands::cases());
    all.extend(lifecycle::cases());
    all.extend(terminals::cases());
    all.extend(rootless::cases());
    all.extend(refusals::cases());
    all
}
