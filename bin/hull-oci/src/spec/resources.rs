//! `linux.resources` of config.json, but for the devices and block I/O.

use std::collections::HashMap;

use anyhow::{Result, bail};
use hull_proto::plan::CgroupPlan;
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxResources};

use super::block_io;

/// The highest swappiness.
const MAX_SWAPPINESS: u64 = 100;

/// Translates the limits; the device rules come apart, for they go with the devices.
pub(crate) fn translate(
    resources: &LinuxResources,
    plan: &mut CgroupPlan,
    warnings: &mut Vec<String>,
) -> Result<()> {
    plan.extra.exact = true;
    if let Some(memory) = resources.memory() {
        self::memory(memory, plan, warnings)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, plan)?;
    }
    if let Some(io) = resources.block_io() {
        block_io::translate(io, plan)?;
    }
    // As runc has it: 0 says nothing, any negative number is "no limit".
    plan.resources.pids_limit = resources
        .pids()
        .as_ref()
        .map(|pids| pids.limit())
        .filter(|limit| *limit != 0)
        .map(|limit| limit.max(-1));
    huge_pages(resources.hugepage_limits().as_deref(), plan)?;
    if let Some(network) = resources.network() {
        self::network(network, plan)?;
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let limits = (limit.hca_handles(), limit.hca_objects());
        if limits == (None, None) {
            bail!(
                "config.json: linux.resources.rdma.{device}: give hcaHandles, hcaObjects or both"
            );
        }
        plan.extra.rdma.insert(device.clone(), limits);
    }
    unified(resources.unified().as_ref(), plan)
}

fn memory(memory: &LinuxMemory, plan: &mut CgroupPlan, warnings: &mut Vec<String>) -> Result<()> {
    let at = |name: &str| format!("config.json: linux.resources.memory.{name}");
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    #[allow(deprecated)] // bundles still carry it
    if set(memory.kernel()).is_some() {
        warnings.push(
            "linux.resources.memory.kernel is ignored: the kernel has no such limit since 5.16"
                .to_owned(),
        );
    }
    let limits = &mut plan.resources;
    limits.memory = set(memory.limit());
    limits.memory_reservation = set(memory.reservation());
    limits.memory_swap = set(memory.swap());
    for (name, value) in [
        ("limit", limits.memory),
        ("reservation", limits.memory_reservation),
        ("swap", limits.memory_swap),
        ("kernelTCP", memory.kernel_tcp()),
    ] {
        if let Some(value) = value.filter(|value| *value < -1) {
            bail!("{} {value}: a size, or -1 for no limit", at(name));
        }
    }
    if let (Some(both), Some(memory)) = (limits.memory_swap, limits.memory)
        && both > 0
        && (both < memory || memory < 0)
    {
        bail!(
            "{} {both} is memory and swap together, and cannot be less than memory.limit {memory}",
            at("swap")
        );
    }
    if let Some(value) = memory.swappiness().filter(|value| *value > MAX_SWAPPINESS) {
        bail!("{} {value}: 0 to {MAX_SWAPPINESS}", at("swappiness"));
    }
    limits.memory_swappiness = memory.swappiness();
    limits.oom_kill_disable = memory.disable_oom_killer().unwrap_or(false);
    let extra = &mut plan.extra;
    extra.memory_kernel_tcp = set(memory.kernel_tcp());
    extra.memory_use_hierarchy = memory.use_hierarchy();
    extra.memory_check_before_update = memory.check_before_update().unwrap_or(false);
    Ok(())
}

fn cpu(cpu: &LinuxCpu, plan: &mut CgroupPlan) -> Result<()> {
    let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let limits = &mut plan.resources;
    limits.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
    limits.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
    limits.cpu_period = cpu.period().filter(|period| *period != 0);
    limits.cpuset_cpus = text(cpu.cpus());
    limits.cpuset_mems = text(cpu.mems());
    for (name, list) in [("cpus", &limits.cpuset_cpus), ("mems", &limits.cpuset_mems)] {
        let plain = |c: char| c.is_ascii_digit() || ",-: \n".contains(c);
        if let Some(list) = list.as_ref().filter(|list| !list.chars().all(plain)) {
            bail!("config.json: linux.resources.cpu.{name} {list:?} is no list such as \"0-2,4\"");
        }
    }
    if let Some(idle) = cpu.idle().filter(|idle| !matches!(idle, 0 | 1)) {
        bail!("config.json: linux.resources.cpu.idle {idle}: 0 or 1");
    }
    let extra = &mut plan.extra;
    extra.cpu_idle = cpu.idle();
    extra.cpu_burst = cpu.burst();
    extra.cpu_rt_runtime = cpu.realtime_runtime().filter(|value| *value != 0);
    extra.cpu_rt_period = cpu.realtime_period().filter(|value| *value != 0);
    Ok(())
}

fn huge_pages(list: Option<&[LinuxHugepageLimit]>, plan: &mut CgroupPlan) -> Result<()> {
    for (index, page) in list.into_iter().flatten().enumerate() {
        let field = format!("config.json: linux.resources.hugepageLimits[{index}]");
        let size = page.page_size();
        let digits = size
            .strip_suffix("KB")
            .or_else(|| size.strip_suffix("MB"))
            .or_else(|| size.strip_suffix("GB"));
        let valid = digits.is_some_and(|digits| {
            !digits.is_empty()
                && !digits.starts_with('0')
                && digits.bytes().all(|digit| digit.is_ascii_digit())
        });
        if !valid {
            bail!("{field}.pageSize {size:?} is not a size such as \"2MB\"");
        }
        let Ok(limit) = u64::try_from(page.limit()) else {
            bail!("{field}.limit {} is negative", page.limit());
        };
        if plan.extra.hugetlb.insert(size.clone(), limit).is_some() {
            bail!("{field}: pages of {size} are there twice");
        }
    }
    Ok(())
}

