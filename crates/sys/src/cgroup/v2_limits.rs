//! Limits as the files of the v2 tree take them; those that were made for v1 are converted.

use hull_model::Resources;
use hull_model::limits::CgroupExtra;

use super::dir::Dir;
use super::extra::{check_usage, device_line, rdma_line, unknown};
use super::{CgroupError, CgroupResult, cpu_quota, memory_and_swap};
use crate::Errno;

pub(crate) fn apply(
    dir: &Dir,
    resources: &Resources,
    extra: &CgroupExtra,
) -> CgroupResult<Vec<String>> {
    let mut warnings = Vec::new();
    refuse_v1(extra)?;
    memory(dir, resources, extra, &mut warnings)?;
    cpu(dir, resources, extra)?;
    for (file, list) in [
        ("cpuset.cpus", &resources.cpuset_cpus),
        ("cpuset.mems", &resources.cpuset_mems),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            need(dir, "cpuset", file, list)?;
        }
    }
    if let Some(pids) = resources.pids_limit.filter(|limit| *limit != 0) {
        need(dir, "pids", "pids.max", &limit(pids))?;
    }
    block_io(dir, resources, extra, &mut warnings)?;
    for (size, limit) in &extra.hugetlb {
        if !dir.has("hugetlb.2MB.max") && !dir.has(&format!("hugetlb.{size}.max")) {
            let controller = "hugetlb";
            return Err(CgroupError::NoController { controller });
        }
        huge_pages_of(dir, size, *limit, "max")?;
    }
    for (device, (handles, objects)) in &extra.rdma {
        let line = rdma_line(device, *handles, *objects);
        need(dir, "rdma", "rdma.max", &line)?;
    }
    for (key, value) in &extra.unified {
        unified(dir, key, value)?;
    }
    Ok(warnings)
}

/// Refuses limits that v1 alone has.
pub(crate) fn refuse_v1(extra: &CgroupExtra) -> CgroupResult<()> {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    if let Some(runtime) = set(extra.cpu_rt_runtime) {
        return Err(unknown("cpu.realtimeRuntime", runtime, "v2"));
    }
    if let Some(period) = extra.cpu_rt_period.filter(|period| *period != 0) {
        return Err(unknown("cpu.realtimePeriod", period, "v2"));
    }
    if let Some(bytes) = set(extra.memory_kernel_tcp) {
        return Err(unknown("memory.kernelTCP", bytes, "v2"));
    }
    if extra.memory_use_hierarchy == Some(false) {
        return Err(unknown("memory.useHierarchy", false, "v2"));
    }
    if let Some(weight) = extra.blkio_leaf_weight.filter(|weight| *weight != 0) {
        return Err(unknown("blockIO.leafWeight", weight, "v2"));
    }
    if let Some(device) = extra.blkio_leaf_weight_device.first() {
        let line = device_line(device);
        return Err(unknown("blockIO.weightDevice.leafWeight", line, "v2"));
    }
    if let Some(class) = extra.net_class_id {
        return Err(unknown("network.classID", class, "v2"));
    }
    if let Some((interface, priority)) = extra.net_priorities.first_key_value() {
        let line = format!("{interface} {priority}");
        return Err(unknown("network.priorities", line, "v2"));
    }
    Ok(())
}

fn need(dir: &Dir, controller: &'static str, file: &str, value: &str) -> CgroupResult<()> {
    if !dir.has(file) {
        return Err(CgroupError::NoController { controller });
    }
    dir.write(file, value)
}

