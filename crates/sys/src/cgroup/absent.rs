//! No group at all: for a caller who may make none.

use std::os::fd::OwnedFd;

use hull_model::limits::CgroupExtra;
use hull_model::{Resources, Stats};

use super::extra::Asked;
use super::{Cgroup, CgroupError, CgroupResult, DeviceRule, Entry, View};

/// A group that is not there: processes stay where their maker is.
#[derive(Debug)]
pub(crate) struct Absent;

impl Absent {
    fn missing<T>() -> CgroupResult<T> {
        Err(CgroupError::NotAllowed)
    }
}

/// Whether no limit is set.
pub(crate) fn is_nothing(resources: &Resources, extra: &CgroupExtra) -> bool {
    let said = CgroupExtra {
        exact: extra.exact,
        systemd: extra.systemd,
        memory_check_before_update: extra.memory_check_before_update,
        ..CgroupExtra::default()
    };
    *resources == Resources::default()
        && *extra == said
        && Asked::of(resources, extra).controllers.is_empty()
}

impl Cgroup for Absent {
    fn apply_with(&self, resources: &Resources, extra: &CgroupExtra) -> CgroupResult<Vec<String>> {
        if is_nothing(resources, extra) {
            Ok(Vec::new())
        } else {
            Self::missing()
        }
    }

    fn set_devices(&self, _rules: &[DeviceRule]) -> CgroupResult<()> {
        Self::missing()
    }

    fn entry(&self) -> Entry<'_> {
        Entry::Write(&[])
    }

    fn join_files(&self) -> &[OwnedFd] {
        &[]
    }

    fn freeze(&self) -> CgroupResult<()> {
        Self::missing()
    }

    fn thaw(&self) -> CgroupResult<()> {
        Self::missing()
    }

    /// The caller knows the first process, with whose pid namespace the others end.
    fn kill_all(&self) -> CgroupResult<()> {
        Ok(())
    }

    fn pids(&self) -> CgroupResult<Vec<i32>> {
        Ok(Vec::new())
    }

    fn stats(&self) -> CgroupResult<Stats> {
        Ok(Stats {
            memory_limit: u64::MAX,
            pids_limit: u64::MAX,
            ..Stats::default()
        })
    }

    fn oom_kills(&self) -> CgroupResult<u64> {
        Ok(0)
    }

    fn watch_oom(&self) -> CgroupResult<OwnedFd> {
        Self::missing()
    }

    fn views(&self) -> Vec<View> {
        Vec::new()
    }

    fn remove(&self) -> CgroupResult<()> {
        Ok(())
    }

    fn abandon(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apply_limits_without_a_group_are_refused() {
        let exact = CgroupExtra {
            exact: true,
            ..CgroupExtra::default()
        };
        let mut limits = Resources::default();
        assert!(Absent.apply_with(&limits, &exact).is_ok());
        limits.pids_limit = Some(5);
        assert!(Absent.apply_with(&limits, &exact).is_err());
        let pages = CgroupExtra {
            hugetlb: [("2MB".to_owned(), 0)].into(),
            ..exact
        };
        assert!(Absent.apply_with(&Resources::default(), &pages).is_err());
    }
}
