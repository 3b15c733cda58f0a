//! `features`: what a caller may put into a config.json, in the form of the specification's
//! features document.

use anyhow::{Context as _, Result};
use hull_seccomp::{ACTION_NAMES, ARCH_NAMES, FLAG_NAMES, OPERATOR_NAMES};
use hull_sys::caps::CapSet;
use serde_json::json;

use super::print;

const MOUNT_OPTIONS: [&str; 31] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "loud",
    "nodev",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "rbind",
    "relatime",
    "ro",
    "rprivate",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rw",
    "shared",
    "slave",
    "suid",
    "symfollow",
    "size",
    "mode",
    "newinstance",
];

pub(crate) fn features() -> Result<()> {
    // What needs a listener is refused, so it is not offered.
    let actions: Vec<_> = ACTION_NAMES
        .iter()
        .filter(|name| **name != "SCMP_ACT_NOTIFY")
        .collect();
    let flags: Vec<_> = FLAG_NAMES
        .iter()
        .filter(|name| !name.ends_with("WAIT_KILLABLE_RECV"))
        .collect();
    let document = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": [],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": CapSet::ALL.names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": actions,
                "operators": OPERATOR_NAMES,
                "archs": ARCH_NAMES,
                "knownFlags": FLAG_NAMES,
                "supportedFlags": flags,
            },
            "apparmor": { "enabled": false },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
        "annotations": { "org.hull.version": env!("CARGO_PKG_VERSION") },
    });
    let text = serde_json::to_string_pretty(&document).context("cannot write the features")?;
    print(&format!("{text}\n"))
}
