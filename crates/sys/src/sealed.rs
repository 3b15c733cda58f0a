//! Programs executed in a way that nobody can write to them through `/proc/PID/exe`.
//!
//! A process that becomes a container's runs the engine's program until its execve, and an image
//! may name `/proc/self/exe` as its command: a container's root would then hold a handle on the
//! engine's file and could overwrite it once it is no longer busy (CVE-2019-5736). Through a
//! read-only mount that is attached nowhere, or from a sealed copy in memory, that handle is
//! worth nothing.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use crate::mount::{self, Propagation, SetAttr};
use crate::proc::{StringArray, execve};
use crate::{Errno, Result};

/// Descriptor numbers from here on do not collide with those that programs agree upon.
const HIGH: i32 = 64;

/// A handle on a program, to be executed as [`path`] says. Close-on-exec.
///
/// # Errors
/// `ENOENT`, or whatever forbids both ways: mounting and making a copy in memory.
pub fn open(program: &Path) -> Result<OwnedFd> {
    let sealed = match mounted(program) {
        Err(Errno::NOENT) => return Err(Errno::NOENT),
        // No right to mount, or a kernel before 5.12.
        Err(_) => copied(program)?,
        Ok(sealed) => sealed,
    };
    rustix::io::fcntl_dupfd_cloexec(&sealed, HIGH)
}

/// The path under which this process can execute what is open there. Allocates.
#[must_use]
pub fn path(sealed: BorrowedFd<'_>) -> CString {
    // Digits and slashes hold no zero byte.
    CString::new(format!("/proc/self/fd/{}", sealed.as_raw_fd())).unwrap_or_default()
}

/// Whether the program of this process is one that nobody can write to.
///
/// # Errors
/// If /proc is not there.
pub fn is_sealed() -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/exe", flags, Mode::empty())?;
    if rustix::fs::fstatvfs(&own)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(true);
    }
    Ok(rustix::fs::fcntl_get_seals(&own).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// Executes this process's own program anew from a sealed handle, unless it runs from one
/// already: the first thing to do for a program that makes containers. Returns if it was sealed.
///
/// # Errors
/// If neither way of sealing is open.
pub fn reexecute(arguments: Vec<CString>, environment: Vec<CString>) -> Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let sealed = open(Path::new("/proc/self/exe"))?;
    let program = path(sealed.as_fd());
    Err(execve(
        &program,
        &StringArray::new(arguments),
        &StringArray::new(environment),
    ))
}

fn mounted(program: &Path) -> Result<OwnedFd> {
    let file = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let tree = mount::clone_tree(file.as_fd(), c"", false)?;
    let change = SetAttr {
        set: libc::MOUNT_ATTR_RDONLY,
        propagation: Some(Propagation::Private),
        ..SetAttr::default()
    };
    mount::set_attr(&tree, false, &change)?;
    Ok(tree)
}

fn copied(program: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(program, flags, Mode::empty())?;
    let copy =
        rustix::fs::memfd_create(c"program", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut left = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    while left > 0 {
        match rustix::fs::sendfile(&copy, &file, None, left)? {
            0 => return Err(Errno::IO),
            length => left = left.saturating_sub(length),
        }
    }
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clone3::{Clone3, Namespaces, clone3};
    use crate::pidfd::{send_signal, wait};

    /// Runs busybox's sleep from a handle and tries to get write access to it through /proc.
    fn outcome(sealed: OwnedFd) -> Option<Errno> {
        let program = path(sealed.as_fd());
        let text = |text: &str| CString::new(text).expect("text");
        let arguments = StringArray::new(vec![text("sleep"), text("100")]);
        let environment = StringArray::new(Vec::new());
        let args = Clone3 {
            namespaces: Namespaces::NONE,
            cgroup: None,
            sibling: false,
        };
        let child = clone3(&args, || {
            let _ = execve(&program, &arguments, &environment);
            1
        })
        .expect("clone3");
        let pid = child.pid.as_raw_nonzero();
        let exe = format!("/proc/{pid}/exe");
        let ours = std::fs::read_link("/proc/self/exe").expect("link");
        while std::fs::read_link(&exe).expect("link") == ours {
            std::thread::yield_now();
        }
        // What an attacker does: keep a handle, wait until the program is no longer busy, open
        // the handle anew for writing.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let handle = rustix::fs::open(exe.as_str(), flags, Mode::empty()).expect("handle");
        send_signal(&child.pidfd, libc::SIGKILL).expect("kill");
        wait(&child.pidfd, true).expect("wait");
        let writing = path(handle.as_fd());
        rustix::fs::open(
            writing.as_c_str(),
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .err()
    }

    #[test]
    fn open_mounted_handle_can_never_be_written() {
        let sealed = mounted(Path::new("/bin/busybox")).expect("mount");
        assert_eq!(outcome(sealed), Some(Errno::ROFS));
    }

    #[test]
    fn open_copied_handle_can_never_be_written() {
        let copy = copied(Path::new("/bin/busybox")).expect("copy");
        let error = rustix::io::pwrite(&copy, b"x", 0).expect_err("sealed");
        assert_eq!(error, Errno::PERM);
    }

    #[test]
    fn open_missing_program_is_enoent() {
        assert_eq!(
            open(Path::new("/no/such/program")).err(),
            Some(Errno::NOENT)
        );
    }
}
