//! Who makes mounts: the parent beforehand, or the child in its namespaces.
//!
//! ```text
//!                       new file systems    binds and root folder
//! caller's users        parent              parent
//! own user namespace    child               parent
//! … of a caller who
//!   may not mount       child               child, by path
//! ```
//!
//! A file system belongs to the user namespace it is made in: one of the parent's would show the
//! host's ids inside. A bind prepared by the parent reaches what the container's ids could not.

use std::borrow::Cow;
use std::os::fd::OwnedFd;

use hull_proto::LaunchPlan;
use hull_proto::plan::{MountKind, Namespace, PlanMount, RootFs};
use hull_sys::cgroup::View;
use hull_sys::features::Features;

use crate::idmap::IdMaps;
use crate::mounts::PreparedMount;
use crate::rootfs::{self, PreparedRoot};
use crate::spaces::Spaces;
use crate::userns;
use crate::{Host, LaunchError};

/// Options of a tmpfs that are the mount's and not the file system's.
const PER_MOUNT: [&str; 8] = [
    "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec",
];
/// Group of terminals in a container's devpts.
const TTY_GID: u32 = 5;

/// The choice for one launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Makers<'a> {
    spaces: &'a Spaces,
    binds_by_child: bool,
    is_v2: bool,
    /// The control group namespace is the caller's.
    shares_groups: bool,
    /// Mounts that the host makes below the root folder later are seen inside.
    slave_root: bool,
}

impl<'a> Makers<'a> {
    pub(crate) fn choose(
        plan: &LaunchPlan,
        spaces: &'a Spaces,
        is_v2: bool,
    ) -> Result<Self, LaunchError> {
        let shares_groups = plan.namespaces.cgroup == Namespace::Host;
        let slave_root = rootfs::is_slave(&plan.rootfs_propagation);
        let Some(user) = &spaces.user else {
            return Ok(Self {
                spaces,
                binds_by_child: false,
                is_v2,
                shares_groups,
                slave_root,
            });
        };
        user.check_user(&plan.process.user)?;
        Ok(Self {
            spaces,
            binds_by_child: !userns::can_mount(),
            is_v2,
            shares_groups,
            slave_root,
        })
    }

    /// Whether the parent may not mount at all.
    pub(crate) fn binds_by_child(self) -> bool {
        self.binds_by_child
    }

    pub(crate) fn root(
        self,
        root: &RootFs,
        features: Features,
    ) -> Result<PreparedRoot, LaunchError> {
        match root {
            RootFs::Directory { path } if self.binds_by_child => PreparedRoot::by_path(path),
            _ => PreparedRoot::prepare(root, features, self.slave_root),
        }
    }

    /// The mounts with those file systems left to the child that must be.
    pub(crate) fn mounts<'m>(
        self,
        mounts: &'m [PlanMount],
        views: &[View],
    ) -> Cow<'m, [PlanMount]> {
        if self.spaces.user.is_none() {
            return Cow::Borrowed(mounts);
        }
        Cow::Owned(
            mounts
                .iter()
                .map(|mount| self.left_to_child(mount, views))
                .collect(),
        )
    }

    pub(crate) fn mount(
        self,
        mount: &PlanMount,
        host: &Host,
        views: &[View],
        descriptors: &[OwnedFd],
        idmaps: &mut IdMaps,
    ) -> Result<PreparedMount, LaunchError> {
        let prepared = match &mount.kind {
            MountKind::Bind { .. } if self.binds_by_child => {
                return PreparedMount::bind_by_path(mount, host.features);
            }
            _ => {
                let by_parent = self.spaces.user.is_none();
                PreparedMount::prepare(mount, host, views, descriptors, by_parent)?
            }
        };
        if let Some(idmap) = &mount.options.idmap {
            let is_bind = matches!(
                mount.kind,
                MountKind::Bind { .. } | MountKind::Descriptor { .. }
            );
            let tree = prepared.tree().filter(|_| is_bind).ok_or_else(|| {
                let target = &mount.target;
                LaunchError::Plan(format!(
                    "the mount at {target}: ids are mapped in bind mounts alone"
                ))
            })?;
            idmaps.apply(tree, mount, idmap, self.spaces, host.features)?;
        }
        Ok(prepared)
    }

    fn left_to_child(self, mount: &PlanMount, views: &[View]) -> PlanMount {
        let mut mount = mount.clone();
        match &mount.kind {
            MountKind::Tmpfs { data } => {
                let mut own = Vec::new();
                for option in data.split(',').filter(|option| !option.is_empty()) {
                    match option {
                        "ro" => mount.options.read_only = true,
                        "nosuid" => mount.options.nosuid = true,
                        "nodev" => mount.options.nodev = true,
                        "noexec" => mount.options.noexec = true,
                        other if PER_MOUNT.contains(&other) => {}
                        other => own.push(other.to_owned()),
                    }
                }
                mount.kind = file_system("tmpfs", own);
            }
            MountKind::Devpts => {
                let mut options = vec![
                    "newinstance".to_owned(),
                    "ptmxmode=0666".to_owned(),
                    "mode=0620".to_owned(),
                ];
                let has_tty = self.spaces.user.as_ref();
                if has_tty
                    .is_some_and(|user| !user.is_new() || user.outside(0, TTY_GID).1.is_some())
                {
                    options.push(format!("gid={TTY_GID}"));
                }
                mount.kind = file_system("devpts", options);
            }
            // The tree can be mounted from a control group namespace of the container's own alone.
            // Who may not mount has no group to show in its place, and on v1 none at all: what the
            // host has below /sys is hidden (CVE-2023-25809).
            MountKind::Cgroup if self.binds_by_child && (!self.is_v2 || self.shares_groups) => {
                mount.options.read_only = true;
                mount.kind = file_system("tmpfs", vec!["mode=755".to_owned()]);
            }
            MountKind::Cgroup if self.is_v2 && self.shares_groups => {
                if let Some(view) = views.first() {
                    mount.kind = MountKind::Bind {
                        source: view.path.clone(),
                        recursive: false,
                    };
                }
            }
            // The caller's control groups lie below, and a mount that is read-only says nothing
            // of those on it (CVE-2023-25809).
            MountKind::Bind { source, .. }
                if mount.options.read_only && source.as_path() == std::path::Path::new("/sys") =>
            {
                mount.options.recursive_read_only = true;
            }
            _ => {}
        }
        mount
    }
}

fn file_system(kind: &str, data: Vec<String>) -> MountKind {
    MountKind::Filesystem {
        kind: kind.to_owned(),
        source: kind.to_owned(),
        data,
    }
}

/// Whether the child makes a devpts whatever the namespaces.
pub(crate) fn leaves_devpts(mounts: &[PlanMount]) -> bool {
    let is_devpts = |mount: &PlanMount| match &mount.kind {
        MountKind::Filesystem { kind, .. } => kind == "devpts",
        _ => false,
    };
    mounts.iter().any(is_devpts)
}
