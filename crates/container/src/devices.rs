//! Device nodes, links and the console in /dev.

use std::os::fd::{AsFd, BorrowedFd};

use hull_proto::plan::{MountKind, PlanDevice, PlanMount};
use hull_sys::{Errno, mount};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};

use crate::LaunchError;
use crate::report::{At, Failed, Step};
use crate::rootfs::c_string;
use crate::stdio::Console;
use crate::target::Target;

/// Links that every container has.
const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 6] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
    (c"/proc/kcore", c"core"),
];

/// What is made in /dev.
#[derive(Debug)]
pub(crate) struct PreparedDev {
    dev: Target,
    nodes: Vec<Node>,
    /// It is the host's, and nothing is made in it.
    is_bound: bool,
}

/// Folder in which an image's symbolic links are not followed: nodes are not to be led into what
/// else is mounted.
const DEV: &str = "/dev/";

#[derive(Debug)]
struct Node {
    target: Target,
    kind: FileType,
    number: u64,
    mode: Mode,
    owner: (u32, u32),
    /// The host's node of the same name, for hosts that forbid mknod.
    host_path: std::ffi::CString,
}

impl PreparedDev {
    /// A /dev that is bound there, the host's for one, is left as it is.
    pub(crate) fn prepare(
        devices: &[PlanDevice],
        mounts: &[PlanMount],
    ) -> Result<Self, LaunchError> {
        let last = mounts
            .iter()
            .rev()
            .find(|mount| mount.target.trim_end_matches('/') == "/dev");
        let is_bound = matches!(
            last,
            Some(PlanMount {
                kind: MountKind::Bind { .. },
                ..
            })
        );
        let devices = if is_bound { &[] } else { devices };
        let nodes = devices
            .iter()
            .map(Node::prepare)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            dev: Target::new("/dev")?,
            nodes,
            is_bound,
        })
    }

    /// Runs in the child, with the umask at zero and the host's /dev still in sight.
    pub(crate) fn make(
        &self,
        root: BorrowedFd<'_>,
        console: Option<Console<'_>>,
    ) -> Result<(), Failed> {
        if self.is_bound {
            let Some(terminal) = console else {
                return Ok(());
            };
            let dev = self.dev.ensure_plain(root, true).at(Step::Console)?;
            return match cover_console(dev.as_fd(), terminal) {
                Err(Errno::NOENT) => Ok(()),
                result => result.at(Step::Console),
            };
        }
        for (index, node) in self.nodes.iter().enumerate() {
            node.make(root).at_index(Step::Device, index)?;
        }
        // Not through a symlink in the image (CVE-2026-41579): the descriptor is inside in any
        // case, but links belong into the container's own /dev.
        let dev = self.dev.ensure_plain(root, true).at(Step::Links)?;
        for (target, name) in LINKS {
            match rustix::fs::symlinkat(target, &dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).at(Step::Links),
            }
        }
        if let Some(terminal) = console {
            make_console(dev.as_fd(), terminal).at(Step::Console)?;
        }
        Ok(())
    }
}

/// Binds the terminal by its descriptor: no name is looked up that could have been replaced
/// (CVE-2025-52565).
fn make_console(dev: BorrowedFd<'_>, terminal: Console<'_>) -> hull_sys::Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(
        dev,
        c"console",
        flags | OFlags::EXCL,
        Mode::from_raw_mode(0o620),
    ) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    cover_console(dev, terminal)
}

fn cover_console(dev: BorrowedFd<'_>, terminal: Console<'_>) -> hull_sys::Result<()> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::openat(dev, c"console", path, Mode::empty())?;
    match terminal {
        Console::Mount(tree) => mount::attach(tree, target),
        Console::File(file) => mount::attach(mount::clone_tree(file, c"", false)?, target),
    }
}

impl Node {
    fn prepare(device: &PlanDevice) -> Result<Self, LaunchError> {
        let target = Target::new(&device.path)?;
        let kind = if device.fifo {
            FileType::Fifo
        } else if device.block {
            FileType::BlockDevice
        } else {
            FileType::CharacterDevice
        };
        Ok(Self {
            host_path: c_string(target.as_str())?,
            target,
            kind,
            number: if device.fifo {
                0
            } else {
                makedev(device.major, device.minor)
            },
            mode: Mode::from_raw_mode(device.mode & 0o7777),
            owner: (device.uid, device.gid),
        })
    }

    fn make(&self, root: BorrowedFd<'_>) -> hull_sys::Result<()> {
        let is_plain = self.target.as_str().starts_with(DEV);
        let (parent, name) = if is_plain {
            self.target.ensure_plain_parent(root)?
        } else {
            self.target.ensure_parent(root)?
        };
        match rustix::fs::mknodat(&parent, name.as_c_str(), self.kind, self.mode, self.number) {
            Ok(()) => {}
            // There already, by a mount of the user's or from the image: it counts if it is the
            // same device.
            Err(Errno::EXIST) => return self.verify(parent.as_fd(), name),
            Err(Errno::PERM) => return self.bind(root),
            Err(errno) => return Err(errno),
        }
        if self.owner == (0, 0) {
            return Ok(());
        }
        rustix::fs::chownat(
            &parent,
            name.as_c_str(),
            Some(rustix::fs::Uid::from_raw(self.owner.0)),
            Some(rustix::fs::Gid::from_raw(self.owner.1)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    fn verify(&self, parent: BorrowedFd<'_>, name: &std::ffi::CString) -> hull_sys::Result<()> {
        let stat = rustix::fs::statat(parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == self.kind && stat.st_rdev == self.number {
            Ok(())
        } else {
            Err(Errno::EXIST)
        }
    }

    /// Binds the host's node, if it is the right one.
    fn bind(&self, root: BorrowedFd<'_>) -> hull_sys::Result<()> {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::open(self.host_path.as_c_str(), path, Mode::empty())?;
        let stat = rustix::fs::fstat(&node)?;
        if FileType::from_raw_mode(stat.st_mode) != self.kind || stat.st_rdev != self.number {
            return Err(Errno::NODEV);
        }
        let target = if self.target.as_str().starts_with(DEV) {
            self.target.ensure_plain(root, false)?
        } else {
            self.target.ensure(root, false)?
        };
        mount::attach(mount::clone_tree(node.as_fd(), c"", false)?, target)
    }
}