fn memory(
    dir: &Dir,
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
    if extra.memory_check_before_update {
        let usage = dir.number("memory.current");
        check_usage("memory.limit", memory, usage)?;
        check_usage("memory.swap", both, usage)?;
    }
    if memory == Some(-1) && both.is_none() && extra.exact {
        both = Some(-1);
    }
    if let Some(memory) = memory {
        need(dir, "memory", "memory.max", &limit(memory))?;
    }
    if let Some(both) = both {
        swap(dir, memory, both, extra, warnings)?;
    }
    if let Some(soft) = resources.memory_reservation.filter(|soft| *soft != 0) {
        need(dir, "memory", "memory.low", &limit(soft))?;
    }
    if resources.oom_kill_disable {
        warnings.push("cgroup v2 cannot disable the OOM killer".to_owned());
    }
    if resources.memory_swappiness.is_some() {
        warnings.push("cgroup v2 has no swappiness".to_owned());
    }
    Ok(())
}

/// v2 limits swap alone, where the limit asked for is that of memory and swap together.
fn swap(
    dir: &Dir,
    memory: Option<i64>,
    both: i64,
    extra: &CgroupExtra,
    warnings: &mut Vec<String>,
) -> CgroupResult<()> {
    let memory = memory.filter(|memory| *memory > 0).or_else(|| {
        dir.number("memory.max")
            .and_then(|memory| i64::try_from(memory).ok())
    });
    let swap = match memory {
        _ if both < 0 => "max".to_owned(),
        Some(memory) if both < memory && extra.exact => {
            return Err(CgroupError::Limit {
                limit: "memory.swap",
                value: both.to_string(),
                reason: format!("it is memory and swap together, and memory alone is {memory}"),
            });
        }
        Some(memory) => both.saturating_sub(memory).max(0).to_string(),
        None if extra.exact => {
            return Err(CgroupError::Limit {
                limit: "memory.swap",
                value: both.to_string(),
                reason: "it is memory and swap together, and memory has no limit".to_owned(),
            });
        }
        None => both.to_string(),
    };
    if dir.has("memory.swap.max") {
        return dir.write("memory.swap.max", &swap);
    }
    let reason = "the kernel does not account swap: no limit on it";
    if !extra.exact {
        warnings.push(reason.to_owned());
    } else if swap != "max" && swap != "0" {
        return Err(CgroupError::Limit {
            limit: "memory.swap",
            value: both.to_string(),
            reason: reason.to_owned(),
        });
    }
    Ok(())
}

fn cpu(dir: &Dir, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<()> {
    // A group that is idle takes no weight.
    if extra.cpu_idle == Some(0) {
        need(dir, "cpu", "cpu.idle", "0")?;
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| *shares != 0)
        && extra.cpu_idle.unwrap_or(0) == 0
    {
        let weight = weight_of_shares(shares).to_string();
        need(dir, "cpu", "cpu.weight", &weight)?;
    }
    if let Some(idle) = extra.cpu_idle.filter(|idle| *idle != 0) {
        need(dir, "cpu", "cpu.idle", &idle.to_string())?;
    }
    let mut values = Vec::new();
    if extra.exact {
        let quota = resources.cpu_quota.filter(|quota| *quota != 0).map(limit);
        let period = resources.cpu_period.filter(|period| *period != 0);
        match (quota, period) {
            // One number alone leaves the period as it is.
            (Some(quota), None) => values.push(("cpu.max", quota)),
            (Some(quota), Some(period)) => values.push(("cpu.max", format!("{quota} {period}"))),
            (None, Some(period)) => {
                let now = dir.read("cpu.max").unwrap_or_default();
                let quota = now.split(' ').next().filter(|quota| !quota.is_empty());
                values.push(("cpu.max", format!("{} {period}", quota.unwrap_or("max"))));
            }
            (None, None) => {}
        }
    } else if let Some((quota, period)) = cpu_quota(resources) {
        values.push(("cpu.max", format!("{} {period}", limit(quota))));
    }
    if let Some(burst) = extra.cpu_burst {
        values.push(("cpu.max.burst", burst.to_string()));
    }
    for (file, _) in &values {
        if !dir.has("cpu.max") {
            return Err(CgroupError::NoController { controller: "cpu" });
        }
        if !dir.has(file) {
            return Err(CgroupError::Limit {
                limit: "cpu.burst",
                value: extra.cpu_burst.unwrap_or(0).to_string(),
                reason: "the kernel has no burst (before 5.14)".to_owned(),
            });
        }
    }
    dir.write_in_any_order(&values)
}

fn block_io(
    dir: &Dir,
    resources: &Resources,
    extra: &CgroupExtra,
    warnings: &mut Vec<String>,
) -> CgroupResult<()> {
    let bfq = "io.bfq.weight";
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight != 0) {
        let set = if dir.has(bfq) {
            dir.write(bfq, &weight.to_string())
        } else if dir.has("io.weight") {
            dir.write("io.weight", &weight_of_blkio(weight.into()).to_string())
        } else {
            Err(CgroupError::NoController { controller: "io" })
        };
        match set {
            Err(error) if extra.exact => return Err(error),
            Err(_) => warnings.push("the host has no weights for block I/O".to_owned()),
            Ok(()) => {}
        }
    }
    for device in &extra.blkio_weight_device {
        if dir.has(bfq) {
            dir.write(bfq, &device_line(device))?;
        } else {
            let (major, minor) = (device.major, device.minor);
            let line = format!("{major}:{minor} {}", weight_of_blkio(device.value));
            need(dir, "io", "io.weight", &line)?;
        }
    }
    for (key, list) in [
        ("rbps", &extra.blkio_read_bps),
        ("wbps", &extra.blkio_write_bps),
        ("riops", &extra.blkio_read_iops),
        ("wiops", &extra.blkio_write_iops),
    ] {
        for device in list {
            // v1 takes 0 for no limit.
            let value = match device.value {
                0 => "max".to_owned(),
                value => value.to_string(),
            };
            let line = format!("{}:{} {key}={value}", device.major, device.minor);
            need(dir, "io", "io.max", &line)?;
        }
    }
    Ok(())
}

