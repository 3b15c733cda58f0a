//! Limits as the files of the v1 hierarchies take them.

use hull_model::Resources;
use hull_model::limits::{CgroupExtra, DeviceLimit};

use super::dir::Dir;
use super::extra::{check_usage, device_line, rdma_line, unknown};
use super::v1::Group;
use super::{CgroupError, CgroupResult, cpu_quota, memory_and_swap, v2_limits};
use crate::Errno;

pub(crate) fn apply(
    group: &Group,
    resources: &Resources,
    extra: &CgroupExtra,
) -> CgroupResult<Vec<String>> {
    let mut warnings = Vec::new();
    refuse_v2(extra)?;
    memory(group, resources, extra, &mut warnings)?;
    cpu(group, resources, extra)?;
    for (file, list) in [
        ("cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset.mems", &resources.cpuset_mems),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            group.need("cpuset")?.write(file, list)?;
        }
    }
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != 0) {
        let value = if limit < 0 {
            "max".to_owned()
        } else {
            limit.to_string()
        };
        group.need("pids")?.write("pids.max", &value)?;
    }
    block_io(group, resources, extra, &mut warnings)?;
    huge_pages(group, extra)?;
    network(group, extra)?;
    for (device, (handles, objects)) in &extra.rdma {
        let line = rdma_line(device, *handles, *objects);
        group.need("rdma")?.write("rdma.max", &line)?;
    }
    Ok(warnings)
}

/// Refuses limits that v2 alone has.
pub(crate) fn refuse_v2(extra: &CgroupExtra) -> CgroupResult<()> {
    match extra.unified.first_key_value() {
        Some((key, value)) => Err(unknown("unified", format!("{key}={value}"), "v1")),
        None => Ok(()),
    }
}

/// Notes what the host cannot do, or fails where it must.
fn cannot(
    extra: &CgroupExtra,
    warnings: &mut Vec<String>,
    limit: &'static str,
    value: impl ToString,
    reason: &str,
) -> CgroupResult<()> {
    if extra.exact {
        return Err(CgroupError::Limit {
            limit,
            value: value.to_string(),
            reason: reason.to_owned(),
        });
    }
    warnings.push(reason.to_owned());
    Ok(())
}

const NO_SWAP: &str = "the kernel does not account swap: no limit on it";

fn memory(
    group: &Group,
    resources: &Resources,
    extra: &CgroupExtra,
    warnings: &mut Vec<String>,
) -> CgroupResult<()> {
    let memory = resources.memory.filter(|memory| *memory != 0);
    let mut both = if extra.exact {
        resources.memory_swap.filter(|both| *both != 0)
    } else {
        memory_and_swap(resources)
    };
    let asked = resources.memory.is_some()
        || resources.memory_reservation.is_some()
        || both.is_some()
        || resources.memory_swappiness.is_some()
        || resources.oom_kill_disable
        || extra.memory_kernel_tcp.is_some()
        || extra.memory_use_hierarchy.is_some();
    if !asked {
        return Ok(());
    }
    let dir = group.need("memory")?;
    if memory == Some(-1) && both.is_none() {
        // No limit on memory is none on both, or it would be refused for being larger.
        both = Some(-1);
    }
    if extra.memory_check_before_update {
        let usage = dir.number("memory.usage_in_bytes");
        check_usage("memory.limit", memory, usage)?;
        check_usage("memory.swap", both, usage)?;
    }
    if let Some(hierarchy) = extra.memory_use_hierarchy
        && dir.number("memory.use_hierarchy") != Some(u64::from(hierarchy))
    {
        dir.write("memory.use_hierarchy", if hierarchy { "1" } else { "0" })?;
    }
    // Memory must never be above memory plus swap, so the order depends on the direction.
    let mut values = Vec::with_capacity(2);
    if let Some(memory) = memory {
        values.push(("memory.limit_in_bytes", memory.to_string()));
    }
    if let Some(both) = both {
        if dir.has("memory.memsw.limit_in_bytes") {
            values.push(("memory.memsw.limit_in_bytes", both.to_string()));
        } else if both > 0 {
            cannot(extra, warnings, "memory.swap", both, NO_SWAP)?;
        } else if !extra.exact {
            warnings.push(NO_SWAP.to_owned());
        }
    }
    dir.write_in_any_order(&values)
        .map_err(|error| explain_busy(dir, error))?;
    for (file, value) in [
        ("memory.soft_limit_in_bytes", resources.memory_reservation),
        ("memory.kmem.tcp.limit_in_bytes", extra.memory_kernel_tcp),
    ] {
        if let Some(value) = value.filter(|value| *value != 0) {
            dir.write(file, &value.to_string())?;
        }
    }
    if let Some(swappiness) = resources.memory_swappiness
        && dir
            .write("memory.swappiness", &swappiness.to_string())
            .is_err()
    {
        let reason = "the kernel does not let swappiness be set for a group";
        cannot(extra, warnings, "memory.swappiness", swappiness, reason)?;
    }
    if resources.oom_kill_disable && dir.write("memory.oom_control", "1").is_err() {
        let reason = "the kernel does not let the OOM killer be disabled";
        cannot(extra, warnings, "memory.disableOOMKiller", true, reason)?;
    }
    Ok(())
}

