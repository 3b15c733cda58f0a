//! Project quotas: a directory tree belongs to a project, and the file system limits what a
//! project takes (quotactl(2), ioctl_fs(2) `FS_IOC_FSSETXATTR`).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Errno, Result, check};

/// `struct fsxattr` of linux/fs.h.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h; limits of space are in blocks of 1024 bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Dqblk {
    bhardlimit: u64,
    bsoftlimit: u64,
    curspace: u64,
    ihardlimit: u64,
    isoftlimit: u64,
    curinodes: u64,
    btime: u64,
    itime: u64,
    valid: u32,
}

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const SYS_QUOTACTL_FD: libc::c_long = 443;
const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQSTAT: u32 = 0x5805;
const QIF_BLIMITS: u32 = 1;
/// Limits of projects are kept, not only counted.
const FS_QUOTA_PDQ_ENFD: u16 = 0x20;
const BLOCK: u64 = 1024;

/// What a project takes and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Bytes taken.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
    /// Bytes it may take; 0 without a limit.
    pub limit: u64,
}

/// The project that a file or directory belongs to; 0 is none.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system knows no projects.
pub fn project_of(file: BorrowedFd<'_>) -> Result<u32> {
    attributes(file).map(|attributes| attributes.projid)
}

/// Has a directory, and what will be made in it, belong to a project.
///
/// # Errors
/// As [`project_of`]; `EINVAL` where the file system was made without projects.
pub fn set_project(dir: BorrowedFd<'_>, project: u32) -> Result<()> {
    let mut attributes = attributes(dir)?;
    attributes.projid = project;
    attributes.xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the request reads one `struct fsxattr`, which `attributes` is.
    let value = unsafe {
        libc::ioctl(
            dir.as_raw_fd(),
            FS_IOC_FSSETXATTR as _,
            &raw const attributes,
        )
    };
    check(libc::c_long::from(value)).map(drop)
}

fn attributes(file: BorrowedFd<'_>) -> Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: the request writes one `struct fsxattr`, which `attributes` is.
    let value = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSGETXATTR as _,
            &raw mut attributes,
        )
    };
    check(libc::c_long::from(value))?;
    Ok(attributes)
}

/// Whether the file system of a descriptor keeps limits of projects.
///
/// # Errors
/// `EPERM`; what only says that there are no quotas is no error.
pub fn is_enforced(file: BorrowedFd<'_>) -> Result<bool> {
    // `struct fs_quota_stat` is smaller; its flags stand in bytes 2 and 3.
    let mut state = [0u16; 64];
    match quotactl(file, Q_XGETQSTAT, 0, state.as_mut_ptr().cast()) {
        Ok(()) => Ok(state[1] & FS_QUOTA_PDQ_ENFD != 0),
        Err(Errno::NOSYS | Errno::SRCH | Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Limits what a project may take to so many bytes; 0 takes the limit away.
///
/// # Errors
/// `ESRCH` without quotas of projects, `EPERM`, `ERANGE`.
pub fn set_limit(file: BorrowedFd<'_>, project: u32, bytes: u64) -> Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut limits = Dqblk {
        bhardlimit: blocks,
        bsoftlimit: 0,
        valid: QIF_BLIMITS,
        ..Dqblk::default()
    };
    quotactl(file, Q_SETQUOTA, project, (&raw mut limits).cast())
}

/// What a project takes.
///
/// # Errors
/// `ESRCH` without quotas of projects, `EPERM`.
pub fn usage(file: BorrowedFd<'_>, project: u32) -> Result<ProjectUsage> {
    let mut found = Dqblk::default();
    match quotactl(file, Q_GETQUOTA, project, (&raw mut found).cast()) {
        Ok(()) => Ok(ProjectUsage {
            bytes: found.curspace,
            inodes: found.curinodes,
            limit: found.bhardlimit.saturating_mul(BLOCK),
        }),
        // XFS has no entry of a project that never was.
        Err(Errno::NOENT) => Ok(ProjectUsage::default()),
        Err(error) => Err(error),
    }
}

/// `data` must point to what the command reads or writes.
fn quotactl(
    file: BorrowedFd<'_>,
    command: u32,
    project: u32,
    data: *mut libc::c_void,
) -> Result<()> {
    let command = command << 8 | PRJQUOTA;
    // SAFETY: every caller in this file passes memory of at least the size of the command's
    // structure, which lives until the call returns.
    let value = unsafe { libc::syscall(SYS_QUOTACTL_FD, file.as_raw_fd(), command, project, data) };
    check(value).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(std::mem::size_of::<FsXattr>(), 28);
        assert_eq!(std::mem::size_of::<Dqblk>(), 72);
    }

    #[test]
    fn file_system_without_projects_says_so() {
        // procfs has neither attributes nor quotas.
        let proc = File::open("/proc").unwrap();
        assert!(project_of(proc.as_fd()).is_err());
        assert!(matches!(is_enforced(proc.as_fd()), Ok(false) | Err(_)));
        assert!(set_limit(proc.as_fd(), 7, 1024).is_err());
    }
}
