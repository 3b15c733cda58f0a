//! The guest's own root: kernel file systems on a tmpfs in the place of the initramfs.
//!
//! The first root of a kernel has nothing it is mounted on, so that no process could ever pivot
//! from it: containers would have to make do with chroot. Hence another one is put on top.

use std::ffi::CStr;

use hull_proto::guest::{AGENT_PATH, INITRAMFS_PATH, MOUNTS_PATH};
use hull_sys::mount::mount_legacy;
use rustix::fs::{Mode, OFlags};

use super::Trouble;

const NEW_ROOT: &CStr = c"/newroot";
const NOSUID: u64 = libc::MS_NOSUID;
const CLOSED: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

struct Mount {
    kind: &'static CStr,
    /// Below the new root.
    target: &'static CStr,
    flags: u64,
    data: Option<&'static CStr>,
}

const MOUNTS: [Mount; 5] = [
    Mount {
        kind: c"devtmpfs",
        target: c"dev",
        flags: NOSUID,
        data: Some(c"mode=0755"),
    },
    Mount {
        kind: c"proc",
        target: c"proc",
        flags: CLOSED,
        data: None,
    },
    Mount {
        kind: c"sysfs",
        target: c"sys",
        flags: CLOSED,
        data: None,
    },
    Mount {
        kind: c"cgroup2",
        target: c"sys/fs/cgroup",
        flags: CLOSED,
        // A container rules what is below its group, and cannot leave it.
        data: Some(c"nsdelegate"),
    },
    Mount {
        kind: c"tmpfs",
        target: c"run",
        flags: libc::MS_NOSUID | libc::MS_NODEV,
        data: Some(c"mode=0755"),
    },
];

/// Makes it, and goes there.
pub(super) fn make() -> Result<(), Trouble> {
    folder(NEW_ROOT)?;
    mount(
        Some(c"root"),
        NEW_ROOT,
        Some(c"tmpfs"),
        NOSUID,
        Some(c"mode=0755"),
    )?;
    rustix::process::chdir(NEW_ROOT).map_err(Trouble::at("go to the new root"))?;
    for name in [c"dev", c"proc", c"sys", c"run", c"tmp", c"hull"] {
        folder(name)?;
    }
    // What else the initramfs brought stays in reach, and the agent where plans name it.
    bind(c"/", INITRAMFS_PATH, false)?;
    bind(c"/init", AGENT_PATH, true)?;
    folder(&below_here(MOUNTS_PATH)?)?;
    for it in &MOUNTS {
        mount(Some(it.kind), it.target, Some(it.kind), it.flags, it.data)?;
    }
    mount(Some(c"."), c"/", None, libc::MS_MOVE, None)?;
    rustix::process::chroot(c".").map_err(Trouble::at("change the root"))?;
    rustix::process::chdir(c"/").map_err(Trouble::at("go to the root"))?;
    Ok(())
}

fn folder(path: &CStr) -> Result<(), Trouble> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(Trouble::at(format!("make {}", path.to_string_lossy()))(
            errno,
        )),
    }
}

fn bind(source: &CStr, target: &str, is_file: bool) -> Result<(), Trouble> {
    let target = below_here(target)?;
    if is_file {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(&target, flags, Mode::from_raw_mode(0o755))
            .map_err(Trouble::at(format!("make {}", target.to_string_lossy())))?;
    } else {
        folder(&target)?;
    }
    mount(Some(source), &target, None, libc::MS_BIND, None)
}

fn below_here(path: &str) -> Result<std::ffi::CString, Trouble> {
    std::ffi::CString::new(path.trim_start_matches('/')).map_err(Trouble::at("name a folder"))
}

fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<(), Trouble> {
    let what = kind.or(source).unwrap_or_default().to_string_lossy();
    mount_legacy(source, target, kind, flags, data).map_err(Trouble::at(format!(
        "mount {what} on {}",
        target.to_string_lossy()
    )))
}
