//! Device nodes and the rules of the device control group.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use hull_model::spec::Device;
use hull_model::{Error, Result};
use hull_proto::plan::{DeviceRule, PlanDevice};

use super::plan::{deny_all, node};

/// Most device nodes taken from one folder of the host.
const MAX_NODES: usize = 4096;

/// Nodes to make and what may be done with devices.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    /// Nodes.
    pub nodes: Vec<PlanDevice>,
    /// Rules in order.
    pub rules: Vec<DeviceRule>,
}

fn allow(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
    DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access: access.into(),
    }
}

impl Devices {
    /// What every container has: memory devices, terminals, and the right to make nodes that
    /// nobody can then open.
    pub(crate) fn default_set(privileged: bool) -> Self {
        let nodes = vec![
            node("/dev/null", 1, 3),
            node("/dev/zero", 1, 5),
            node("/dev/full", 1, 7),
            node("/dev/random", 1, 8),
            node("/dev/urandom", 1, 9),
            node("/dev/tty", 5, 0),
        ];
        if privileged {
            return Self {
                nodes,
                rules: vec![allow('a', None, None, "rwm")],
            };
        }
        let mut rules = vec![
            deny_all(),
            allow('c', None, None, "m"),
            allow('b', None, None, "m"),
        ];
        rules.extend(
            nodes
                .iter()
                .map(|n| allow('c', Some(n.major), Some(n.minor), "rwm")),
        );
        rules.push(allow('c', Some(5), Some(1), "rwm")); // console
        rules.push(allow('c', Some(5), Some(2), "rwm")); // ptmx
        rules.push(allow('c', Some(136), None, "rwm")); // pts
        Self { nodes, rules }
    }

    /// A device of the host, or all in a folder.
    ///
    /// # Errors
    /// If the path is missing or no device.
    pub(crate) fn add(&mut self, device: &Device) -> Result<()> {
        let path = Path::new(&device.host_path);
        let metadata = fs::metadata(path).map_err(|e| {
            Error::with_source(
                hull_model::ErrorKind::InvalidArgument,
                format!(
                    "error gathering device information while adding custom device \"{}\"",
                    device.host_path
                ),
                e,
            )
        })?;
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            &device.permissions
        };
        if access.bytes().any(|b| !b"rwm".contains(&b)) {
            return Err(Error::invalid(format!(
                "invalid device mode: {access}: want any of r, w and m"
            )));
        }
        let target = if device.container_path.is_empty() {
            &device.host_path
        } else {
            &device.container_path
        };
        if metadata.is_dir() {
            return self.add_folder(path, target, access);
        }
        let found = plan_device(&metadata, target)
            .ok_or_else(|| Error::invalid(format!("{}: not a device node", device.host_path)))?;
        self.push(found, access);
        Ok(())
    }

    fn add_folder(&mut self, path: &Path, target: &str, access: &str) -> Result<()> {
        let entries = fs::read_dir(path)
            .map_err(|e| Error::internal(format!("cannot read {}", path.display()), e))?;
        for entry in entries.flatten().take(MAX_NODES) {
            let name = entry.file_name();
            let inside = format!(
                "{}/{}",
                target.trim_end_matches('/'),
                name.to_string_lossy()
            );
            if let Some(found) = entry.metadata().ok().and_then(|m| plan_device(&m, &inside)) {
                self.push(found, access);
            }
        }
        Ok(())
    }

    /// Every node directly in the host's /dev, for privileged containers.
    pub(crate) fn add_all_of_host(&mut self) {
        let Ok(entries) = fs::read_dir("/dev") else {
            return;
        };
        for entry in entries.flatten().take(MAX_NODES) {
            let inside = format!("/dev/{}", entry.file_name().to_string_lossy());
            let skip = ["/dev/console", "/dev/ptmx"].contains(&inside.as_str());
            let found = entry.metadata().ok().and_then(|m| plan_device(&m, &inside));
            if let Some(found) =
                found.filter(|f| !skip && !self.nodes.iter().any(|n| n.path == f.path))
            {
                self.nodes.push(found);
            }
        }
    }

    fn push(&mut self, device: PlanDevice, access: &str) {
        let kind = if device.block { 'b' } else { 'c' };
        self.rules
            .push(allow(kind, Some(device.major), Some(device.minor), access));
        self.nodes.retain(|n| n.path != device.path);
        self.nodes.push(device);
    }
}

fn plan_device(metadata: &fs::Metadata, target: &str) -> Option<PlanDevice> {
    let kind = metadata.file_type();
    if !kind.is_char_device() && !kind.is_block_device() {
        return None;
    }
    Some(PlanDevice {
        path: target.to_owned(),
        block: kind.is_block_device(),
        fifo: false,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.permissions().mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Parses `c 1:3 rwm`, with `*` for all numbers.
///
/// # Errors
/// If it is not of that form.
pub(crate) fn parse_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || {
        Error::invalid(format!(
            "invalid device cgroup rule format: '{text}': want 'c 1:3 rwm'"
        ))
    };
    let mut parts = text.split_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |t: &str| {
        if t == "*" {
            Ok(None)
        } else {
            t.parse().map(Some).map_err(|_| wrong())
        }
    };
    let kind = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(wrong()),
    };
    if access.is_empty() || access.bytes().any(|b| !b"rwm".contains(&b)) {
        return Err(wrong());
    }
    Ok(allow(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_rule_malformed_is_refused() {
        assert_eq!(parse_rule("c 7:* rmw").unwrap().minor, None);
        for bad in ["", "c", "x 1:1 r", "c 1 r", "c 1:1 q", "c 1:1 r w"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fuse_is_denied_by_default() {
        let devices = Devices::default_set(false);
        assert!(!devices.rules.iter().any(|r| r.allow && r.major == Some(10)));
    }

    #[test]
    fn add_missing_or_plain_file_is_refused() {
        let device = |path: &str| Device {
            host_path: path.into(),
            container_path: String::new(),
            permissions: "rwm".into(),
        };
        let mut devices = Devices::default_set(false);
        assert!(devices.add(&device("/dev/does-not-exist")).is_err());
        assert!(devices.add(&device("/etc/passwd")).is_err());
        devices.add(&device("/dev/null")).unwrap();
        assert_eq!(
            devices
                .nodes
                .iter()
                .filter(|n| n.path == "/dev/null")
                .count(),
            1
        );
    }
}
