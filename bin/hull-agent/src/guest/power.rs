//! The end of a guest.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::{fs, io};

use hull_proto::guest::MOUNTS_PATH;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::system::RebootCommand;

/// Brings everything to the disks and closes their file systems, so that the next start has
/// nothing to repair. Whatever cannot be closed is at least written.
pub(super) fn write_back() {
    rustix::fs::sync();
    for point in mount_points().unwrap_or_default() {
        let Ok(path) = CString::new(point.into_os_string().into_encoded_bytes()) else {
            continue;
        };
        if rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW).is_err() {
            // Something still uses it: as a whole it goes with that.
            let _ = rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
    }
    rustix::fs::sync();
}

/// What is mounted below Hull's folder, the last first.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    Ok(below(&text, Path::new(MOUNTS_PATH)))
}

fn below(mounts: &str, folder: &Path) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect();
    points.reverse();
    points
}

/// Ends the machine at once; returns why it could not.
///
/// A restart, because a machine without power management cannot do anything else: its hypervisor
/// is told to end then. Nothing is written back any more.
pub(super) fn off() -> Errno {
    match rustix::system::reboot(RebootCommand::Restart) {
        Ok(()) => Errno::IO,
        Err(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_last_mounted_comes_first() {
        let text = "proc /proc proc rw 0 0\n\
            /dev/vda /hull/mnt/a erofs ro 0 0\n\
            /dev/vdb /hull/mnt/a/b ext4 rw 0 0\n\
            x /hull/mntx tmpfs rw 0 0\nodd\n";
        let points = below(text, Path::new(MOUNTS_PATH));
        assert_eq!(
            points,
            [Path::new("/hull/mnt/a/b"), Path::new("/hull/mnt/a")]
        );
    }
}
