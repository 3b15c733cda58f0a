//! Mounts as descriptors: made, configured and attached without a path of the host in sight.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::{Result, check};

pub use rustix::mount::MountAttrFlags as Attr;

/// `OPEN_TREE_CLONE` with close-on-exec, the only way open_tree is used here.
const TREE_FLAGS: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// A file system being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Starts the configuration of a file system type.
    ///
    /// # Errors
    /// `ENODEV` if the kernel does not know the type.
    pub fn open(kind: &CStr) -> Result<Self> {
        fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map(Self)
    }

    /// Sets `key=value`.
    ///
    /// # Errors
    /// `EINVAL` for an unknown key or a bad value.
    pub fn string(&self, key: &CStr, value: &CStr) -> Result<()> {
        fsconfig_set_string(&self.0, key, value)
    }

    /// Sets a key without value.
    ///
    /// # Errors
    /// `EINVAL` for an unknown key.
    pub fn flag(&self, key: &CStr) -> Result<()> {
        fsconfig_set_flag(&self.0, key)
    }

    /// Sets `key` to the file behind a descriptor (overlayfs: 6.13).
    ///
    /// # Errors
    /// `EINVAL` for a key that takes no descriptor.
    pub fn fd(&self, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
        fsconfig_set_fd(&self.0, key, value)
    }

    /// Creates the superblock and a detached mount of it.
    ///
    /// # Errors
    /// Whatever the file system says; [`FsContext::log`] may know more.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        fsconfig_create(&self.0)?;
        fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// The first message the kernel left about this configuration. Allocates.
    #[must_use]
    pub fn log(&self) -> Option<String> {
        let mut buffer = [0u8; 1024];
        let length = rustix::io::read(&self.0, &mut buffer).ok()?;
        let text = String::from_utf8_lossy(buffer.get(..length)?);
        // Messages start with "e ", "w " or "i ".
        Some(text.get(2..).unwrap_or(&text).trim().to_owned())
    }
}

/// A detached copy of the mount at `path` below `dir`, with what is mounted below it if
/// `recursive`. An empty path means `dir` itself.
///
/// # Errors
/// `ENOENT`, `EACCES`, `EINVAL` for a mount that may not be copied.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = TREE_FLAGS;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(dir, path, flags)
}

/// Attaches a detached mount on the file behind `target`, which must have been resolved before:
/// no path is walked here.
///
/// # Errors
/// `ENOTDIR` where one is a directory and the other not, `EINVAL` if `mount` is attached already.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    rustix::mount::move_mount(
        mount,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// How mount events spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither in nor out.
    Private,
    /// Both ways, among peers.
    Shared,
    /// In, not out.
    Slave,
    /// Neither, and it may not be bound elsewhere.
    Unbindable,
}

impl Propagation {
    /// The `MS_*` bit.
    #[must_use]
    pub fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Attributes to change on a mount (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr<'a> {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// User namespace whose mapping the mount shall show (`MOUNT_ATTR_IDMAP`).
    pub idmap: Option<BorrowedFd<'a>>,
}

const AT_RECURSIVE: libc::c_int = 0x8000;

/// Changes the attributes of the mount behind `mount`, and of all below it if `recursive`.
///
/// # Errors
/// `ENOSYS` before kernel 5.12, `EPERM` for a locked attribute, `EINVAL`.
pub fn set_attr(mount: impl AsFd, recursive: bool, change: &SetAttr<'_>) -> Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let mut attr = MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    if let Some(userns) = change.idmap {
        attr.set |= libc::MOUNT_ATTR_IDMAP;
        attr.userns_fd = userns.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a constant C string and `attr` has the layout and size passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            std::mem::size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// mount(2) with everything optional: for what has no descriptor call on kernel 5.10.
///
/// # Errors
/// The errno of mount(2).
pub fn mount_legacy(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: each pointer is null or a C string that outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount,
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(data),
        )
    })
    .map(drop)
}

/// `MS_*` bits for `MOUNT_ATTR_*` bits: for remounts on kernels without mount_setattr.
#[must_use]
pub fn legacy_flags(attributes: u64) -> u64 {
    let pairs = [
        (libc::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (libc::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (libc::MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (libc::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
        (libc::MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
        (libc::MOUNT_ATTR_STRICTATIME, libc::MS_STRICTATIME),
        (libc::MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
    ];
    pairs
        .iter()
        .filter(|(attribute, _)| attributes & attribute != 0)
        .fold(0, |flags, (_, flag)| flags | flag)
}

/// Detaches the mount at `path` and all below it, at once.
///
/// # Errors
/// `EINVAL` if nothing is mounted there.
pub fn detach(path: &CStr) -> Result<()> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
}

/// Makes every mount of the namespace private or a slave.
///
/// # Errors
/// `EPERM` outside one's own mount namespace.
pub fn set_root_propagation(propagation: Propagation) -> Result<()> {
    mount_legacy(None, c"/", None, propagation.bits() | libc::MS_REC, None)
}

/// Whether the file behind `fd` lies on a file system with this magic number.
///
/// # Errors
/// The errno of fstatfs(2).
pub fn has_magic(fd: impl AsFd, magic: u64) -> Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == magic)
}

/// Magic number of procfs.
pub const PROC_MAGIC: u64 = 0x9fa0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_flags_readonly_nosuid_maps_both() {
        let bits = legacy_flags(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID);
        assert_eq!(bits, libc::MS_RDONLY | libc::MS_NOSUID);
    }

    #[test]
    fn fs_context_detached_tmpfs_made_readonly_refuses_writes() {
        let fs = FsContext::open(c"tmpfs").expect("fsopen");
        fs.string(c"size", c"64k").expect("size");
        let mount = fs.mount(Attr::empty()).expect("fsmount");
        let change = SetAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..SetAttr::default()
        };
        set_attr(&mount, true, &change).expect("setattr");
        let result = rustix::fs::mkdirat(&mount, "x", rustix::fs::Mode::from_raw_mode(0o755));
        assert_eq!(result, Err(crate::Errno::ROFS));
    }

    #[test]
    fn fs_context_unknown_option_is_refused() {
        let fs = FsContext::open(c"tmpfs").expect("fsopen");
        assert!(fs.string(c"nonsense", c"1").is_err());
        assert!(fs.log().is_some());
    }
}
