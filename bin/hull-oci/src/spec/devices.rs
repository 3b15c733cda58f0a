//! `linux.devices`, `rootfsPropagation`, `maskedPaths` and `readonlyPaths` of config.json.

use anyhow::{Context as _, Result, bail};
use hull_proto::LaunchPlan;
use hull_proto::plan::PlanDevice;
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::absolute;
use super::mounts::PROPAGATION;

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

/// Adds what `linux` says of the root file system to the plan.
pub(crate) fn translate(linux: &Linux, plan: &mut LaunchPlan) -> Result<()> {
    plan.devices = devices(linux)?;
    plan.masked_paths = paths("maskedPaths", linux.masked_paths().as_deref())?;
    plan.readonly_paths = paths("readonlyPaths", linux.readonly_paths().as_deref())?;
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    if !propagation.is_empty() && !PROPAGATION.contains(&propagation) {
        bail!(
            "config.json: linux.rootfsPropagation: {propagation:?} is none of {}",
            PROPAGATION.join(", ")
        );
    }
    // The default is not written: the plan stays as it is without.
    if !matches!(propagation, "private" | "rprivate") {
        propagation.clone_into(&mut plan.rootfs_propagation);
    }
    Ok(())
}

fn paths(name: &str, paths: Option<&[String]>) -> Result<Vec<String>> {
    let paths = paths.unwrap_or_default();
    for (index, path) in paths.iter().enumerate() {
        absolute(&format!("linux.{name}[{index}]"), path.as_ref())?;
    }
    Ok(paths.to_vec())
}

/// The specification's devices, and the default ones it does not replace.
fn devices(linux: &Linux) -> Result<Vec<PlanDevice>> {
    let mut devices: Vec<PlanDevice> = Vec::new();
    for (index, given) in linux.devices().iter().flatten().enumerate() {
        let device = device(given, index)?;
        if let Some(twin) = devices.iter().find(|known| known.path == device.path)
            && *twin != device
        {
            bail!(
                "config.json: linux.devices[{index}].path: {} is there twice, as different devices",
                device.path
            );
        }
        devices.push(device);
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
    let (block, fifo) = match device.typ() {
        LinuxDeviceType::B => (true, false),
        LinuxDeviceType::C | LinuxDeviceType::U => (false, false),
        LinuxDeviceType::P => (false, true),
        LinuxDeviceType::A => {
            bail!("config.json: {field}.type \"a\" is no device: one of b, c, u and p is");
        }
    };
    let number = |name: &str, value: i64| {
        if fifo {
            return Ok(0);
        }
        u32::try_from(value)
            .with_context(|| format!("config.json: {field}.{name} {value} is not a device number"))
    };
    Ok(PlanDevice {
        path: absolute(&format!("{field}.path"), device.path())?,
        block,
        fifo,
        major: number("major", device.major())?,
        minor: number("minor", device.minor())?,
        mode: device.file_mode().unwrap_or(DEFAULT_DEVICE_MODE) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<LaunchPlan> {
        let linux: Linux = serde_json::from_str(json).expect("json");
        let mut plan = LaunchPlan::default();
        translate(&linux, &mut plan).map(|()| plan)
    }

    #[test]
    fn translate_devices_of_all_types() {
        let plan = plan(
            r#"{"devices":[
                {"path":"/dev/a","type":"b","major":7,"minor":1,"fileMode":384,"uid":1,"gid":2},
                {"path":"/dev/x/u","type":"u","major":1,"minor":3},
                {"path":"/dev/p","type":"p"},
                {"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":438}]}"#,
        )
        .expect("plan");
        let kinds: Vec<_> = plan
            .devices
            .iter()
            .map(|device| (device.path.as_str(), device.block, device.fifo))
            .collect();
        assert_eq!(
            kinds[..4],
            [
                ("/dev/a", true, false),
                ("/dev/x/u", false, false),
                ("/dev/p", false, true),
                ("/dev/null", false, false),
            ]
        );
        assert_eq!(plan.devices.len(), 4 + DEFAULT_DEVICES.len() - 1);
        assert_eq!(plan.devices[0].mode, 0o600);
    }

    #[test]
    fn translate_propagation_default_is_not_written() {
        for (given, expected) in [
            ("private", ""),
            ("rprivate", ""),
            ("rslave", "rslave"),
            ("shared", "shared"),
            ("runbindable", "runbindable"),
        ] {
            let json = format!(r#"{{"rootfsPropagation":"{given}"}}"#);
            assert_eq!(plan(&json).expect("plan").rootfs_propagation, expected);
        }
    }

    #[test]
    fn translate_wrong_things_name_their_field() {
        for (json, part) in [
            (
                r#"{"devices":[{"path":"/dev/a","type":"a"}]}"#,
                "linux.devices[0].type",
            ),
            (
                r#"{"devices":[{"path":"dev","type":"c","major":1,"minor":1}]}"#,
                "linux.devices[0].path",
            ),
            (
                r#"{"devices":[{"path":"/dev/a","type":"c","major":-1,"minor":1}]}"#,
                "linux.devices[0].major -1",
            ),
            (
                r#"{"devices":[{"path":"/dev/a","type":"p"},{"path":"/dev/a","type":"c","major":1,"minor":1}]}"#,
                "linux.devices[1].path",
            ),
            (r#"{"rootfsPropagation":"peer"}"#, "linux.rootfsPropagation"),
            (r#"{"maskedPaths":["x"]}"#, "linux.maskedPaths[0]"),
            (r#"{"readonlyPaths":["/x","y"]}"#, "linux.readonlyPaths[1]"),
        ] {
            let error = plan(json).expect_err(json).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
