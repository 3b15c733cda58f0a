//! Which cgroup hierarchies are mounted, and where.

use std::path::{Path, PathBuf};

use super::{CgroupError, CgroupResult};

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1 {
    pub(crate) controllers: Vec<String>,
    pub(crate) mount: PathBuf,
}

/// The hierarchies of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    pub(crate) v1: Vec<V1>,
    /// Mount point of the v2 tree, below which groups are made.
    pub(crate) v2: Option<PathBuf>,
    /// The caller's own group in the v2 tree.
    pub(crate) own_v2: String,
}

/// v1 controllers that are known and used.
const V1_CONTROLLERS: [&str; 13] = [
    "memory",
    "cpu",
    "cpuacct",
    "cpuset",
    "pids",
    "freezer",
    "devices",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "rdma",
    // Without a controller: systemd keeps its units there.
    "name=systemd",
];

impl Hierarchies {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    /// If they cannot be read, or no hierarchy is mounted.
    pub fn detect() -> CgroupResult<Self> {
        let read = |path: &str| {
            std::fs::read_to_string(path).map_err(|source| CgroupError::Detect {
                path: path.to_owned(),
                source,
            })
        };
        let found = Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        Ok(found)
    }

    /// Whether limits are set through the v2 tree.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        !self.v1.iter().any(|v1| {
            v1.controllers
                .iter()
                .any(|name| name == "memory" || name == "pids")
        }) && self.v2.is_some()
    }

    /// The v2 tree alone, even where v1 hierarchies carry the controllers: to walk the ways of a
    /// pure v2 host on a hybrid one, with what controllers the tree has there.
    #[must_use]
    pub fn v2_alone(mut self) -> Self {
        self.v1.clear();
        self
    }

    /// The same with paths that begin at the mount point of the v2 tree, as systemd names them, and
    /// not at the caller's own group.
    #[must_use]
    pub fn from_mount_points(mut self) -> Self {
        "/".clone_into(&mut self.own_v2);
        self
    }

    /// Controllers that can be limited, by their v1 names (v2: as the tree's root lists them).
    #[must_use]
    pub fn controllers(&self) -> Vec<String> {
        if self.is_v2() {
            let file = self.v2_base().join("cgroup.controllers");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            return text.split_whitespace().map(str::to_owned).collect();
        }
        self.v1
            .iter()
            .flat_map(|v1| v1.controllers.clone())
            .filter(|name| !name.starts_with("name="))
            .collect()
    }

    /// Names of the groups directly below `parent`, in whichever hierarchy has them.
    #[must_use]
    pub fn children(&self, parent: &str) -> Vec<String> {
        let mut bases: Vec<PathBuf> = self.v1.iter().map(|v1| v1.mount.clone()).collect();
        if self.v2.is_some() {
            bases.push(self.v2_base());
        }
        let mut names = std::collections::BTreeSet::new();
        for base in bases {
            let entries = std::fs::read_dir(base.join(parent.trim_matches('/')));
            for entry in entries.into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    names.extend(entry.file_name().into_string());
                }
            }
        }
        names.into_iter().collect()
    }

    /// Directory of the v2 tree below which groups are made: the mount, or the caller's own group
    /// where the mount's root is not ours to write.
    pub(crate) fn v2_base(&self) -> PathBuf {
        let mount = self.v2.clone().unwrap_or_default();
        let control = mount.join("cgroup.subtree_control");
        let writable = rustix::fs::access(&control, rustix::fs::Access::WRITE_OK).is_ok();
        if writable || self.own_v2 == "/" {
            return mount;
        }
        mount.join(self.own_v2.trim_start_matches('/'))
    }

    /// The directory from which a group's path counts: the mount, also where its root is not ours
    /// to write but the group is there, or may be made, in a part that was given to us.
    pub(crate) fn v2_base_for(&self, path: &str) -> PathBuf {
        let base = self.v2_base();
        let mount = self.v2.clone().unwrap_or_default();
        if base == mount {
            return base;
        }
        let full = mount.join(path.trim_start_matches('/'));
        let given = full
            .ancestors()
            .take_while(|dir| *dir != mount)
            .find(|dir| dir.exists());
        let ours = |dir: &Path| {
            dir == full || rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
        };
        if given.is_some_and(ours) { mount } else { base }
    }

    fn parse(mountinfo: &str, cgroup: &str) -> Self {
        let (mut v1, mut v2) = (Vec::<V1>::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = left.split(' ').nth(4) else {
                continue;
            };
            let mount = unescape(mount);
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") if v2.is_none() => v2 = Some(mount),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    let controllers: Vec<String> = options
                        .split(',')
                        .filter(|option| V1_CONTROLLERS.contains(option))
                        .map(str::to_owned)
                        .collect();
                    // A hierarchy mounted twice counts once.
                    if !controllers.is_empty() && !v1.iter().any(|v1| v1.controllers == controllers)
                    {
                        v1.push(V1 { controllers, mount });
                    }
                }
                _ => {}
            }
        }
        let own_v2 = cgroup
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .filter(|path| !path.contains("/../") && !path.starts_with("/.."))
            .unwrap_or("/")
            .to_owned();
        Self { v1, v2, own_v2 }
    }
}

/// Mount points write blanks and the like as `\040`.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|digits| *byte == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)))
            .map(|digits| {
                digits
                    .iter()
                    .fold(0u32, |sum, d| sum * 8 + u32::from(d - b'0'))
            });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                out.push(value);
                at += 4;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Path::new(&std::ffi::OsString::from_vec(out)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw
";

    #[test]
    fn parse_hybrid_limits_go_through_v1() {
        let found = Hierarchies::parse(HYBRID, "4:memory:/x\n0::/\n");
        assert!(!found.is_v2());
        assert_eq!(found.v1.len(), 3);
        assert_eq!(found.controllers(), ["cpu", "cpuacct", "memory"]);
        assert_eq!(
            found.v2.as_deref(),
            Some(Path::new("/sys/fs/cgroup/unified"))
        );
    }

    #[test]
    fn parse_pure_v2_with_blank_in_mount_point() {
        let info = "30 23 0:26 / /my\\040cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(info, "0::/user.slice\n");
        assert!(found.is_v2());
        assert_eq!(found.v2.as_deref(), Some(Path::new("/my cg")));
        assert_eq!(found.own_v2, "/user.slice");
    }

    #[test]
    fn parse_garbage_finds_nothing() {
        let found = Hierarchies::parse("x - \n - cgroup\n\n1 - cgroup2", "0::/../..");
        assert!(found.v1.is_empty() && !found.is_v2());
        assert_eq!(found.own_v2, "/");
    }
}
