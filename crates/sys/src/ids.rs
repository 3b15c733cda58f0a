//! User, group and supplementary groups of the calling thread.
//!
//! The raw calls: glibc's setuid and its kin signal every thread, which a freshly cloned child
//! must not try.

use crate::{Result, check};

/// Sets real, effective and saved group id.
///
/// # Errors
/// `EPERM`, `EINVAL` for an id that the user namespace does not map.
pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: integers alone.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user id.
///
/// # Errors
/// As [`set_gid`]; `EAGAIN` at the user's limit of processes.
pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: integers alone.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets the supplementary groups.
///
/// # Errors
/// `EPERM`, `EINVAL` for more than 65536.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer is valid for `len` ids, which the kernel copies.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}
