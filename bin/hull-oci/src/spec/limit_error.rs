//! A limit that the host refuses, by the name of its field.

use std::path::Path;

use hull_container::LaunchError;
use hull_sys::cgroup::CgroupError;

/// Files of control groups of both versions, and the fields that are written to them.
const FIELDS: [(&str, &str); 45] = [
    ("memory.limit_in_bytes", "memory.limit"),
    ("memory.max", "memory.limit"),
    ("memory.memsw.limit_in_bytes", "memory.swap"),
    ("memory.swap.max", "memory.swap"),
    ("memory.soft_limit_in_bytes", "memory.reservation"),
    ("memory.low", "memory.reservation"),
    ("memory.kmem.tcp.limit_in_bytes", "memory.kernelTCP"),
    ("memory.swappiness", "memory.swappiness"),
    ("memory.oom_control", "memory.disableOOMKiller"),
    ("memory.use_hierarchy", "memory.useHierarchy"),
    ("cpu.shares", "cpu.shares"),
    ("cpu.weight", "cpu.shares"),
    ("cpu.cfs_quota_us", "cpu.quota"),
    ("cpu.max", "cpu.quota"),
    ("cpu.cfs_period_us", "cpu.period"),
    ("cpu.cfs_burst_us", "cpu.burst"),
    ("cpu.max.burst", "cpu.burst"),
    ("cpu.idle", "cpu.idle"),
    ("cpu.rt_runtime_us", "cpu.realtimeRuntime"),
    ("cpu.rt_period_us", "cpu.realtimePeriod"),
    ("cpuset.cpus", "cpu.cpus"),
    ("cpuset.mems", "cpu.mems"),
    ("pids.max", "pids.limit"),
    ("blkio.weight", "blockIO.weight"),
    ("blkio.bfq.weight", "blockIO.weight"),
    ("io.weight", "blockIO.weight"),
    ("io.bfq.weight", "blockIO.weight"),
    ("blkio.leaf_weight", "blockIO.leafWeight"),
    ("blkio.bfq.leaf_weight", "blockIO.leafWeight"),
    ("blkio.weight_device", "blockIO.weightDevice"),
    ("blkio.bfq.weight_device", "blockIO.weightDevice"),
    ("blkio.leaf_weight_device", "blockIO.weightDevice"),
    ("blkio.bfq.leaf_weight_device", "blockIO.weightDevice"),
    (
        "blkio.throttle.read_bps_device",
        "blockIO.throttleReadBpsDevice",
    ),
    (
        "blkio.throttle.write_bps_device",
        "blockIO.throttleWriteBpsDevice",
    ),
    (
        "blkio.throttle.read_iops_device",
        "blockIO.throttleReadIOPSDevice",
    ),
    (
        "blkio.throttle.write_iops_device",
        "blockIO.throttleWriteIOPSDevice",
    ),
    ("io.max", "blockIO.throttle…Device"),
    ("net_cls.classid", "network.classID"),
    ("net_prio.ifpriomap", "network.priorities"),
    ("rdma.max", "rdma"),
    ("devices.allow", "devices"),
    ("devices.deny", "devices"),
    ("cgroup.max.depth", "unified"),
    ("cgroup.max.descendants", "unified"),
];

/// Controllers, and the part of the specification that needs them.
const CONTROLLERS: [(&str, &str); 9] = [
    ("memory", "memory"),
    ("cpu", "cpu"),
    ("cpuset", "cpu.cpus and cpu.mems"),
    ("pids", "pids"),
    ("io", "blockIO"),
    ("hugetlb", "hugepageLimits"),
    ("net_cls", "network.classID"),
    ("net_prio", "network.priorities"),
    ("rdma", "rdma"),
];

/// Puts the field's name before an error that is about a limit.
pub(crate) fn name_field(error: LaunchError) -> anyhow::Error {
    match error {
        LaunchError::Cgroup(error) => name_limit(error),
        error => error.into(),
    }
}

/// The same for what control groups say themselves.
pub(crate) fn name_limit(error: CgroupError) -> anyhow::Error {
    let field = field_of(&error);
    let error = anyhow::Error::new(error);
    match field {
        Some(field) => error.context(format!("config.json: linux.resources.{field}")),
        None => error,
    }
}

fn field_of(error: &CgroupError) -> Option<String> {
    match error {
        CgroupError::Limit { limit, .. } => Some((*limit).to_owned()),
        CgroupError::NoController { controller } => find(&CONTROLLERS, controller),
        CgroupError::Write { path, .. } => of_file(path),
        CgroupError::Io { action, path, .. } if *action == "open" => of_file(path),
        _ => None,
    }
}

fn of_file(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    if file.starts_with("hugetlb.") {
        return Some("hugepageLimits".to_owned());
    }
    let ours = file.contains('.') && !file.starts_with("cgroup.") && !file.starts_with("freezer.");
    find(&FIELDS, file).or_else(|| ours.then(|| format!("unified ({file})")))
}

fn find(table: &[(&str, &str)], name: &str) -> Option<String> {
    let (_, field) = table.iter().find(|(known, _)| *known == name)?;
    Some((*field).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_limit_refused_value_is_told_by_its_field() {
        let error = CgroupError::Write {
            path: "/sys/fs/cgroup/cpu/x/cpu.cfs_burst_us".into(),
            value: "7".to_owned(),
            source: std::io::Error::from_raw_os_error(22),
        };
        let text = format!("{:#}", name_limit(error));
        assert!(
            text.starts_with("config.json: linux.resources.cpu.burst: cannot set"),
            "{text}"
        );
        assert!(text.contains("os error 22"), "{text}");
    }

    #[test]
    fn name_limit_other_errors_stay_as_they_are() {
        let text = format!("{:#}", name_limit(CgroupError::NotMounted));
        assert!(text.starts_with("no control group"), "{text}");
    }
}
