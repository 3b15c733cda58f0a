//! The control group as the plan has it, and as the container sees it on v1.

use std::os::fd::{AsFd, OwnedFd};

use hull_model::Resources;
use hull_model::limits::CgroupExtra;
use hull_proto::plan::{CgroupPlan, DeviceRule as PlanRule};
use hull_sys::Errno;
use hull_sys::cgroup::{self, Cgroup, CgroupError, DeviceKind, DeviceRule, View};
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, Attr, FsContext, Propagation, SetAttr};
use rustix::fs::Mode;

use crate::error::prepare;
use crate::rootfs::open_path;
use crate::{Host, LaunchError};

/// Makes the group and sets its limits: the process is born under them. Adds to `warnings` what
/// could not be set.
///
/// # Errors
/// As [`crate::launch`]; nothing is left.
pub fn create(
    host: &Host,
    plan: &CgroupPlan,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Cgroup>, LaunchError> {
    let rules = plan
        .devices
        .iter()
        .map(rule)
        .collect::<Result<Vec<_>, _>>()?;
    let (limits, extra) = (&plan.resources, &plan.extra);
    let made = host
        .hierarchies
        .create_with(&plan.path, limits, extra, host.features);
    let group = match made {
        Err(error) if is_refused(&error, plan) => match cgroup::absent(limits, extra) {
            // As runc: whoever may make no group, and sets no limit, does without.
            Some(none) => return Ok(none),
            None => return Err(error.into()),
        },
        made => made?,
    };
    let set = group.apply_with(limits, extra).and_then(|found| {
        match group.set_devices(&rules) {
            // Nor may such a caller load programs; nodes of devices cannot be made either.
            Err(error) if is_refused(&error, plan) => Ok(found),
            result => result.map(|()| found),
        }
    });
    match set {
        Ok(found) => {
            warnings.extend(found);
            Ok(group)
        }
        Err(error) => {
            group.abandon();
            Err(error.into())
        }
    }
}

/// What a process joins by itself that is brought into its group by others.
pub(crate) fn not_joined() -> Option<Box<dyn Cgroup>> {
    cgroup::absent(&Resources::default(), &CgroupExtra::default())
}

/// Whether it failed for want of privileges that the caller cannot have.
fn is_refused(error: &CgroupError, plan: &CgroupPlan) -> bool {
    matches!(
        error.errno(),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS)
    ) && plan.optional.unwrap_or_else(is_unprivileged)
}

/// A user other than root, or root of a user namespace.
fn is_unprivileged() -> bool {
    const ALL: &str = "0 0 4294967295";
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !rustix::process::geteuid().is_root()
        || map.split_whitespace().collect::<Vec<_>>().join(" ") != ALL
}

fn rule(plan: &PlanRule) -> Result<DeviceRule, LaunchError> {
    let kind = match plan.kind {
        'a' => DeviceKind::All,
        'b' => DeviceKind::Block,
        'c' => DeviceKind::Char,
        other => {
            return Err(LaunchError::Plan(format!(
                "unknown type of device {other:?}"
            )));
        }
    };
    let has = |letter| plan.access.contains(letter);
    let all = plan.access.is_empty();
    Ok(DeviceRule {
        allow: plan.allow,
        kind,
        major: plan.major,
        minor: plan.minor,
        read: all || has('r'),
        write: all || has('w'),
        mknod: all || has('m'),
    })
}

/// v1 in the container: a tmpfs with the group's own folder of each hierarchy.
#[derive(Debug)]
pub(crate) struct CgroupView {
    pub(crate) mount: OwnedFd,
    binds: Vec<(OwnedFd, OwnedFd)>,
    features: Features,
    read_only: bool,
}

impl CgroupView {
    pub(crate) fn prepare(
        views: &[View],
        read_only: bool,
        features: Features,
    ) -> Result<Self, LaunchError> {
        let fail = || prepare("show the control group");
        let fs = FsContext::open(c"tmpfs").map_err(fail())?;
        fs.string(c"mode", c"0755").map_err(fail())?;
        let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
        let mount = fs.mount(attributes).map_err(fail())?;
        let mut binds = Vec::with_capacity(views.len());
        for view in views {
            rustix::fs::mkdirat(&mount, &view.name, Mode::from_raw_mode(0o755)).map_err(fail())?;
            let target = rustix::fs::openat(
                &mount,
                &view.name,
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(fail())?;
            // Hierarchies with several controllers are found by the name of each.
            if view.name.contains(',') {
                for name in view.name.split(',') {
                    rustix::fs::symlinkat(&view.name, &mount, name).map_err(fail())?;
                }
            }
            let tree = open_path(&view.path)
                .and_then(|dir| mount::clone_tree(dir.as_fd(), c"", false))
                .map_err(fail())?;
            if features.has(Feature::MountSetattr) {
                let set = attributes
                    | if read_only {
                        Attr::MOUNT_ATTR_RDONLY
                    } else {
                        Attr::empty()
                    };
                let change = SetAttr {
                    set: u64::from(set.bits()),
                    propagation: Some(Propagation::Private),
                    ..SetAttr::default()
                };
                mount::set_attr(&tree, false, &change).map_err(fail())?;
            }
            binds.push((tree, target));
        }
        Ok(Self {
            mount,
            binds,
            features,
            read_only,
        })
    }

    /// Attaches the folders, once the tmpfs is. Runs in the child.
    pub(crate) fn attach(&self) -> hull_sys::Result<()> {
        for (tree, target) in &self.binds {
            mount::attach(tree, target)?;
            if self.read_only && !self.features.has(Feature::MountSetattr) {
                crate::mounts::set_read_only(tree.as_fd(), self.features)?;
            }
        }
        if self.read_only {
            crate::mounts::set_read_only(self.mount.as_fd(), self.features)?;
        }
        Ok(())
    }
}
