//! `spec`: a config.json to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::cli::Spec;
use crate::spec::CONFIG_FILE;

/// A shell on a terminal, in namespaces of its own, on a read-only root.
pub(crate) const TEMPLATE: &str = include_str!("template.json");

pub(crate) fn spec(args: &Spec) -> Result<()> {
    let text = if args.rootless {
        rootless()?
    } else {
        TEMPLATE.to_owned()
    };
    let path = args
        .bundle
        .as_deref()
        .unwrap_or(Path::new("."))
        .join(CONFIG_FILE);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display())),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("file {} exists. Remove it first", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

/// The template for the calling user: his ids are root's inside, the network is the host's, and
/// nothing is asked for that takes the rights of root.
fn rootless() -> Result<String> {
    let mut spec: Value = serde_json::from_str(TEMPLATE).context("the template is damaged")?;
    let id = |outside: u32| json!([{ "containerID": 0, "hostID": outside, "size": 1 }]);
    let uids = id(rustix::process::geteuid().as_raw());
    let gids = id(rustix::process::getegid().as_raw());
    if let Some(linux) = spec.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("resources");
        linux.insert("uidMappings".to_owned(), uids);
        linux.insert("gidMappings".to_owned(), gids);
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({ "type": "user" }));
        }
    }
    if let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) {
        for mount in mounts {
            if mount["destination"] == "/sys" {
                // A sysfs belongs to a network namespace, which is not the container's.
                *mount = json!({
                    "destination": "/sys",
                    "type": "none",
                    "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "rro"],
                });
            } else if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
                options.retain(|option| {
                    let text = option.as_str().unwrap_or_default();
                    !text.starts_with("gid=") && !text.starts_with("uid=")
                });
            }
        }
    }
    let mut text = serde_json::to_string_pretty(&spec).context("cannot write the template")?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rootless_maps_the_caller_and_shares_the_network() {
        let spec: Value = serde_json::from_str(&rootless().expect("spec")).expect("json");
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], own);
        let namespaces = spec["linux"]["namespaces"].to_string();
        assert!(
            namespaces.contains("user") && !namespaces.contains("network"),
            "{namespaces}"
        );
        let mounts = spec["mounts"].to_string();
        assert!(
            !mounts.contains("gid=5") && mounts.contains("rro"),
            "{mounts}"
        );
        assert!(spec["linux"].get("resources").is_none());
    }
}
