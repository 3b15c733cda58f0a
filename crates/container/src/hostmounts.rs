//! Containers in their maker's mount namespace, or in a given one: the root is attached on its folder there and the
//! process is put in it by chroot. What was mounted stays until it is detached by whoever made it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use hull_proto::LaunchPlan;
use hull_proto::plan::{Namespace, RootFs};
use hull_sys::clone3::{Clone3, Namespaces, clone3};
use hull_sys::{Errno, Result, mount, ns, pidfd};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::LaunchError;
use crate::error::prepare;
use crate::report;
use crate::rootfs::{PreparedRoot, c_path};

/// The root's mount, detached with all that is mounted below it unless the launch succeeds.
#[derive(Debug)]
pub(crate) struct HostMounts {
    path: CString,
    id: u64,
    /// The namespace, if it is not the caller's.
    given: Option<OwnedFd>,
}

impl HostMounts {
    /// `None` for a container with a mount namespace of its own.
    pub(crate) fn prepare(
        plan: &LaunchPlan,
        root: &PreparedRoot,
        descriptors: &[OwnedFd],
    ) -> std::result::Result<Option<Self>, LaunchError> {
        let given = match plan.namespaces.mount {
            Namespace::New => return Ok(None),
            Namespace::Host => None,
            Namespace::Fd(index) => descriptors
                .get(index)
                .map(|given| report::duplicate(given.as_fd()))
                .transpose()?,
        };
        let wrong = |why: &str| {
            let text = format!("without a mount namespace of its own a container {why}");
            Err(LaunchError::Plan(text))
        };
        if given.is_none() {
            if plan.namespaces.user != Namespace::Host {
                return wrong("cannot have a user namespace: it may not mount");
            }
            if !plan.masked_paths.is_empty() || !plan.readonly_paths.is_empty() {
                return wrong("cannot have masked or read-only paths");
            }
        }
        match (&plan.rootfs, root) {
            // The child makes it, and nothing is known of it here.
            (RootFs::Directory { .. }, PreparedRoot::Path { .. }) => Ok(None),
            (RootFs::Directory { path }, PreparedRoot::Detached(tree)) => Ok(Some(Self {
                path: c_path(path)?,
                id: mount_id(tree).map_err(prepare("ask for the id of a mount"))?,
                given,
            })),
            _ => wrong("needs a folder as root file system"),
        }
    }

    /// It stays; returns its id, if it is in the caller's namespace.
    pub(crate) fn keep(mut self) -> Option<u64> {
        // What is left to drop is an empty path, at which nothing is.
        self.path = CString::default();
        let id = self.given.is_none().then_some(self.id);
        self.given = None;
        id
    }
}

impl Drop for HostMounts {
    fn drop(&mut self) {
        let Some(given) = &self.given else {
            let _ = detach(&self.path, self.id);
            return;
        };
        // By a process: a thread that shares its folders with others cannot go there.
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let there =
            || ns::join(given, Namespaces::MOUNT).and_then(|()| detach(&self.path, self.id));
        let helper = clone3(&args, || i32::from(there().is_err()));
        if let Ok(helper) = helper {
            let _ = pidfd::wait(&helper.pidfd, true);
        }
    }
}

fn detach(path: &std::ffi::CStr, id: u64) -> Result<()> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    if found.stx_mnt_id == id {
        mount::detach(path)?;
    }
    Ok(())
}

fn mount_id(fd: impl AsFd) -> Result<u64> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
}

/// Detaches the root of a container that had no mount namespace of its own, if it is still what is
/// mounted at `path`.
///
/// # Errors
/// The errno of the calls.
pub fn detach_root(path: &Path, id: u64) -> Result<()> {
    let path = c_path(path).map_err(|_| Errno::INVAL)?;
    detach(&path, id)
}
