//! The mounts of a plan: sources prepared by the parent, attached in order by the child.

mod bind;
mod copy_up;
mod fd_path;
mod fresh;
mod options;
mod prepare;

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hull_proto::plan::{MountKind, PlanMount};
use hull_sys::Errno;
use hull_sys::features::Features;
use hull_sys::mount::{self, Attr};
use rustix::fs::Mode;

use crate::cgroup::CgroupView;
use crate::report::{At, Failed, Step};
use crate::rootfs::c_path;
use crate::target::Target;

use bind::BindByPath;
use fresh::{Fresh, Made};
use options::Late;

pub(crate) use fd_path::FdPath;
pub(crate) use fresh::plain as fresh;
pub(crate) use options::{Spreads, set_read_only};

/// Files of procfs over which a mount is harmless (what lxcfs provides, as with runc).
const OVER_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Folders that others trust or that are filled later: no symbolic link of the image leads their
/// mount elsewhere (CVE-2019-19921, CVE-2026-41579).
const PLAIN: [&str; 3] = [PROC, "/sys", DEV];
const PROC: &str = "/proc";
const DEV: &str = "/dev";

/// Where the source comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached mount of the parent's.
    Detached(OwnedFd),
    /// Made by the child, in its namespaces.
    Proc,
    Sysfs,
    Mqueue,
    Cgroup2,
    /// A path of the host: cloned by the child where the parent may not.
    Path(Box<BindByPath>),
    /// Any other file system.
    Fresh(Box<Fresh>),
    /// Other options for what is mounted there.
    Remount(Box<Fresh>),
    /// No mount: a symbolic link.
    Link(CString),
    /// v1: a tmpfs with a bind in each folder.
    CgroupV1(CgroupView),
}

/// A mount ready to be attached.
#[derive(Debug)]
pub(crate) struct PreparedMount {
    pub(crate) target: Target,
    pub(crate) source: Source,
    is_dir: bool,
    attributes: Attr,
    over_proc: OverProc,
    nofollow: bool,
    covers: Covers,
    /// Made read-only once all is made in it: others may be mounted below.
    sealed: bool,
    /// The child's own mount, kept until then.
    kept: OnceCell<OwnedFd>,
    /// What is done once it is attached.
    late: Option<Late>,
}

/// What a mount may cover of procfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OverProc {
    No,
    Yes,
}

/// What a new file system takes over from the folder that it covers.
#[derive(Debug, Clone, Copy, Default)]
struct Covers {
    mode: bool,
    owner: bool,
    content: bool,
}

impl Covers {
    fn of(mount: &PlanMount) -> Self {
        let options = &mount.options;
        let has = |name: &str| match &mount.kind {
            MountKind::Tmpfs { data } => data.split(',').any(|option| option.starts_with(name)),
            MountKind::Filesystem { data, .. } => data
                .iter()
                .flat_map(|option| option.split(','))
                .any(|option| option.starts_with(name)),
            _ => false,
        };
        Self {
            mode: options.copy_mode,
            owner: options.copy_up && !has("uid=") && !has("gid="),
            content: options.copy_up,
        }
    }

    /// Runs in the child, before the mount covers `target`.
    fn take(self, target: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> hull_sys::Result<()> {
        if self.mode {
            let mode = rustix::fs::fstat(target)?.st_mode & 0o7777;
            let flags = rustix::fs::AtFlags::empty();
            rustix::fs::chmodat(mount, c".", Mode::from_raw_mode(mode), flags)?;
        }
        if self.content {
            copy_up::copy(target, mount, self.owner)?;
        }
        Ok(())
    }
}

impl PreparedMount {
    /// The detached tree, if the parent has made one.
    pub(crate) fn tree(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Detached(tree) => Some(tree.as_fd()),
            _ => None,
        }
    }

