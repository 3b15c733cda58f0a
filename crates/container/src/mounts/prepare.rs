//! The parent's part: what can be made beforehand is made, the rest is left to the child.

use std::cell::OnceCell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use hull_proto::plan::{MountKind, MountOptions, PlanMount};
use hull_sys::features::Features;
use hull_sys::{mount, path};

use super::bind::{self, BindByPath};
use super::fresh::{self, Fresh};
use super::options::{self, Late, attributes};
use super::{Covers, DEV, OVER_PROC, OverProc, PROC, PreparedMount, Source};
use crate::cgroup::CgroupView;
use crate::target::Target;
use crate::{Host, LaunchError};

impl PreparedMount {
    /// Prepares a mount of the plan. `by_parent`: file systems that may be are made at once.
    pub(crate) fn prepare(
        mount: &PlanMount,
        host: &Host,
        cgroup_views: &[hull_sys::cgroup::View],
        descriptors: &[OwnedFd],
        by_parent: bool,
    ) -> Result<Self, LaunchError> {
        let mut made = Self::begin(mount)?;
        let options = &mount.options;
        made.source = match &mount.kind {
            MountKind::Bind { source, recursive } => {
                let fail = |errno| LaunchError::Source {
                    path: source.clone(),
                    target: made.target.as_str().to_owned(),
                    source: errno,
                };
                if let Some(link) = bind::link(source, options).map_err(fail)? {
                    made.source = Source::Link(link);
                    return Ok(made);
                }
                let opened = bind::open(source, options).map_err(fail)?;
                made.is_dir = path::is_dir(&opened).map_err(fail)?;
                let tree = mount::clone_tree(opened.as_fd(), c"", *recursive).map_err(fail)?;
                made.late = options::set_on_bind(&tree, options, *recursive, host.features, fail)?;
                if made.target.as_str() == PROC {
                    check_proc(&tree, source)?;
                }
                Source::Detached(tree)
            }
            MountKind::Descriptor { fd } => {
                let given = descriptors
                    .get(*fd)
                    .and_then(|given| given.try_clone().ok());
                let given = given.ok_or_else(|| {
                    LaunchError::Plan(format!("no descriptor {fd} was sent for {}", mount.target))
                })?;
                Source::Detached(given)
            }
            MountKind::Cgroup => {
                made.late = Late::of_fresh(options, host.features)?;
                if host.hierarchies.is_v2() {
                    Source::Cgroup2
                } else {
                    let read_only = options.read_only;
                    let view = CgroupView::prepare(cgroup_views, read_only, host.features)?;
                    Source::CgroupV1(view)
                }
            }
            kind => {
                made.late = Late::of_fresh(options, host.features)?;
                made.file_system(kind, options, by_parent)?
            }
        };
        let is_proc = match &made.source {
            Source::Proc | Source::Remount(_) => true,
            Source::Fresh(fresh) => fresh.kind() == c"proc",
            _ => false,
        };
        if is_proc || OVER_PROC.contains(&made.target.as_str()) {
            made.over_proc = OverProc::Yes;
        }
        Ok(made)
    }

    fn begin(mount: &PlanMount) -> Result<Self, LaunchError> {
        let target = Target::new(&mount.target)?;
        if target.is_root() && !mount.options.remount {
            return Err(LaunchError::Plan("cannot mount over the root".to_owned()));
        }
        Ok(Self {
            over_proc: if OVER_PROC.contains(&target.as_str()) {
                OverProc::Yes
            } else {
                OverProc::No
            },
            target,
            // Replaced by whoever called.
            source: Source::Proc,
            is_dir: true,
            attributes: attributes(&mount.options),
            nofollow: mount.options.target_nofollow,
            covers: Covers::of(mount),
            sealed: false,
            kept: OnceCell::new(),
            late: None,
        })
    }

    /// One of the kernel's file systems.
    fn file_system(
        &mut self,
        kind: &MountKind,
        options: &MountOptions,
        by_parent: bool,
    ) -> Result<Source, LaunchError> {
        let is_tmpfs = match kind {
            MountKind::Tmpfs { .. } => true,
            MountKind::Filesystem { kind, .. } => kind == "tmpfs",
            _ => false,
        };
        if options.read_only && (is_tmpfs || self.target.as_str() == DEV) && !options.remount {
            self.sealed = true;
            self.attributes = fresh::writable(options);
        }
        Ok(match kind {
            MountKind::Tmpfs { data } => {
                let made = fresh::tmpfs(data, self.attributes, self.target.as_str())?;
                Source::Detached(made)
            }
            MountKind::Devpts => Source::Detached(fresh::devpts(self.attributes)?),
            MountKind::Proc => Source::Proc,
            MountKind::Sysfs => Source::Sysfs,
            MountKind::Mqueue => Source::Mqueue,
            MountKind::Filesystem { kind, source, data } => {
                let mut fresh = Box::new(Fresh::new(kind, source, data)?);
                if options.remount {
                    return Ok(Source::Remount(fresh));
                }
                let made = if by_parent {
                    fresh.by_parent(self.target.as_str(), self.attributes)?
                } else {
                    None
                };
                match made {
                    Some(made) => Source::Detached(made),
                    None => Source::Fresh(fresh),
                }
            }
            other => {
                return Err(LaunchError::Plan(format!("no file system: {other:?}")));
            }
        })
    }

    /// A bind for a parent that may not mount: the child does it.
    pub(crate) fn bind_by_path(mount: &PlanMount, features: Features) -> Result<Self, LaunchError> {
        let mut made = Self::begin(mount)?;
        let MountKind::Bind { source, recursive } = &mount.kind else {
            return Err(LaunchError::Plan("not a bind".to_owned()));
        };
        if mount.options.idmap.is_some() {
            return Err(LaunchError::Plan(format!(
                "the mount at {}: ids of a mount can be mapped with CAP_SYS_ADMIN on the host alone",
                mount.target
            )));
        }
        let fail = |errno| LaunchError::Source {
            path: source.clone(),
            target: made.target.as_str().to_owned(),
            source: errno,
        };
        if let Some(link) = bind::link(source, &mount.options).map_err(fail)? {
            made.source = Source::Link(link);
            return Ok(made);
        }
        let opened = bind::open(source, &mount.options).map_err(fail)?;
        made.is_dir = path::is_dir(&opened).map_err(fail)?;
        if made.target.as_str() == PROC {
            check_proc(&opened, source)?;
        }
        let bind = BindByPath::new(source, *recursive, &mount.options, features)?;
        made.source = Source::Path(Box::new(bind));
        Ok(made)
    }

    /// A read-only bind of one file.
    pub(crate) fn file(source: &Path, target: &str, host: &Host) -> Result<Self, LaunchError> {
        let bind = PlanMount {
            target: target.to_owned(),
            kind: MountKind::Bind {
                source: source.to_owned(),
                recursive: false,
            },
            options: MountOptions {
                read_only: true,
                ..MountOptions::default()
            },
        };
        Self::prepare(&bind, host, &[], &[], true)
    }
}

/// A bind over /proc shows a procfs: others trust what they find there (CVE-2019-16884).
fn check_proc(tree: &OwnedFd, source: &Path) -> Result<(), LaunchError> {
    match mount::has_magic(tree, mount::PROC_MAGIC) {
        Ok(true) => Ok(()),
        _ => Err(LaunchError::Plan(format!(
            "cannot mount over procfs at {PROC}: {} is none",
            source.display()
        ))),
    }
}
