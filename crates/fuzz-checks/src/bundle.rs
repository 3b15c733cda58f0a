//! config.json and process.json: what is accepted holds together.

use std::path::{Component, Path};

use hull_oci::parse;
use hull_proto::LaunchPlan;
use hull_proto::plan::ProcessPlan;
use serde_json::Value;

use crate::harmless;

/// A config.json.
pub(crate) fn config(data: &[u8]) {
    let Some(bytes) = prepared(data, |value| {
        // A root that exists, for what comes after it.
        if let Some(path) = value.pointer_mut("/root/path") {
            *path = Value::from(".");
        }
    }) else {
        return;
    };
    if let Ok(plan) = parse::config(&bytes, Path::new(harmless::BUNDLE)) {
        holds_together(&plan);
    }
}

/// A process.json.
pub(crate) fn process(data: &[u8]) {
    let Some(bytes) = prepared(data, |_| {}) else {
        return;
    };
    if let Ok(plan) = parse::process(&bytes) {
        process_holds_together(&plan);
        let text = serde_json::to_vec(&plan).expect("a plan is JSON");
        let again: ProcessPlan = serde_json::from_slice(&text).expect("a plan is read again");
        assert_eq!(plan, again);
    }
}

/// The input as it is given to the translation. What is no JSON ends in the parser, which is not
/// ours.
fn prepared(data: &[u8], change: impl Fn(&mut Value)) -> Option<Vec<u8>> {
    let mut value = serde_json::from_slice::<Value>(data).ok()?;
    change(&mut value);
    harmless::make(&mut value);
    serde_json::to_vec(&value).ok()
}

/// What every accepted plan must be, whatever it was made from.
pub(crate) fn holds_together(plan: &LaunchPlan) {
    for mount in &plan.mounts {
        assert!(mount.target.starts_with('/'), "target {:?}", mount.target);
    }
    let group = Path::new(&plan.cgroup.path);
    assert!(group.is_absolute(), "group {group:?}");
    if let Some(unit) = &plan.cgroup.systemd {
        for (name, kinds) in [
            (&unit.slice, &[".slice"][..]),
            (&unit.unit, &[".scope", ".slice"]),
        ] {
            assert!(kinds.iter().any(|kind| name.ends_with(kind)), "{unit:?}");
            assert!(!name.contains('/') && name.len() < 256, "{unit:?}");
        }
    }
    assert!(
        group
            .components()
            .all(|part| !matches!(part, Component::ParentDir)),
        "group {group:?}"
    );
    for name in plan.sysctls.keys() {
        assert!(!name.contains(".."), "sysctl {name:?}");
    }
    for device in &plan.devices {
        assert!(device.path.starts_with('/'), "device {:?}", device.path);
        assert_eq!(device.mode & !0o7777, 0, "mode of {:?}", device.path);
    }
    for rule in &plan.cgroup.devices {
        assert!("abc".contains(rule.kind), "{rule:?}");
        assert!(
            rule.access.chars().all(|letter| "rwm".contains(letter)),
            "{rule:?}"
        );
    }
    process_holds_together(&plan.process);
    let text = serde_json::to_vec(plan).expect("a plan is JSON");
    let again: LaunchPlan = serde_json::from_slice(&text).expect("a plan is read again");
    assert_eq!(*plan, again);
}

fn process_holds_together(plan: &ProcessPlan) {
    assert!(!plan.args.is_empty(), "no program");
    assert!(plan.cwd.starts_with('/'), "cwd {:?}", plan.cwd);
    if let Some(score) = plan.oom_score_adj {
        assert!((-1000..=1000).contains(&score), "score {score}");
    }
    if let Some(priority) = &plan.io_priority {
        assert!(
            (1..=3).contains(&priority.class) && priority.level < 8,
            "{priority:?}"
        );
    }
}
