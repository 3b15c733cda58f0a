//! The root of a container for a copy: of one that runs by its first process, of one that does not
//! by mounting it.
//!
//! Nothing of the container is executed or loaded, and no thread of the daemon has its root there:
//! the root is a descriptor, and every path is resolved beneath it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use hull_model::{Error, Result};
use hull_proto::{Reply, Request};
use hull_snapshot::{Bind, Mounted, Writes};
use hull_state::ContainerRecord;
use rustix::fs::{Mode, OFlags, Stat, StatVfsMountFlags, fstat, fstatfs, fstatvfs, open};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::OwnedMutexGuard;

use super::entry::Container;
use crate::Engine;
use crate::images::blocking;

/// Magic numbers of file systems that are the kernel's and not the container's: proc, sys, cgroup,
/// cgroup2, devpts, mqueue, debug, trace, security, bpf, config, selinux, efivars, pstore,
/// binfmt_misc and the namespaces. They are seen empty, as by Docker, and nothing is written there:
/// a daemon's write to /proc or /sys acts on the host.
const KERNEL: [u64; 16] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1cd1,
    0x1980_0202,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
    0x6265_6570,
    0xf97c_ff8c,
    0xde5e_81e4,
    0x6165_676c,
    0x4249_4e4d,
    0x6e73_6673,
];

/// A container's root as long as a copy takes.
#[derive(Debug)]
pub(super) struct Root {
    tree: Mounted,
    /// Device and inode of a /dev that is the engine's work.
    dev: Option<(u64, u64)>,
    /// Keeps a container that does not run from being started.
    _op: Option<OwnedMutexGuard<()>>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }
}

impl Root {
    fn new(tree: Mounted, op: Option<OwnedMutexGuard<()>>, record: &ContainerRecord) -> Self {
        let mut root = Self {
            tree,
            dev: None,
            _op: op,
        };
        if !record.mounts.iter().any(|m| m.target == "/dev") {
            root.dev = root.own_dev();
        }
        root
    }

    fn own_dev(&self) -> Option<(u64, u64)> {
        let dev = hull_sys::path::resolve(self.as_fd(), "/dev").ok()?;
        let (dev, root) = (fstat(dev).ok()?, fstat(self.as_fd()).ok()?);
        (dev.st_dev != root.st_dev).then_some((dev.st_dev, dev.st_ino))
    }

    /// Whether a folder is shown without what is in it.
    pub(super) fn hides(&self, dir: BorrowedFd<'_>, stat: &Stat) -> bool {
        self.dev == Some((stat.st_dev, stat.st_ino)) || is_kernel(dir)
    }

    /// Refuses a folder that cannot be written, as Docker does.
    pub(super) fn check_writable(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let fail = |e| Error::internal("cannot look at the container's file system", e);
        let flags = fstatvfs(dir).map_err(fail)?.f_flag;
        if !flags.contains(StatVfsMountFlags::RDONLY) {
            return Ok(());
        }
        let (there, root) = (fstat(dir).map_err(fail)?, fstat(self).map_err(fail)?);
        let what = if there.st_dev == root.st_dev {
            "container rootfs is marked read-only"
        } else {
            "mounted volume is marked read-only"
        };
        Err(Error::new(hull_model::ErrorKind::Forbidden, what))
    }
}

/// Whether a folder is in a file system of the kernel's. One that does not say is not.
pub(super) fn is_kernel(dir: BorrowedFd<'_>) -> bool {
    fstatfs(dir).is_ok_and(|fs| KERNEL.contains(&(fs.f_type as u64 & 0xffff_ffff)))
}

impl Engine {
    /// The root of a container, to be read or to be written.
    pub(super) async fn open_root(
        self: &Arc<Self>,
        container: &Arc<Container>,
        write: bool,
    ) -> Result<Root> {
        super::machine::refuse(&container.record(), "cp")?;
        if let Some(tree) = self.running_root(container).await? {
            return Ok(Root::new(tree, None, &container.record()));
        }
        let mut op = None;
        if write {
            op = Some(Arc::clone(&container.op).lock_owned().await);
            // It may have been started meanwhile.
            if let Some(tree) = self.running_root(container).await? {
                return Ok(Root::new(tree, None, &container.record()));
            }
        }
        let record = container.record();
        let engine = Arc::clone(self);
        blocking(move || {
            let tree = engine.resting_root(&record, write)?;
            Ok(Root::new(tree, op, &record))
        })
        .await
    }

    /// The root of a container's first process, if it has one.
    async fn running_root(&self, container: &Container) -> Result<Option<Mounted>> {
        let (pid, shim) = match (container.with(|r| r.state.pid()), container.shim()) {
            (Some(pid), Some(shim)) => (pid, shim),
            _ => return Ok(None),
        };
        let Ok(opened) = open_process(pid) else {
            return Ok(None);
        };
        // The number could have been another's already. As long as the shim has not seen the end
        // of its child, it was not.
        match shim.call(Request::Status, &[]).await {
            Ok(Reply::Status(status)) if status.pid == Some(pid) && status.exit.is_none() => {
                Ok(Some(opened))
            }
            _ => Ok(None),
        }
    }

    /// Mounts the root of a container that does not run, with its volumes and binds.
    fn resting_root(&self, record: &ContainerRecord, write: bool) -> Result<Mounted> {
        let id = record
            .image_id
            .ok_or_else(|| Error::not_found("the container has no image"))?;
        let image = self.images.by_id(id)?;
        if image.host {
            return Err(Error::invalid(
                "the root of this container is made when it starts and goes when it ends: start it first",
            ));
        }
        let mut points: Vec<_> = record.mounts.iter().filter(|m| m.kind != "tmpfs").collect();
        points.sort_by_key(|m| m.target.split('/').filter(|p| !p.is_empty()).count());
        let binds: Vec<Bind> = points
            .into_iter()
            .map(|point| Bind {
                source: (&point.source).into(),
                target: (&point.target).into(),
                read_only: !point.rw,
                recursive: !point.non_recursive,
            })
            .collect();
        self.snapshots
            .mounted(
                &record.id,
                &self.images.lowers(&image)?,
                &super::rootfs::skeleton(&self.settings),
                &binds,
                if write {
                    Writes::Kept
                } else {
                    Writes::Discarded
                },
                write && record.spec.readonly_rootfs,
            )
            .map_err(crate::internal("cannot look into the container"))
    }
}

/// Root and mount namespace of a process.
fn open_process(pid: u32) -> rustix::io::Result<Mounted> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Fails for one that is gone, and costs little.
    let _process: OwnedFd =
        pidfd_open(number.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // As long as it is open, the mounts stay, even if the container ends.
    let namespace = open(format!("/proc/{pid}/ns/mnt"), flags, Mode::empty())?;
    Ok(Mounted::elsewhere(root, namespace))
}