/// A limit below what is used, and cannot be given back, is refused as busy.
fn explain_busy(dir: &Dir, error: CgroupError) -> CgroupError {
    match error {
        CgroupError::Write { value, .. } if error.errno() == Some(Errno::BUSY) => {
            let number = |file| dir.number(file).unwrap_or(0);
            CgroupError::Limit {
                limit: "memory.limit",
                value,
                reason: format!(
                    "more is used (now {} bytes, {} at most so far)",
                    number("memory.usage_in_bytes"),
                    number("memory.max_usage_in_bytes")
                ),
            }
        }
        error => error,
    }
}

fn cpu(group: &Group, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<()> {
    let mut realtime = Vec::new();
    if let Some(period) = extra.cpu_rt_period.filter(|period| *period != 0) {
        realtime.push(("cpu.rt_period_us", period.to_string()));
    }
    if let Some(runtime) = extra.cpu_rt_runtime.filter(|runtime| *runtime != 0) {
        realtime.push(("cpu.rt_runtime_us", runtime.to_string()));
    }
    if !realtime.is_empty() {
        group.need("cpu")?.write_in_any_order(&realtime)?;
    }
    // A group that is idle takes no shares.
    if extra.cpu_idle == Some(0) {
        group.need("cpu")?.write("cpu.idle", "0")?;
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0) {
        let dir = group.need("cpu")?;
        dir.write("cpu.shares", &shares.to_string())?;
        if extra.exact
            && let Some(kept) = dir.number("cpu.shares").filter(|kept| *kept != shares)
        {
            let bound = if shares > kept { "most" } else { "least" };
            return Err(CgroupError::Limit {
                limit: "cpu.shares",
                value: shares.to_string(),
                reason: format!("the {bound} allowed is {kept}"),
            });
        }
    }
    if let Some(idle) = extra.cpu_idle.filter(|idle| *idle != 0) {
        group.need("cpu")?.write("cpu.idle", &idle.to_string())?;
    }
    if extra.exact {
        return bandwidth(group, resources, extra);
    }
    if let Some((quota, period)) = cpu_quota(resources) {
        let dir = group.need("cpu")?;
        let set_period = || dir.write("cpu.cfs_period_us", &period.to_string());
        if period != 100_000 || dir.number("cpu.cfs_period_us") != Some(period) {
            // Refused while the old quota is larger than the parent's with the new period.
            if set_period().is_err() {
                dir.write("cpu.cfs_quota_us", "-1")?;
                set_period()?;
            }
        }
        dir.write("cpu.cfs_quota_us", &quota.to_string())?;
    }
    Ok(())
}

/// Quota, period and burst as they are given.
fn bandwidth(group: &Group, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<()> {
    let mut values = Vec::new();
    if let Some(period) = resources.cpu_period.filter(|period| *period != 0) {
        values.push(("cpu.cfs_period_us", period.to_string()));
    }
    if let Some(quota) = resources.cpu_quota.filter(|quota| *quota != 0) {
        values.push(("cpu.cfs_quota_us", quota.to_string()));
    }
    if let Some(burst) = extra.cpu_burst {
        values.push(("cpu.cfs_burst_us", burst.to_string()));
    }
    if values.is_empty() {
        return Ok(());
    }
    group.need("cpu")?.write_in_any_order(&values)
}

fn block_io(
    group: &Group,
    resources: &Resources,
    extra: &CgroupExtra,
    warnings: &mut Vec<String>,
) -> CgroupResult<()> {
    let find = |files: [&'static str; 2]| {
        let dir = group.find("blkio")?;
        let file = files.into_iter().find(|file| dir.has(file))?;
        Some((dir, file))
    };
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        let reason = "the host has no weights for block I/O";
        match find(["blkio.weight", "blkio.bfq.weight"]) {
            Some((dir, file)) => match dir.write(file, &weight.to_string()) {
                Err(error) if extra.exact => return Err(error),
                Err(_) => warnings.push(reason.to_owned()),
                Ok(()) => {}
            },
            None => cannot(extra, warnings, "blockIO.weight", weight, reason)?,
        }
    }
    let lines = |limit: &'static str, files: [&'static str; 2], list: &[DeviceLimit]| {
        for device in list {
            let line = device_line(device);
            let Some((dir, file)) = find(files) else {
                return Err(CgroupError::Limit {
                    limit,
                    value: line,
                    reason: "the host has no such file in its blkio hierarchy".to_owned(),
                });
            };
            dir.write(file, &line)?;
        }
        Ok(())
    };
    if let Some(weight) = extra.blkio_leaf_weight.filter(|weight| *weight != 0) {
        match find(["blkio.leaf_weight", "blkio.bfq.leaf_weight"]) {
            Some((dir, file)) => dir.write(file, &weight.to_string())?,
            None => {
                return Err(CgroupError::Limit {
                    limit: "blockIO.leafWeight",
                    value: weight.to_string(),
                    reason: "the kernel has no leaf weights (since 5.0)".to_owned(),
                });
            }
        }
    }
    lines(
        "blockIO.weightDevice.weight",
        ["blkio.weight_device", "blkio.bfq.weight_device"],
        &extra.blkio_weight_device,
    )?;
    lines(
        "blockIO.weightDevice.leafWeight",
        ["blkio.leaf_weight_device", "blkio.bfq.leaf_weight_device"],
        &extra.blkio_leaf_weight_device,
    )?;
    for (limit, file, list) in [
        (
            "blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            &extra.blkio_read_bps,
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            &extra.blkio_write_bps,
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            &extra.blkio_read_iops,
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            &extra.blkio_write_iops,
        ),
    ] {
        lines(limit, [file, file], list)?;
    }
    Ok(())
}

fn huge_pages(group: &Group, extra: &CgroupExtra) -> CgroupResult<()> {
    for (size, limit) in &extra.hugetlb {
        let Some((dir, is_v2)) = group.find_with_version("hugetlb") else {
            return Err(CgroupError::NoController {
                controller: "hugetlb",
            });
        };
        let file = if is_v2 { "max" } else { "limit_in_bytes" };
        v2_limits::huge_pages_of(dir, size, *limit, file)?;
    }
    Ok(())
}

fn network(group: &Group, extra: &CgroupExtra) -> CgroupResult<()> {
    if let Some(class) = extra.net_class_id {
        let dir = group.need("net_cls")?;
        dir.write("net_cls.classid", &class.to_string())?;
    }
    for (interface, priority) in &extra.net_priorities {
        let dir = group.need("net_prio")?;
        dir.write("net_prio.ifpriomap", &format!("{interface} {priority}"))?;
    }
    Ok(())
}
