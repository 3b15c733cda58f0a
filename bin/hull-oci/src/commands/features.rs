//! `features`: what a caller may put into a config.json, in the form of the specification's
//! features document. It says what is known here, whatever the host can do of it.

use anyhow::{Context as _, Result};
use hull_seccomp::{ACTION_NAMES, ARCH_NAMES, FLAG_NAMES, OPERATOR_NAMES};
use hull_sys::caps::CapSet;
use serde_json::{Value, json};

use super::print;
use crate::cli::SPEC_VERSION;
use crate::spec;

/// Annotations that change what is done on the host: engines keep them from their users.
const UNSAFE_ANNOTATIONS: [&str; 1] = ["org.systemd.property."];

pub(crate) fn features() -> Result<()> {
    let text = serde_json::to_string_pretty(&document()).context("cannot write the features")?;
    print(&format!("{text}\n"))
}

fn document() -> Value {
    let mut options: Vec<String> = spec::option_words().collect();
    options.sort_unstable();
    options.dedup();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
        ],
        "mountOptions": options,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": CapSet::ALL.names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": ACTION_NAMES,
                "operators": OPERATOR_NAMES,
                "archs": ARCH_NAMES,
                "knownFlags": FLAG_NAMES,
                "supportedFlags": FLAG_NAMES,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE",
                    "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
                ],
                "flags": [
                    "MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES",
                ],
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            "org.hull.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_is_one_of_the_specification() {
        let text = document().to_string();
        let features: oci_spec::runtime::Features = serde_json::from_str(&text).expect("features");
        assert_eq!(features.oci_version_min(), "1.0.0");
        assert_eq!(features.hooks().as_ref().map(Vec::len), Some(6));
        let options = features.mount_options().clone().unwrap_or_default();
        for word in ["bind", "rro", "tmpcopyup", "idmap", "rprivate", "nosuid"] {
            assert!(options.iter().any(|option| option == word), "{word}");
        }
    }
}