    /// The target, with what the kernel said of the options when the parent tried them.
    pub(crate) fn describe(&self) -> String {
        let target = self.target.as_str();
        match &self.source {
            Source::Fresh(fresh) | Source::Remount(fresh) => {
                let kind = fresh.kind().to_string_lossy();
                let note = fresh.note.as_deref().unwrap_or("see the kernel's log");
                format!("{target} with type {kind} ({note})")
            }
            _ => target.to_owned(),
        }
    }

    /// Attaches it beneath `root`. Runs in the child.
    pub(crate) fn attach(
        &self,
        index: usize,
        root: BorrowedFd<'_>,
        proc: BorrowedFd<'_>,
    ) -> Result<(), Failed> {
        if let Source::Link(text) = &self.source {
            return self.make_link(root, text).at_index(Step::Target, index);
        }
        let mut covers = self.covers;
        // A folder that is made here has no mode worth taking over.
        covers.mode = covers.mode && self.target.resolve(root).is_ok();
        let target = self.resolve(root).at_index(Step::Target, index)?;
        if self.over_proc == OverProc::No
            && mount::has_magic(&target, mount::PROC_MAGIC).at_index(Step::Target, index)?
        {
            return Err(Errno::PERM).at_index(Step::MountOverProc, index);
        }
        let mut late = self.late;
        let attributes = self.attributes;
        let made = match &self.source {
            Source::Detached(mount) => {
                return self.finish(index, &target, mount.as_fd(), covers, late);
            }
            Source::Proc => return self.finish(index, &target, proc, covers, late),
            Source::CgroupV1(view) => {
                self.finish(index, &target, view.mount.as_fd(), covers, None)?;
                view.attach().at_index(Step::Mount, index)?;
                return match late {
                    // Not before: it may be that nothing can be mounted in it any more.
                    Some(late) => late
                        .apply(view.mount.as_fd())
                        .at_index(Step::MountOptions, index),
                    None => Ok(()),
                };
            }
            Source::Sysfs => fresh(c"sysfs", attributes).at_index(Step::Mount, index)?,
            Source::Mqueue => fresh(c"mqueue", attributes).at_index(Step::Mount, index)?,
            Source::Cgroup2 => fresh(c"cgroup2", attributes).at_index(Step::Mount, index)?,
            Source::Path(bind) => {
                let (made, left) = bind.make().at_index(Step::MountSource, index)?;
                late = left;
                made
            }
            Source::Fresh(new) => {
                let made = new.make(target.as_fd(), attributes);
                match made.at_index(Step::Mount, index)? {
                    Made::Detached(made) => made,
                    Made::Attached => {
                        return self.finish_attached(index, root, &target, covers, late);
                    }
                }
            }
            Source::Remount(new) => {
                return new
                    .remount(target.as_fd(), attributes)
                    .at_index(Step::MountOptions, index);
            }
            Source::Link(_) => return Ok(()),
        };
        self.finish(index, &target, made.as_fd(), covers, late)?;
        if self.sealed {
            let _ = self.kept.set(made);
        }
        Ok(())
    }

    fn finish(
        &self,
        index: usize,
        target: &OwnedFd,
        mount: BorrowedFd<'_>,
        covers: Covers,
        late: Option<Late>,
    ) -> Result<(), Failed> {
        covers
            .take(target.as_fd(), mount)
            .at_index(Step::CopyUp, index)?;
        mount::attach(mount, target).at_index(Step::Mount, index)?;
        match late {
            Some(late) => late.apply(mount).at_index(Step::MountOptions, index),
            None => Ok(()),
        }
    }

