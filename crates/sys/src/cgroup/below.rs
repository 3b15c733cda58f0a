//! Groups below a container's own, which its processes have made, for one more process to join.

use std::path::Path;

use super::dir::{Dir, io};
use super::{Cgroup, CgroupError, CgroupResult, Hierarchies, v1, v2};
use crate::Errno;
use crate::features::Features;

/// A group below another, in one hierarchy or in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Below {
    /// Name of a v1 controller; empty is for all hierarchies.
    pub controller: String,
    /// Path below the group, with or without a slash in front.
    pub path: String,
}

impl Below {
    pub(crate) fn is_for_all(&self) -> bool {
        self.controller.is_empty()
    }

    pub(crate) fn unusable(&self, reason: &str) -> CgroupError {
        let path = match self.is_for_all() {
            true => self.path.clone(),
            false => format!("{}:{}", self.controller, self.path),
        };
        CgroupError::Below {
            path,
            reason: reason.to_owned(),
        }
    }

    /// The path without detours.
    fn plain(&self) -> CgroupResult<String> {
        let mut parts = Vec::new();
        for part in self.path.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.pop().is_some() => {}
                ".." => return Err(self.unusable("it leads out of the container's group")),
                part if part.contains('\0') => return Err(self.unusable("it holds a zero byte")),
                part => parts.push(part),
            }
        }
        Ok(parts.join("/"))
    }
}

/// `name=systemd` may be called `systemd`, too.
pub(crate) fn is_name(controller: &str, name: &str) -> bool {
    controller == name || controller.strip_prefix("name=") == Some(name)
}

/// What is meant for a hierarchy of these controllers.
pub(crate) fn of_hierarchy<'a>(
    below: &'a [Below],
    controllers: &[String],
) -> CgroupResult<Option<&'a Below>> {
    let mut meant = below.iter().filter(|b| {
        b.is_for_all()
            || controllers
                .iter()
                .any(|controller| is_name(controller, &b.controller))
    });
    let Some(first) = meant.next() else {
        return Ok(None);
    };
    for other in meant {
        if other.plain()? != first.plain()? {
            let text = format!(
                "{} and {} share a hierarchy, in which there can be one",
                first.controller, other.controller
            );
            return Err(other.unusable(&text));
        }
    }
    Ok(Some(first))
}

/// Opens it below `own`.
pub(crate) fn open(own: &Path, below: &Below) -> CgroupResult<Dir> {
    let full = own.join(below.plain()?);
    Dir::open(full.clone())?.ok_or_else(|| io("open control group", full, Errno::NOENT))
}

impl Hierarchies {
    /// Groups below that of `path`, which are there already.
    ///
    /// # Errors
    /// If one is not there, would lie elsewhere, or is of a controller that is not known.
    pub fn open_below(
        &self,
        path: &str,
        below: &[Below],
        features: Features,
    ) -> CgroupResult<Box<dyn Cgroup>> {
        super::dir::check_path(path)?;
        if self.is_v2() {
            Ok(Box::new(v2::Group::open_below(
                self, path, below, features,
            )?))
        } else {
            Ok(Box::new(v1::Group::open_below(self, path, below)?))
        }
    }

    /// Removes the group in each hierarchy in which it is empty: no process, no group below it.
    pub fn remove_empty(&self, path: &str) {
        if super::dir::check_path(path).is_err() {
            return;
        }
        let path = path.trim_start_matches('/');
        let v2 = self.v2.as_ref().map(|mount| match self.is_v2() {
            true => self.v2_base_for(path),
            false => mount.clone(),
        });
        let v1 = self.v1.iter().map(|v1| v1.mount.clone());
        for base in v1.chain(v2) {
            // The kernel refuses it for one that is in use.
            let _ = rustix::fs::rmdir(base.join(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_model::Resources;

    fn below(controller: &str, path: &str) -> Below {
        Below {
            controller: controller.to_owned(),
            path: path.to_owned(),
        }
    }

    #[test]
    fn plain_stays_below() {
        assert_eq!(below("", "/a//b/./../c").plain().expect("path"), "a/c");
        assert_eq!(below("", "/").plain().expect("path"), "");
        for bad in ["..", "a/../..", "/../c2", "a\0"] {
            assert!(below("", bad).plain().is_err(), "{bad}");
        }
    }

    #[test]
    fn of_hierarchy_one_path_for_controllers_that_share_it() {
        let both = ["cpu".to_owned(), "cpuacct".to_owned()];
        let same = [below("cpu", "a"), below("cpuacct", "/a")];
        let found = of_hierarchy(&same, &both).expect("one").expect("some");
        assert_eq!(found.path, "a");
        let two = [below("cpu", "a"), below("cpuacct", "b")];
        assert!(of_hierarchy(&two, &both).is_err());
        let other = [below("memory", "a")];
        assert_eq!(of_hierarchy(&other, &both).expect("none"), None);
        let unit = ["name=systemd".to_owned()];
        assert!(
            of_hierarchy(&[below("systemd", "a")], &unit)
                .expect("unit")
                .is_some()
        );
    }

    /// Parents come and go with the groups of others; none may fail for that.
    #[test]
    fn remove_empty_parents_never_fail_those_who_make_groups_in_them() {
        const ROUNDS: usize = 60;
        let hierarchies = Hierarchies::detect().expect("hierarchies");
        let features = Features::probe();
        let parent = format!("/hull-sys-test-below-{}", std::process::id());
        let (parent, hierarchies) = (parent.as_str(), &hierarchies);
        std::thread::scope(|scope| {
            for name in ["a", "b", "c"] {
                scope.spawn(move || {
                    let path = format!("{parent}/{name}");
                    for _ in 0..ROUNDS {
                        let group = hierarchies
                            .create(&path, &Resources::default(), features)
                            .expect("create");
                        group.remove().expect("remove");
                        hierarchies.remove_empty(parent);
                    }
                });
            }
        });
        hierarchies.remove_empty(parent);
        let left = hierarchies.open(parent, features).expect("open");
        assert!(left.is_none(), "{left:?}");
    }
}
