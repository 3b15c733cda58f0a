//! `linux` of config.json.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::{Namespace, Namespaces, PlanDevice, SeccompPlan};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType};

use super::{absolute, device_rules, resources, unsupported};

/// Devices that every container has: path, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
const DEFAULT_DEVICE_MODE: u32 = 0o666;

/// Adds what `linux` says to the plan.
pub(crate) fn translate(
    linux: &Linux,
    plan: &mut LaunchPlan,
    fds: &mut Vec<OwnedFd>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    refuse_unsupported(linux)?;
    plan.namespaces = namespaces(linux, fds)?;
    plan.sysctls = linux
        .sysctl()
        .iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    plan.masked_paths = linux.masked_paths().clone().unwrap_or_default();
    plan.readonly_paths = linux.readonly_paths().clone().unwrap_or_default();
    plan.devices = devices(linux)?;
    if let Some(limits) = linux.resources() {
        resources::translate(limits, &mut plan.cgroup, warnings)?;
    }
    plan.cgroup.devices = device_rules::device_rules(linux.resources().as_ref())?;
    Ok(())
}

fn refuse_unsupported(linux: &Linux) -> Result<()> {
    let filled = |present: Option<bool>| present.unwrap_or(false);
    unsupported(
        "linux.uidMappings",
        filled(linux.uid_mappings().as_ref().map(|list| !list.is_empty())),
    )?;
    unsupported(
        "linux.gidMappings",
        filled(linux.gid_mappings().as_ref().map(|list| !list.is_empty())),
    )?;
    unsupported(
        "linux.netDevices",
        filled(linux.net_devices().as_ref().map(|map| !map.is_empty())),
    )?;
    unsupported(
        "linux.timeOffsets",
        filled(linux.time_offsets().as_ref().map(|map| !map.is_empty())),
    )?;
    unsupported(
        "linux.mountLabel",
        filled(linux.mount_label().as_ref().map(|label| !label.is_empty())),
    )?;
    unsupported("linux.intelRdt", linux.intel_rdt().is_some())?;
    unsupported("linux.memoryPolicy", linux.memory_policy().is_some())?;
    unsupported("linux.personality", linux.personality().is_some())?;
    match linux.rootfs_propagation().as_deref() {
        // The container's mounts are cut off from the host's.
        None | Some("" | "private" | "rprivate") => Ok(()),
        Some(other) => bail!(
            "config.json: linux.rootfsPropagation {other:?} is not supported, \"rprivate\" is"
        ),
    }
}

fn namespaces(linux: &Linux, fds: &mut Vec<OwnedFd>) -> Result<Namespaces> {
    let mut result = Namespaces {
        pid: Namespace::Host,
        ipc: Namespace::Host,
        uts: Namespace::Host,
        net: Namespace::Host,
        cgroup: Namespace::Host,
        ..Namespaces::default()
    };
    let mut has_mount = false;
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = namespace.typ();
        if seen.contains(&kind) {
            bail!("config.json: {field}: {kind} is there twice");
        }
        seen.push(kind);
        let path = namespace
            .path()
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty());
        let slot = match kind {
            LinuxNamespaceType::Pid => &mut result.pid,
            LinuxNamespaceType::Ipc => &mut result.ipc,
            LinuxNamespaceType::Uts => &mut result.uts,
            LinuxNamespaceType::Network => &mut result.net,
            LinuxNamespaceType::Cgroup => &mut result.cgroup,
            LinuxNamespaceType::Mount => {
                if path.is_some() {
                    bail!("config.json: {field}.path: joining a mount namespace is not supported");
                }
                has_mount = true;
                continue;
            }
            LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                bail!("config.json: {field}: a {kind} namespace is not supported");
            }
        };
        *slot = match path {
            None => Namespace::New,
            Some(path) => {
                absolute(&format!("{field}.path"), path)?;
                let file = File::open(path).with_context(|| {
                    format!("config.json: {field}.path: cannot open {}", path.display())
                })?;
                fds.push(OwnedFd::from(file));
                Namespace::Fd(fds.len() - 1)
            }
        };
    }
    if !has_mount {
        bail!(
            "config.json: linux.namespaces: a container without a mount namespace of its own is not supported"
        );
    }
    Ok(result)
}

/// The specification's devices, and the default ones it does not replace.
fn devices(linux: &Linux) -> Result<Vec<PlanDevice>> {
    let mut devices = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        devices.push(self::device(device, index)?);
    }
    for (path, major, minor) in DEFAULT_DEVICES {
        if !devices.iter().any(|device| device.path == path) {
            devices.push(PlanDevice {
                path: path.to_owned(),
                block: false,
                fifo: false,
                major,
                minor,
                mode: DEFAULT_DEVICE_MODE,
                uid: 0,
                gid: 0,
            });
        }
    }
    Ok(devices)
}

fn device(device: &LinuxDevice, index: usize) -> Result<PlanDevice> {
    let field = format!("linux.devices[{index}]");
    let block = match device.typ() {
        LinuxDeviceType::B => true,
        LinuxDeviceType::C | LinuxDeviceType::U => false,
        LinuxDeviceType::A | LinuxDeviceType::P => {
            bail!(
                "config.json: {field}.type {:?} is not supported, b, c and u are",
                device.typ().as_str()
            );
        }
    };
    let number = |name: &str, value: i64| {
        u32::try_from(value)
            .with_context(|| format!("config.json: {field}.{name} {value} is not a device number"))
    };
    Ok(PlanDevice {
        path: absolute(&format!("{field}.path"), device.path())?,
        block,
        fifo: false,
        major: number("major", device.major())?,
        minor: number("minor", device.minor())?,
        mode: device.file_mode().unwrap_or(DEFAULT_DEVICE_MODE) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// The filter; its own compiler checks the fields.
pub(crate) fn seccomp(linux: &Linux) -> Result<SeccompPlan> {
    let Some(seccomp) = linux.seccomp() else {
        return Ok(SeccompPlan::Unconfined);
    };
    let notifies = seccomp
        .syscalls()
        .iter()
        .flatten()
        .any(|rule| rule.action() == oci_spec::runtime::LinuxSeccompAction::ScmpActNotify);
    unsupported("linux.seccomp.syscalls: SCMP_ACT_NOTIFY", notifies)?;
    unsupported(
        "linux.seccomp.listenerPath",
        seccomp.listener_path().is_some(),
    )?;
    let text = serde_json::to_string(seccomp).context("cannot write the seccomp profile")?;
    hull_seccomp::Profile::parse(text.as_bytes()).context("config.json: linux.seccomp")?;
    Ok(SeccompPlan::Profile(text))
}
