//! `linux` of config.json.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::{PlanDevice, SeccompPlan};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::{absolute, device_rules, namespaces, resources, unsupported};

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
    namespaces::translate(linux, plan, fds)?;
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
        "linux.netDevices",
        filled(linux.net_devices().as_ref().map(|map| !map.is_empty())),
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