fn network(network: &LinuxNetwork, plan: &mut CgroupPlan) -> Result<()> {
    // As runc has it: class 0 is none.
    plan.extra.net_class_id = network.class_id().filter(|class| *class != 0);
    for (index, entry) in network.priorities().iter().flatten().enumerate() {
        let name = entry.name();
        let plain = |c: char| c.is_ascii_graphic() && c != '/';
        if name.is_empty() || !name.chars().all(plain) {
            bail!(
                "config.json: linux.resources.network.priorities[{index}].name {name:?} is no \
                 network interface"
            );
        }
        plan.extra
            .net_priorities
            .insert(name.clone(), entry.priority());
    }
    Ok(())
}

fn unified(map: Option<&HashMap<String, String>>, plan: &mut CgroupPlan) -> Result<()> {
    for (key, value) in map.into_iter().flatten() {
        if key.contains(['/', '\0']) {
            bail!(
                "config.json: linux.resources.unified {key:?} must be the name of a file, without '/'"
            );
        }
        if !key
            .split_once('.')
            .is_some_and(|(left, right)| !left.is_empty() && !right.is_empty())
        {
            bail!(
                "config.json: linux.resources.unified {key:?} must have the form CONTROLLER.PARAMETER"
            );
        }
        plan.extra.unified.insert(key.clone(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(text: &str) -> Result<(CgroupPlan, Vec<String>)> {
        let resources: LinuxResources = serde_json::from_str(text).expect("JSON");
        let (mut plan, mut warnings) = (CgroupPlan::default(), Vec::new());
        translate(&resources, &mut plan, &mut warnings)?;
        Ok((plan, warnings))
    }

    #[test]
    fn translate_everything_is_in_the_plan() {
        let (plan, warnings) = translated(
            r#"{"memory":{"limit":100,"swap":200,"reservation":50,"kernel":1,"kernelTCP":7,
                 "swappiness":0,"disableOOMKiller":true,"useHierarchy":true,"checkBeforeUpdate":true},
                "cpu":{"shares":5,"quota":-1,"period":9,"burst":3,"realtimeRuntime":1,
                 "realtimePeriod":2,"idle":1,"cpus":"0-1","mems":"0"},
                "pids":{"limit":-5},
                "hugepageLimits":[{"pageSize":"2MB","limit":4096}],
                "network":{"classID":1048577,"priorities":[{"name":"lo","priority":3}]},
                "rdma":{"mlx5_1":{"hcaHandles":3}},
                "unified":{"memory.high":"10"}}"#,
        )
        .expect("translate");
        let limits = &plan.resources;
        assert_eq!((limits.memory, limits.memory_swap), (Some(100), Some(200)));
        assert_eq!(limits.memory_swappiness, Some(0));
        assert_eq!((limits.cpu_quota, limits.pids_limit), (Some(-1), Some(-1)));
        let extra = &plan.extra;
        assert!(extra.exact && extra.memory_check_before_update && limits.oom_kill_disable);
        assert_eq!((extra.cpu_burst, extra.cpu_idle), (Some(3), Some(1)));
        assert_eq!(
            (extra.cpu_rt_runtime, extra.cpu_rt_period),
            (Some(1), Some(2))
        );
        assert_eq!(extra.hugetlb.get("2MB"), Some(&4096));
        assert_eq!(extra.net_class_id, Some(1_048_577));
        assert_eq!(extra.rdma.get("mlx5_1"), Some(&(Some(3), None)));
        assert_eq!(extra.unified.len() + extra.net_priorities.len(), 2);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }

    #[test]
    fn translate_nonsense_is_refused_by_the_name_of_its_field() {
        for (text, field) in [
            (r#"{"memory":{"limit":100,"swap":50}}"#, "memory.swap"),
            (r#"{"memory":{"limit":-7}}"#, "memory.limit"),
            (r#"{"memory":{"swappiness":101}}"#, "memory.swappiness"),
            (r#"{"cpu":{"idle":2}}"#, "cpu.idle"),
            (r#"{"cpu":{"cpus":"all"}}"#, "cpu.cpus"),
            (
                r#"{"hugepageLimits":[{"pageSize":"2","limit":1}]}"#,
                "hugepageLimits[0].pageSize",
            ),
            (
                r#"{"hugepageLimits":[{"pageSize":"2MB","limit":-1}]}"#,
                "hugepageLimits[0].limit",
            ),
            (r#"{"rdma":{"x":{}}}"#, "rdma.x"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
            (r#"{"unified":{"memory":"1"}}"#, "unified"),
            (
                r#"{"network":{"priorities":[{"name":"a b","priority":1}]}}"#,
                "network.priorities[0]",
            ),
        ] {
            let error = translated(text).expect_err(text).to_string();
            assert!(
                error.contains(&format!("linux.resources.{field}")),
                "{error}"
            );
        }
    }
}
