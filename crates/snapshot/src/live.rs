//! The whole tree of a container that does not run, with its volumes in their places, mounted for
//! as long as a copy takes.
//!
//! A thread makes a mount namespace in which nothing is but that tree, and ends. The namespace lives
//! by its descriptor, so that every mount in it goes with the value that holds it, and at no time
//! the host's mount table knows of any.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hull_sys::clone3::Namespaces;
use hull_sys::features::Feature;
use hull_sys::mount::{
    Attr, FsContext, Propagation, SetAttr, attach, clone_tree, mount_legacy, set_attr,
    set_root_propagation,
};
use hull_sys::{Errno, ns, path};
use rustix::fs::{CWD, Mode, OFlags, open};

use crate::view::{MAX_OPTIONS, c_string, option_string};
use crate::{Overlay, SnapshotError, Snapshotter};

/// Mode of targets that are made.
const TARGET_MODE: Mode = Mode::from_raw_mode(0o755);

/// The tree is copied from and to, not run from.
const NOT_RUN_FROM: Attr = Attr::MOUNT_ATTR_NOSUID
    .union(Attr::MOUNT_ATTR_NODEV)
    .union(Attr::MOUNT_ATTR_NOEXEC);

/// A tree of the host shown in the container's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Path on the host.
    pub source: PathBuf,
    /// Path inside.
    pub target: PathBuf,
    /// Cannot be written.
    pub read_only: bool,
    /// With the mounts below it.
    pub recursive: bool,
}

/// What becomes of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It goes with the mount: targets of binds that had to be made, for a tree that is read.
    Discarded,
    /// It is the container's. Nobody else may mount it meanwhile.
    Kept,
}

/// A mounted tree.
#[derive(Debug)]
pub struct Mounted {
    /// Its root.
    root: OwnedFd,
    /// Keeps the mounts.
    _namespace: OwnedFd,
}

impl Mounted {
    /// A tree that is mounted elsewhere: its root, and the mount namespace it is in.
    pub fn elsewhere(root: OwnedFd, namespace: OwnedFd) -> Self {
        Self {
            root,
            _namespace: namespace,
        }
    }
}

impl AsFd for Mounted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Overlay {
    /// Mounts the tree of `id` over `lowers`, the uppermost first, with binds in their places, the
    /// outer before the inner. `below` stands under all layers.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn mounted(
        &self,
        id: &str,
        lowers: &[PathBuf],
        below: &Path,
        binds: &[Bind],
        writes: Writes,
        read_only: bool,
    ) -> Result<Mounted, SnapshotError> {
        let mut plan = Plan {
            trees: Vec::new(),
            kept: None,
            slots: [self.slot(0)?, self.slot(1)?],
            binds: binds.to_vec(),
            read_only,
        };
        match writes {
            Writes::Kept => {
                let rootfs = self.prepare(id, lowers)?;
                plan.trees = rootfs.lowers;
                plan.kept = Some((rootfs.upper, rootfs.work));
            }
            Writes::Discarded => {
                plan.trees.extend(self.upper_of(id)?);
                plan.trees.extend_from_slice(lowers);
            }
        }
        plan.trees.push(below.to_owned());
        let layers = plan.trees.len();
        let fail = |(source, note): Failure| SnapshotError::Mount {
            layers,
            note,
            source: source.into(),
        };
        std::thread::Builder::new()
            .name("overlay-live".into())
            .spawn(move || plan.carry_out())
            .map_err(|_| fail((Errno::AGAIN, None)))?
            .join()
            .map_err(|_| fail((Errno::IO, None)))?
            .map_err(fail)
    }
}

type Failure = (Errno, Option<String>);

fn plain(error: Errno) -> Failure {
    (error, None)
}

struct Plan {
    /// Layers, the uppermost first.
    trees: Vec<PathBuf>,
    /// Upper and work directory.
    kept: Option<(PathBuf, PathBuf)>,
    /// Empty directories to mount on.
    slots: [PathBuf; 2],
    binds: Vec<Bind>,
    read_only: bool,
}

