//! The first half of a first process's way: namespaces, mounts, root.
//!
//! Nothing here allocates, locks or panics.

use std::os::fd::{AsFd, OwnedFd};

use hull_sys::clone3::Namespaces;
use hull_sys::mount::{self, Attr};
use hull_sys::{Errno, ns, proc};
use rustix::fs::{Mode, OFlags};

use crate::devices::PreparedDev;
use crate::enter::{self, Manner};
use crate::mounts::{self, PreparedMount};
use crate::paths::PreparedPaths;
use crate::process::PreparedProcess;
use crate::report::{At, Failed, Reporter, Step};
use crate::rootchange::RootChange;
use crate::rootfs::PreparedRoot;
use crate::spaces::Spaces;
use crate::stdio;
use crate::sync::{ChildSync, Stage};
use crate::sysctl::{self, Sysctl};

/// All that the child needs for the first half.
#[derive(Debug)]
pub(crate) struct PreparedInit {
    pub(crate) spaces: Spaces,
    pub(crate) own_cgroup_namespace: bool,
    pub(crate) own_network: bool,
    pub(crate) root: PreparedRoot,
    pub(crate) read_only_root: bool,
    pub(crate) mounts: Vec<PreparedMount>,
    pub(crate) dev: PreparedDev,
    pub(crate) paths: PreparedPaths,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) host_name: Vec<u8>,
    pub(crate) domain_name: Vec<u8>,
    /// Folder of the host on which the root is attached; none is over the host's root.
    pub(crate) slot: Option<std::ffi::CString>,
    /// How the root is changed.
    pub(crate) root_change: RootChange,
    /// There is no new mount namespace: no mount but the root's may be changed.
    pub(crate) shares_mounts: bool,
    /// The parent does something before the root is changed.
    pub(crate) before_pivot: bool,
}

/// Runs the whole way; returns only on failure.
pub(crate) fn run(
    init: &PreparedInit,
    process: &PreparedProcess,
    cgroup_files: &[OwnedFd],
    manner: &Manner<'_>,
    sync: Option<&ChildSync>,
    report: &Reporter,
) -> Failed {
    match first_half(init, process, cgroup_files, manner, sync) {
        Ok(proc_root) => enter::run(process, manner, proc_root.as_fd(), report),
        Err(failed) => failed,
    }
}

fn first_half(
    init: &PreparedInit,
    process: &PreparedProcess,
    cgroup_files: &[OwnedFd],
    manner: &Manner<'_>,
    sync: Option<&ChildSync>,
) -> Result<OwnedFd, Failed> {
    // First of all: should the parent be killed on the way, nothing comes late into its group.
    proc::set_parent_death_signal(libc::SIGKILL).at(Step::ParentDeath)?;
    // A single thread that moves itself is moved at once.
    enter::join_cgroup(cgroup_files)?;
    rustix::process::umask(Mode::empty());
    init.spaces.arrive(sync)?;
    if init.own_cgroup_namespace {
        // Only now that it is in its group: the namespace's root is where it is made.
        ns::unshare(Namespaces::CGROUP).at(Step::CgroupNamespace)?;
    }
    if init.own_network {
        ns::loopback_up().at(Step::Loopback)?;
    }
    host_names(init)?;
    enter::session(process)?;
    let proc_root = file_systems(init, process, manner, sync)?;
    Ok(proc_root)
}

fn host_names(init: &PreparedInit) -> Result<(), Failed> {
    if !init.host_name.is_empty() {
        rustix::system::sethostname(&init.host_name).at(Step::HostName)?;
    }
    if !init.domain_name.is_empty() {
        rustix::system::setdomainname(&init.domain_name).at(Step::DomainName)?;
    }
    Ok(())
}

fn file_systems(
    init: &PreparedInit,
    process: &PreparedProcess,
    manner: &Manner<'_>,
    sync: Option<&ChildSync>,
) -> Result<OwnedFd, Failed> {
    if !init.shares_mounts {
        mount::set_root_propagation(init.root_change.bond()).at(Step::Propagation)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old_root = rustix::fs::open(c"/", flags, Mode::empty()).at(Step::Rootfs)?;
    let slot = match &init.slot {
        Some(path) => match rustix::fs::open(path.as_c_str(), flags, Mode::empty()) {
            // The container's ids do not reach the folder, only its descriptor.
            Err(Errno::ACCESS) if init.spaces.user.is_some() => None,
            opened => Some(opened.at(Step::Rootfs)?),
        },
        None => None,
    };
    let root = init
        .root
        .attach(slot.as_ref().unwrap_or(&old_root).as_fd())?;
    let root_fd = root.as_fd();
    init.root_change.cut_off(root_fd, manner.features)?;
    // The one procfs that is trusted: nothing of the image can be mounted over it or lead away
    // from it (CVE-2025-52881), since it is reached by descriptor alone.
    let attributes = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    let proc_root = match mounts::fresh(c"proc", attributes) {
        // The user namespace has no right to mount one, for want of process ids of its own or
        // because the caller's is partly hidden: it is still the caller's that is in sight.
        Err(Errno::PERM) if init.spaces.user.is_some() => trusted_proc(),
        result => result,
    }
    .at(Step::Procfs)?;
    for (index, prepared) in init.mounts.iter().enumerate() {
        prepared.attach(index, root_fd, proc_root.as_fd())?;
    }
    let late = if process.stdio.is_late() {
        Some(stdio::open_late(root_fd, process.identity.uid, sync)?)
    } else {
        None
    };
    init.dev
        .make(root_fd, process.stdio.console(late.as_ref()))?;
    sysctl::apply(&init.sysctls, proc_root.as_fd())?;
    let cwd = enter::working_directory(process, root_fd)?;
    for (index, prepared) in init.mounts.iter().enumerate() {
        prepared.seal(index, manner.features)?;
    }
    init.paths.apply(root_fd, manner.features)?;
    if init.read_only_root {
        mounts::set_read_only(root_fd, manner.features).at(Step::ReadOnly)?;
    }
    if let Some(sync) = sync.filter(|_| init.before_pivot) {
        sync.wait(Stage::BeforePivot)?;
        if let Some(hooks) = manner.hooks {
            rustix::process::fchdir(root_fd).at(Step::Pivot)?;
            hooks.run()?;
        }
    }
    if init.shares_mounts {
        rustix::process::fchdir(root_fd).at(Step::Pivot)?;
        rustix::process::chroot(c".").at(Step::Pivot)?;
    } else {
        init.root_change
            .run(root_fd, old_root.as_fd(), slot.is_some())?;
    }
    rustix::process::fchdir(&cwd).at(Step::Cwd)?;
    Ok(proc_root)
}

/// The procfs of whoever makes the container, before the root is changed.
pub(crate) fn trusted_proc() -> hull_sys::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
    if mount::has_magic(&proc, mount::PROC_MAGIC)? {
        Ok(proc)
    } else {
        Err(Errno::PERM)
    }
}
