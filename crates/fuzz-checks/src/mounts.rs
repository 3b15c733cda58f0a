//! `mounts` of config.json: of options that say the opposite, the last one counts.

use std::path::Path;

use hull_oci::parse;
use serde_json::{Value, json};

use crate::bundle::holds_together;
use crate::harmless;

/// (attribute, sets, clears): options that have been undone by the other one if it comes later.
/// The attributes are `MOUNT_ATTR_*`.
const PAIRS: [(u64, &[&str], &[&str]); 4] = [
    (1, &["ro"], &["rw"]),
    (2, &["nosuid"], &["suid"]),
    (4, &["nodev"], &["dev"]),
    (8, &["noexec"], &["exec"]),
];

/// A list of mounts.
pub(crate) fn check(data: &[u8]) {
    let Ok(mut mounts) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    harmless::make(&mut mounts);
    let config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "."},
        "process": {"args": ["x"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
        ]},
        "mounts": mounts,
    });
    let bytes = serde_json::to_vec(&config).expect("JSON");
    let Ok(plan) = parse::config(&bytes, Path::new(harmless::BUNDLE)) else {
        return;
    };
    holds_together(&plan);
    let given = mounts.as_array().map(Vec::as_slice).unwrap_or_default();
    assert_eq!(plan.mounts.len(), given.len());
    for (planned, given) in plan.mounts.iter().zip(given) {
        let options: Vec<&str> = given
            .get("options")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let flags = &planned.options;
        let found = [flags.read_only, flags.nosuid, flags.nodev, flags.noexec];
        for ((bit, sets, clears), found) in PAIRS.iter().zip(found) {
            // What the kind of mount has by itself, then what was asked for.
            let found = (found || flags.set & bit != 0) && flags.clear & bit == 0;
            if (flags.recursive_set | flags.recursive_clear) & bit != 0 {
                continue;
            }
            let last = options
                .iter()
                .rev()
                .find(|option| sets.contains(option) || clears.contains(option));
            if let Some(last) = last {
                assert_eq!(
                    found,
                    sets.contains(last),
                    "{last} of {options:?}: {flags:?}"
                );
            }
        }
    }
}
