//! The way from the old root to the new one: what they are to each other, the pivot, or the change
//! by chroot where nothing can be pivoted.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use hull_proto::LaunchPlan;
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, Propagation};
use hull_sys::{Errno, Result};

use crate::LaunchError;
use crate::mounts::{FdPath, Spreads};
use crate::report::{At, Failed, Step};
use crate::rootfs::{bond, c_string, is_slave};

/// Mount table of the calling thread's namespace.
const MOUNTS: &str = "/proc/thread-self/mountinfo";

/// How the root is changed.
#[derive(Debug)]
pub(crate) struct RootChange {
    slave: bool,
    /// What the root mount is to be in the end; a slave it is from the beginning.
    spreads: Option<Spreads>,
    /// By chroot: the host's procfs and sysfs, which are hidden before.
    chroot: Option<Vec<CString>>,
}

impl RootChange {
    pub(crate) fn prepare(plan: &LaunchPlan) -> std::result::Result<Self, LaunchError> {
        let propagation = plan.rootfs_propagation.as_str();
        let spreads = match propagation {
            "" | "private" | "rprivate" | "slave" | "rslave" => None,
            other => Some(Spreads::parse(other)?),
        };
        let chroot = if plan.no_pivot {
            Some(left_behind()?)
        } else {
            None
        };
        Ok(Self {
            slave: is_slave(propagation),
            spreads,
            chroot,
        })
    }

    /// What the host's mounts are in the new mount namespace.
    pub(crate) fn bond(&self) -> Propagation {
        bond(self.slave)
    }

    /// Kernels before 5.12: the root's mounts are cut off from their peers once attached.
    pub(crate) fn cut_off(
        &self,
        root: BorrowedFd<'_>,
        features: Features,
    ) -> std::result::Result<(), Failed> {
        if features.has(Feature::MountSetattr) {
            return Ok(());
        }
        let path = FdPath::new(root);
        let flags = self.bond().bits() | libc::MS_REC;
        path.as_c_str()
            .and_then(|path| mount::mount_legacy(None, path, None, flags, None))
            .at(Step::Propagation)
    }

    /// Runs in the child; `elsewhere` if the new root is attached on its own folder.
    pub(crate) fn run(
        &self,
        root: BorrowedFd<'_>,
        old_root: BorrowedFd<'_>,
        elsewhere: bool,
    ) -> std::result::Result<(), Failed> {
        match &self.chroot {
            None => pivot(root, old_root).at(Step::Pivot)?,
            Some(left) => {
                for (index, path) in left.iter().enumerate() {
                    hide(path).at_index(Step::HideHost, index)?;
                }
                if elsewhere {
                    mount::attach(root, old_root).at(Step::Pivot)?;
                }
                rustix::process::fchdir(root).at(Step::Pivot)?;
                rustix::process::chroot(c".").at(Step::Pivot)?;
                rustix::process::chdir(c"/").at(Step::Pivot)?;
            }
        }
        // Not before: a root that spreads its mounts cannot be pivoted to.
        match &self.spreads {
            Some(spreads) => spreads.set_by_path(c"/").at(Step::RootPropagation),
            None => Ok(()),
        }
    }
}

/// The new root takes the place of the old one, which is then detached with all below it.
fn pivot(root: BorrowedFd<'_>, old_root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    // "." for both: the old root ends up on top of the new one and needs no folder in it.
    rustix::process::pivot_root(c".", c".")?;
    // What the new root was made on lies stacked on the old one, and "." is the topmost of the
    // stack: each goes, the old root last. Were it to stay, the next one to join the namespace
    // would find it where the container's root should be.
    rustix::process::fchdir(old_root)?;
    mount::detach(c".")?;
    loop {
        match mount::detach(c".") {
            Ok(()) => {}
            // The old root is no part of the namespace any more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    rustix::process::chdir(c"/")
}

/// Takes a file system of the host's out of the namespace, or covers it where it is locked: who
/// breaks out of a chroot finds none through which the host is ruled.
fn hide(path: &CString) -> Result<()> {
    match mount::detach(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Locked, or gone with the one it lay on.
        Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let data = Some(c"size=0");
    match mount::mount_legacy(Some(c"none"), path, Some(c"tmpfs"), 0, data) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Where procfs and sysfs are mounted, those below others first.
fn left_behind() -> std::result::Result<Vec<CString>, LaunchError> {
    let text = std::fs::read_to_string(MOUNTS).map_err(|error| {
        LaunchError::Plan(format!(
            "cannot read {MOUNTS}: {error}: mount a procfs there"
        ))
    })?;
    let mut found = text
        .lines()
        .filter_map(parse)
        .map(c_string)
        .collect::<std::result::Result<Vec<_>, _>>()?;
    found.reverse();
    Ok(found)
}

/// The mount point of a line of mountinfo, if it is a whole procfs or sysfs.
fn parse(line: &str) -> Option<String> {
    let (fields, rest) = line.split_once(" - ")?;
    let kind = rest.split(' ').next()?;
    let mut fields = fields.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let is_whole = root == "/" && matches!(kind, "proc" | "sysfs");
    is_whole.then(|| {
        point
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_whole_proc_and_sysfs_alone() {
        for (line, expected) in [
            ("24 1 0:22 / /proc rw,nosuid - proc proc rw", Some("/proc")),
            (
                "25 1 0:23 / /s\\040y rw shared:3 - sysfs sysfs rw",
                Some("/s y"),
            ),
            ("26 1 0:22 /sys /x rw - proc proc rw", None),
            ("27 1 0:22 / /x rw - tmpfs proc rw", None),
            ("odd", None),
        ] {
            assert_eq!(parse(line).as_deref(), expected, "{line}");
        }
    }
}
