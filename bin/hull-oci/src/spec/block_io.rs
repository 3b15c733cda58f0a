//! `linux.resources.blockIO` of config.json.

use anyhow::{Context as _, Result, bail};
use hull_proto::oci::DeviceLimit;
use hull_proto::plan::CgroupPlan;
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

const FIELD: &str = "config.json: linux.resources.blockIO";

/// Weights of block I/O.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Adds weights and throttles to the plan.
pub(crate) fn translate(io: &LinuxBlockIo, plan: &mut CgroupPlan) -> Result<()> {
    plan.resources.blkio_weight = weight("weight", io.weight())?;
    let extra = &mut plan.extra;
    extra.blkio_leaf_weight = weight("leafWeight", io.leaf_weight())?;
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        let name = format!("weightDevice[{index}]");
        let (major, minor) = numbers(&name, device.major(), device.minor())?;
        let both = [
            ("weight", device.weight(), &mut extra.blkio_weight_device),
            (
                "leafWeight",
                device.leaf_weight(),
                &mut extra.blkio_leaf_weight_device,
            ),
        ];
        for (part, value, list) in both {
            if let Some(value) = weight(&format!("{name}.{part}"), value)? {
                let value = value.into();
                list.push(DeviceLimit {
                    major,
                    minor,
                    value,
                });
            }
        }
    }
    let throttles = |name: &str, list: &Option<Vec<LinuxThrottleDevice>>| {
        let mut limits = Vec::new();
        for (index, device) in list.iter().flatten().enumerate() {
            let name = format!("{name}[{index}]");
            let (major, minor) = numbers(&name, device.major(), device.minor())?;
            let value = device.rate();
            limits.push(DeviceLimit {
                major,
                minor,
                value,
            });
        }
        anyhow::Ok(limits)
    };
    extra.blkio_read_bps = throttles("throttleReadBpsDevice", io.throttle_read_bps_device())?;
    extra.blkio_write_bps = throttles("throttleWriteBpsDevice", io.throttle_write_bps_device())?;
    extra.blkio_read_iops = throttles("throttleReadIOPSDevice", io.throttle_read_iops_device())?;
    extra.blkio_write_iops = throttles("throttleWriteIOPSDevice", io.throttle_write_iops_device())?;
    Ok(())
}

/// 0 says nothing.
fn weight(name: &str, value: Option<u16>) -> Result<Option<u16>> {
    match value.filter(|value| *value != 0) {
        Some(value) if !WEIGHTS.contains(&value) => {
            bail!(
                "{FIELD}.{name} {value}: {} to {}",
                WEIGHTS.start(),
                WEIGHTS.end()
            )
        }
        value => Ok(value),
    }
}

fn numbers(name: &str, major: i64, minor: i64) -> Result<(u32, u32)> {
    let number = |part: &str, value: i64| {
        u32::try_from(value)
            .with_context(|| format!("{FIELD}.{name}.{part} {value} is not a device number"))
    };
    Ok((number("major", major)?, number("minor", minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Result<CgroupPlan> {
        let io: LinuxBlockIo = serde_json::from_str(text).expect("JSON");
        let mut plan = CgroupPlan::default();
        translate(&io, &mut plan)?;
        Ok(plan)
    }

    #[test]
    fn translate_weights_and_throttles_are_in_the_plan() {
        let plan = translated(
            r#"{"weight":10,"leafWeight":20,
                "weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":300}]}"#,
        )
        .expect("translate");
        let limit = |minor, value| DeviceLimit {
            major: 8,
            minor,
            value,
        };
        let extra = plan.extra;
        assert_eq!(plan.resources.blkio_weight, Some(10));
        assert_eq!(extra.blkio_leaf_weight, Some(20));
        assert_eq!(extra.blkio_weight_device, [limit(0, 500)]);
        assert_eq!(extra.blkio_leaf_weight_device, [limit(0, 300)]);
        assert_eq!(extra.blkio_read_bps, [limit(0, 600)]);
        assert_eq!(extra.blkio_write_iops, [limit(16, 300)]);
        assert!(extra.blkio_write_bps.is_empty() && extra.blkio_read_iops.is_empty());
    }

    #[test]
    fn translate_weight_out_of_range_and_bad_numbers_are_refused() {
        for (text, field) in [
            (r#"{"weight":9}"#, "blockIO.weight"),
            (
                r#"{"weightDevice":[{"major":8,"minor":0,"weight":1001}]}"#,
                "blockIO.weightDevice[0].weight",
            ),
            (
                r#"{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}"#,
                "blockIO.throttleReadBpsDevice[0].major",
            ),
        ] {
            let error = translated(text).expect_err(text).to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