impl Plan {
    /// Runs on a thread of its own, which ends in the new namespace.
    fn carry_out(self) -> Result<Mounted, Failure> {
        ns::unshare(Namespaces::MOUNT).map_err(plain)?;
        // A slave and not private: what the host unmounts must not stay mounted in here.
        set_root_propagation(Propagation::Slave).map_err(plain)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = open("/proc/thread-self/ns/mnt", flags, Mode::empty()).map_err(plain)?;
        let [slot, scratch] = &self.slots;
        let (upper, work) = match &self.kept {
            Some((upper, work)) => (upper.clone(), work.clone()),
            None => memory(scratch).map_err(plain)?,
        };
        self.overlay(slot, &upper, &work)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(slot, flags, Mode::empty()).map_err(plain)?;
        for bind in &self.binds {
            let note = |e| (e, Some(format!("at {}", bind.target.display())));
            place(root.as_fd(), bind).map_err(note)?;
        }
        if self.read_only {
            let read_only = SetAttr {
                set: u64::from(Attr::MOUNT_ATTR_RDONLY.bits()),
                ..SetAttr::default()
            };
            set_attr(&root, false, &read_only).map_err(plain)?;
        }
        // Nothing of the host stays in the namespace.
        rustix::process::fchdir(&root).map_err(plain)?;
        rustix::process::pivot_root(c".", c".").map_err(plain)?;
        rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH).map_err(plain)?;
        Ok(Mounted {
            root,
            _namespace: namespace,
        })
    }

    fn overlay(&self, slot: &Path, upper: &Path, work: &Path) -> Result<(), Failure> {
        if !Feature::OverlayLowerAppend.is_present() {
            return self.overlay_by_string(slot, upper, work).map_err(plain);
        }
        match self.overlay_by_context(slot, upper, work) {
            Err((Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP, note)) => self
                .overlay_by_string(slot, upper, work)
                .map_err(|e| (e, note)),
            made => made,
        }
    }

    fn overlay_by_context(&self, slot: &Path, upper: &Path, work: &Path) -> Result<(), Failure> {
        let context = FsContext::open(c"overlay").map_err(plain)?;
        let fail = |e| (e, context.log());
        for tree in &self.trees {
            context
                .string(c"lowerdir+", &c_string(tree)?)
                .map_err(fail)?;
        }
        context
            .string(c"upperdir", &c_string(upper)?)
            .map_err(fail)?;
        context.string(c"workdir", &c_string(work)?).map_err(fail)?;
        // The sync of the whole disk at the end is spared: what a copy writes is written as any
        // program writes, and a work directory that bears the mark is made anew.
        let _ = context.flag(c"volatile");
        let mount = context.mount(NOT_RUN_FROM).map_err(fail)?;
        let target = open(slot, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(plain)?;
        attach(&mount, &target).map_err(plain)
    }

    fn overlay_by_string(&self, slot: &Path, upper: &Path, work: &Path) -> Result<(), Errno> {
        let (base, lowers) = option_string(&self.trees)?;
        let mut options = lowers.into_bytes();
        for (key, dir) in [(&b",upperdir="[..], upper), (b",workdir=", work)] {
            options.extend_from_slice(key);
            for &byte in dir.as_os_str().as_bytes() {
                if matches!(byte, b':' | b'\\' | b',') {
                    options.push(b'\\');
                }
                options.push(byte);
            }
        }
        options.extend_from_slice(b",volatile");
        if options.len() > MAX_OPTIONS {
            return Err(Errno::TOOBIG);
        }
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        let target = CString::new(slot.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
        // The thread's own directory: a mount namespace of one's own comes with one.
        rustix::process::chdir(&base)?;
        mount_legacy(
            Some(c"overlay"),
            &target,
            Some(c"overlay"),
            0,
            Some(&options),
        )
    }
}

/// An upper and a work directory that nobody keeps.
fn memory(slot: &Path) -> Result<(PathBuf, PathBuf), Errno> {
    let context = FsContext::open(c"tmpfs")?;
    let mount = context.mount(Attr::empty())?;
    let target = open(slot, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(&mount, &target)?;
    let (upper, work) = (slot.join("upper"), slot.join("work"));
    for dir in [&upper, &work] {
        rustix::fs::mkdirat(CWD, dir, TARGET_MODE)?;
    }
    Ok((upper, work))
}

/// Shows one tree of the host. One that is gone is left out.
fn place(root: BorrowedFd<'_>, bind: &Bind) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let source = match open(&bind.source, flags, Mode::empty()) {
        Ok(source) => source,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
    };
    let target = if path::is_dir(&source)? {
        path::mkdir_all(root, &bind.target, TARGET_MODE)?
    } else {
        path::create_file(root, &bind.target, Mode::from_raw_mode(0o644))?
    };
    let mount = clone_tree(source.as_fd(), c"", bind.recursive)?;
    let mut set = NOT_RUN_FROM;
    if bind.read_only {
        set |= Attr::MOUNT_ATTR_RDONLY;
    }
    let change = SetAttr {
        set: u64::from(set.bits()),
        propagation: Some(Propagation::Private),
        ..SetAttr::default()
    };
    match set_attr(&mount, true, &change) {
        // Kernels before 5.12: nothing in here is run, so read-only alone matters.
        Err(Errno::NOSYS) if !bind.read_only => {}
        done => done?,
    }
    attach(&mount, &target)
}