/// Limits both pages in use and pages reserved, which a mapping takes before it uses any.
pub(crate) fn huge_pages_of(dir: &Dir, size: &str, limit: u64, file: &str) -> CgroupResult<()> {
    let used = format!("hugetlb.{size}.{file}");
    if !dir.has(&used) {
        return Err(CgroupError::Limit {
            limit: "hugepageLimits",
            value: format!("{limit} bytes of {size} pages"),
            reason: format!("the host has no huge pages of {size}"),
        });
    }
    dir.write(&used, &limit.to_string())?;
    let reserved = format!("hugetlb.{size}.rsvd.{file}");
    if dir.has(&reserved) {
        dir.write(&reserved, &limit.to_string())?;
    }
    Ok(())
}

/// A file as it is, a line at a time: some files take no more at once.
fn unified(dir: &Dir, key: &str, value: &str) -> CgroupResult<()> {
    let refuse = |reason: String| CgroupError::Limit {
        limit: "unified",
        value: format!("{key}={value:?}"),
        reason,
    };
    if key.contains(['/', '\0']) {
        return Err(refuse(
            "a key is the name of a file, without '/'".to_owned(),
        ));
    }
    let Some((controller, _)) = key.split_once('.') else {
        return Err(refuse("a key has the form CONTROLLER.PARAMETER".to_owned()));
    };
    for line in value.lines() {
        match dir.write(key, line) {
            Err(error)
                if controller != "cgroup"
                    && matches!(
                        error.errno(),
                        Some(Errno::NOENT | Errno::PERM | Errno::ACCESS)
                    ) =>
            {
                let listed = dir.read("cgroup.controllers").unwrap_or_default();
                if listed.split_whitespace().any(|name| name == controller) {
                    return Err(error);
                }
                let reason = format!("controller {controller:?} is not available");
                return Err(refuse(reason));
            }
            result => result?,
        }
    }
    Ok(())
}

fn limit(value: i64) -> String {
    if value < 0 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// v1 shares (2 to 262144, 1024 usual) as a v2 weight (1 to 10000, 100 usual).
#[must_use]
pub fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// v1 weight (10 to 1000) as a v2 weight (1 to 10000).
fn weight_of_blkio(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests;