    /// What mount(2) has put on the target has no descriptor yet.
    fn finish_attached(
        &self,
        index: usize,
        root: BorrowedFd<'_>,
        target: &OwnedFd,
        covers: Covers,
        late: Option<Late>,
    ) -> Result<(), Failed> {
        let made = self.resolve(root).at_index(Step::Target, index)?;
        if !fresh::is_mount_root(&made).at_index(Step::Target, index)? {
            // Somebody has moved it away in the meantime.
            return Err(Errno::STALE).at_index(Step::Target, index);
        }
        covers
            .take(target.as_fd(), made.as_fd())
            .at_index(Step::CopyUp, index)?;
        if let Some(late) = late {
            late.apply(made.as_fd())
                .at_index(Step::MountOptions, index)?;
        }
        if self.sealed {
            let _ = self.kept.set(made);
        }
        Ok(())
    }

    /// Makes it read-only now that all is made that lies in it. Runs in the child.
    pub(crate) fn seal(&self, index: usize, features: Features) -> Result<(), Failed> {
        if !self.sealed {
            return Ok(());
        }
        let kept = self.tree().or_else(|| self.kept.get().map(AsFd::as_fd));
        match kept {
            Some(mount) => set_read_only(mount, features).at_index(Step::MountOptions, index),
            None => Ok(()),
        }
    }

    fn resolve(&self, root: BorrowedFd<'_>) -> hull_sys::Result<OwnedFd> {
        if matches!(self.source, Source::Remount(_)) {
            return self.target.resolve(root);
        }
        if self.nofollow {
            return self.target.ensure_itself(root, self.is_dir);
        }
        let is_trusted = matches!(self.source, Source::Proc | Source::Sysfs);
        if is_trusted || PLAIN.contains(&self.target.as_str()) {
            return self.target.ensure_plain(root, self.is_dir);
        }
        self.target.ensure(root, self.is_dir)
    }

    fn make_link(&self, root: BorrowedFd<'_>, text: &CString) -> hull_sys::Result<()> {
        let (parent, name) = self.target.ensure_parent(root)?;
        match rustix::fs::symlinkat(text.as_c_str(), &parent, name.as_c_str()) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
        // There already: it counts if it says the same.
        let mut found = [0u8; 4096];
        let length = rustix::fs::readlinkat_raw(&parent, name.as_c_str(), &mut found)
            .map_err(|_| Errno::EXIST)?;
        if found.get(..length) == Some(text.to_bytes()) {
            Ok(())
        } else {
            Err(Errno::EXIST)
        }
    }

    pub(crate) fn as_devpts(&self, plan: &PlanMount) -> Option<BorrowedFd<'_>> {
        let is_devpts = match &plan.kind {
            MountKind::Devpts => true,
            MountKind::Filesystem { kind, .. } => kind == "devpts",
            _ => false,
        };
        self.tree().filter(|_| is_devpts)
    }
}

/// The file that the container will see at `wanted`, if a bind of the plan puts it there:
/// its source and the rest of the path below it.
pub(crate) fn bind_over<'a>(
    mounts: &'a [PlanMount],
    wanted: &str,
) -> Option<(&'a std::path::Path, CString)> {
    mounts.iter().rev().find_map(|mount| {
        let MountKind::Bind { source, .. } = &mount.kind else {
            return None;
        };
        let rest = std::path::Path::new(wanted)
            .strip_prefix(&mount.target)
            .ok()?;
        Some((source.as_path(), c_path(rest).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bind_over_last_bind_wins() {
        let bind = |source: &str, target: &str| PlanMount {
            target: target.into(),
            kind: MountKind::Bind {
                source: source.into(),
                recursive: false,
            },
            options: hull_proto::plan::MountOptions::default(),
        };
        let mounts = [bind("/x/etc", "/etc"), bind("/y/passwd", "/etc/passwd")];
        let found = bind_over(&mounts, "/etc/passwd").expect("found");
        assert_eq!(
            (found.0, found.1.as_c_str()),
            (std::path::Path::new("/y/passwd"), c"")
        );
        let found = bind_over(&mounts, "/etc/group").expect("found");
        assert_eq!(
            (found.0, found.1.as_c_str()),
            (std::path::Path::new("/x/etc"), c"group")
        );
    }
}
