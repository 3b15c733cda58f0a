//! What limits ask of the hierarchies, and how values are spelled in the files of either version.

use hull_model::Resources;
use hull_model::limits::{CgroupExtra, DeviceLimit};

use super::{CgroupError, CgroupResult, Hierarchies, v1_limits, v2_limits};

/// Controllers that are needed beyond the usual ones.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// By their v1 names.
    pub(crate) controllers: Vec<String>,
    /// Directories that are there already are joined.
    pub(crate) existing: bool,
}

impl Asked {
    pub(crate) fn of(resources: &Resources, extra: &CgroupExtra) -> Self {
        let needs = [
            (
                "cpuset",
                resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some(),
            ),
            ("hugetlb", !extra.hugetlb.is_empty()),
            ("rdma", !extra.rdma.is_empty()),
            ("net_cls", extra.net_class_id.is_some()),
            ("net_prio", !extra.net_priorities.is_empty()),
        ];
        let mut controllers: Vec<String> = needs
            .into_iter()
            .filter(|(_, needed)| *needed)
            .map(|(name, _)| name.to_owned())
            .collect();
        for key in extra.unified.keys() {
            if let Some((controller, _)) = key.split_once('.')
                && controller != "cgroup"
                && !controllers.iter().any(|name| name == controller)
            {
                controllers.push(controller.to_owned());
            }
        }
        Self {
            controllers,
            existing: extra.systemd,
        }
    }

    /// Refuses, before anything is made, what the hierarchies do not have at all.
    pub(crate) fn check(&self, hierarchies: &Hierarchies, extra: &CgroupExtra) -> CgroupResult<()> {
        if hierarchies.is_v2() {
            return v2_limits::refuse_v1(extra);
        }
        v1_limits::refuse_v2(extra)?;
        if self.controllers.is_empty() {
            return Ok(());
        }
        let mut available = hierarchies.controllers();
        let shared = hierarchies.v2.as_ref().map(|mount| {
            std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
        });
        available.extend(
            shared
                .iter()
                .flat_map(|t| t.split_whitespace())
                .map(str::to_owned),
        );
        for controller in ["cpuset", "hugetlb", "rdma", "net_cls", "net_prio"] {
            if self.has(controller) && !available.iter().any(|name| name == controller) {
                return Err(CgroupError::NoController { controller });
            }
        }
        Ok(())
    }

    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// `MAJOR:MINOR VALUE`.
pub(crate) fn device_line(limit: &DeviceLimit) -> String {
    format!("{}:{} {}", limit.major, limit.minor, limit.value)
}

/// A line of `rdma.max`.
pub(crate) fn rdma_line(device: &str, handles: Option<u32>, objects: Option<u32>) -> String {
    let number = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
    format!(
        "{device} hca_handle={} hca_object={}",
        number(handles),
        number(objects)
    )
}

/// Refuses a limit that what is used already exceeds.
pub(crate) fn check_usage(
    limit: &'static str,
    value: Option<i64>,
    usage: Option<u64>,
) -> CgroupResult<()> {
    let Some((value, usage)) = value.zip(usage) else {
        return Ok(());
    };
    match u64::try_from(value) {
        Ok(wanted) if wanted > 0 && wanted <= usage => Err(CgroupError::Limit {
            limit,
            value: value.to_string(),
            reason: format!(
                "{usage} bytes are used already, and memory.checkBeforeUpdate says that it must fit"
            ),
        }),
        _ => Ok(()),
    }
}

/// A limit that this version of control groups does not know.
pub(crate) fn unknown(limit: &'static str, value: impl ToString, version: &str) -> CgroupError {
    CgroupError::Limit {
        limit,
        value: value.to_string(),
        reason: format!("cgroup {version} has no such limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asked_unified_keys_name_their_controllers() {
        let mut extra = CgroupExtra::default();
        for key in ["cgroup.max.depth", "memory.high", "memory.min", "misc.max"] {
            extra.unified.insert(key.to_owned(), "1".to_owned());
        }
        extra.hugetlb.insert("2MB".to_owned(), 0);
        let asked = Asked::of(&Resources::default(), &extra);
        assert_eq!(asked.controllers, ["hugetlb", "memory", "misc"]);
    }

    #[test]
    fn rdma_line_absent_is_max() {
        assert_eq!(
            rdma_line("mlx5_1", Some(3), None),
            "mlx5_1 hca_handle=3 hca_object=max"
        );
    }

    #[test]
    fn check_usage_limit_at_or_below_what_is_used_is_refused() {
        assert!(check_usage("memory.limit", Some(10), Some(9)).is_ok());
        assert!(check_usage("memory.limit", Some(-1), Some(9)).is_ok());
        let error = check_usage("memory.limit", Some(9), Some(9)).expect_err("used");
        assert!(
            error
                .to_string()
                .starts_with("cannot set memory.limit to 9")
        );
    }
}
