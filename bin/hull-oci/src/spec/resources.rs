//! `linux.resources` of config.json.

use anyhow::{Result, bail};
use hull_model::Resources;
use hull_proto::plan::DeviceRule;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::unsupported;

/// Translates the limits; the device rules come apart, for they go with the devices.
pub(crate) fn translate(resources: &LinuxResources) -> Result<Resources> {
    let at = |name: &str| format!("linux.resources.{name}");
    let some = |present: Option<bool>| present.unwrap_or(false);
    unsupported(
        &at("hugepageLimits"),
        some(
            resources
                .hugepage_limits()
                .as_ref()
                .map(|list| !list.is_empty()),
        ),
    )?;
    unsupported(
        &at("network"),
        some(resources.network().as_ref().map(|network| {
            network.class_id().is_some()
                || network
                    .priorities()
                    .as_ref()
                    .is_some_and(|list| !list.is_empty())
        })),
    )?;
    unsupported(
        &at("rdma"),
        some(resources.rdma().as_ref().map(|map| !map.is_empty())),
    )?;
    unsupported(
        &at("unified"),
        some(resources.unified().as_ref().map(|map| !map.is_empty())),
    )?;

    let mut limits = Resources::default();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut limits)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut limits)?;
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut limits)?;
    }
    // As runc has it: 0 says nothing, any negative number is "no limit".
    limits.pids_limit = resources
        .pids()
        .as_ref()
        .map(|pids| pids.limit())
        .filter(|limit| *limit != 0)
        .map(|limit| limit.max(-1));
    Ok(limits)
}

fn memory(memory: &LinuxMemory, limits: &mut Resources) -> Result<()> {
    let at = |name: &str| format!("linux.resources.memory.{name}");
    let set = |value: Option<i64>| value.is_some_and(|value| value != 0);
    #[allow(deprecated)] // bundles still carry them
    {
        unsupported(&at("kernel"), set(memory.kernel()))?;
    }
    unsupported(&at("kernelTCP"), set(memory.kernel_tcp()))?;
    unsupported(&at("useHierarchy"), memory.use_hierarchy() == Some(false))?;
    unsupported(
        &at("checkBeforeUpdate"),
        memory.check_before_update() == Some(true),
    )?;
    limits.memory = memory.limit().filter(|limit| *limit != 0);
    limits.memory_reservation = memory.reservation().filter(|limit| *limit != 0);
    // Where Docker takes twice the memory for a limit that is not given, the specification has none.
    limits.memory_swap = memory
        .swap()
        .filter(|limit| *limit != 0)
        .or(limits.memory.map(|_| -1));
    limits.memory_swappiness = memory.swappiness();
    limits.oom_kill_disable = memory.disable_oom_killer().unwrap_or(false);
    Ok(())
}

fn cpu(cpu: &LinuxCpu, limits: &mut Resources) -> Result<()> {
    let at = |name: &str| format!("linux.resources.cpu.{name}");
    unsupported(&at("idle"), cpu.idle().is_some_and(|value| value != 0))?;
    unsupported(&at("burst"), cpu.burst().is_some_and(|value| value != 0))?;
    unsupported(
        &at("realtimeRuntime"),
        cpu.realtime_runtime().is_some_and(|value| value != 0),
    )?;
    unsupported(
        &at("realtimePeriod"),
        cpu.realtime_period().is_some_and(|value| value != 0),
    )?;
    let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    limits.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
    limits.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
    limits.cpu_period = cpu.period().filter(|period| *period != 0);
    limits.cpuset_cpus = text(cpu.cpus());
    limits.cpuset_mems = text(cpu.mems());
    Ok(())
}

fn block_io(io: &LinuxBlockIo, limits: &mut Resources) -> Result<()> {
    let at = |name: &str| format!("linux.resources.blockIO.{name}");
    unsupported(
        &at("leafWeight"),
        io.leaf_weight().is_some_and(|weight| weight != 0),
    )?;
    unsupported(
        &at("weightDevice"),
        io.weight_device()
            .as_ref()
            .is_some_and(|list| !list.is_empty()),
    )?;
    for (name, list) in [
        ("throttleReadBpsDevice", io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", io.throttle_write_iops_device()),
    ] {
        unsupported(
            &at(name),
            list.as_ref().is_some_and(|list| !list.is_empty()),
        )?;
    }
    limits.blkio_weight = io.weight().filter(|weight| *weight != 0);
    Ok(())
}

/// The rules of the specification, then those every container needs.
pub(crate) fn device_rules(resources: Option<&LinuxResources>) -> Result<Vec<DeviceRule>> {
    let given = resources.and_then(|resources| resources.devices().as_ref());
    let mut rules = Vec::new();
    for (index, rule) in given.into_iter().flatten().enumerate() {
        rules.push(device_rule(rule, index)?);
    }
    // Without any rule every device may be used, as the specification leaves it.
    if !rules.is_empty() {
        rules.extend(
            hull_sys::cgroup::default_devices()
                .iter()
                .skip(1)
                .map(from_default),
        );
    }
    Ok(rules)
}

fn device_rule(rule: &LinuxDeviceCgroup, index: usize) -> Result<DeviceRule> {
    let field = format!("linux.resources.devices[{index}]");
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => 'a',
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        Some(LinuxDeviceType::P) => bail!("config.json: {field}.type: a pipe is not a device"),
    };
    let number = |name: &str, value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => match u32::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => bail!("config.json: {field}.{name} {value} is not a device number"),
        },
    };
    let access = rule.access().clone().unwrap_or_default();
    if let Some(letter) = access.chars().find(|letter| !"rwm".contains(*letter)) {
        bail!("config.json: {field}.access: {letter:?} is none of r, w, m");
    }
    let (major, minor) = (
        number("major", rule.major())?,
        number("minor", rule.minor())?,
    );
    if kind == 'a' && (major.is_some() || minor.is_some()) {
        bail!("config.json: {field}: numbers need a type, b or c");
    }
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major,
        minor,
        access,
    })
}

fn from_default(rule: &hull_sys::cgroup::DeviceRule) -> DeviceRule {
    use hull_sys::cgroup::DeviceKind;
    let access = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')];
    DeviceRule {
        allow: rule.allow,
        kind: match rule.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        },
        major: rule.major,
        minor: rule.minor,
        access: access
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, letter)| letter)
            .collect(),
    }
}
