//! The writable layer of a guest: an ext4 file system in a file that takes only the room that was
//! written to.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::tool::MKE2FS;
use super::{NEW, TEMPLATES, sparse};
use crate::overlay::make_dir;
use crate::{Overlay, SnapshotError};

/// Below this a file system with its journal has no room for files.
pub const SMALLEST_DISK: u64 = 32 << 20;
/// ext4 with blocks of 4 KiB and 32-bit numbers of blocks.
const LARGEST_DISK: u64 = 1 << 44;
/// Sizes are multiples of this.
const STEP: u64 = 1 << 20;
/// The journal is a 256th of the disk, within these: it is written over and over, so all of it
/// takes room on the host sooner or later.
const JOURNAL_PART: u64 = 256;
const JOURNAL_MIB: (u64, u64) = (4, 32);
/// Sizes that are kept ready.
const MAX_TEMPLATES: usize = 8;
const FILE: &str = "disk.ext4";

/// A guest's writable layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A raw image, to be shown to one guest as a block device.
    pub path: PathBuf,
    /// What the guest may write.
    pub size: u64,
    /// What it takes on the host.
    pub used: u64,
}

impl Disk {
    fn at(path: PathBuf) -> io::Result<Self> {
        let meta = fs::metadata(&path)?;
        Ok(Self {
            path,
            size: meta.len(),
            used: meta.blocks() * 512,
        })
    }
}

impl Overlay {
    /// Makes the disk of `id` with `size` bytes, rounded up to MiB, or takes the one that is there,
    /// whatever its size. It is empty ext4; the guest makes overlayfs' directories in it.
    ///
    /// # Errors
    /// If the size is out of bounds, mke2fs is missing, or the host refuses.
    pub fn prepare_disk(&self, id: &str, size: u64) -> Result<Disk, SnapshotError> {
        let dir = self.dir(id)?;
        let path = dir.join(FILE);
        if let Some(disk) = self.disk(id)? {
            return Ok(disk);
        }
        if !(SMALLEST_DISK..=LARGEST_DISK).contains(&size) {
            return Err(SnapshotError::DiskSize(size));
        }
        let size = size.next_multiple_of(STEP);
        make_dir(&dir, 0o700)?;
        let new = dir.join(format!("{NEW}{FILE}"));
        let made = self.turns().take(TEMPLATES, || {
            let template = self.template(size)?;
            let _ = fs::remove_file(&new);
            // Like any writable layer it is not synced: a guest whose host lost its power before
            // the disk reached it has written nothing yet.
            sparse::copy(&template, &new, false).map_err(|e| SnapshotError::io("make", &path, e))
        });
        let made = made.and_then(|()| {
            fs::rename(&new, &path).map_err(|e| SnapshotError::io("make", &path, e))
        });
        if let Err(error) = made {
            let _ = fs::remove_file(&new);
            return Err(error);
        }
        Disk::at(path.clone()).map_err(|e| SnapshotError::io("read", &path, e))
    }

    /// The disk of `id`, if it has one.
    ///
    /// # Errors
    /// If the id is not a plain name or the host refuses.
    pub fn disk(&self, id: &str) -> Result<Option<Disk>, SnapshotError> {
        let path = self.dir(id)?.join(FILE);
        match Disk::at(path.clone()) {
            Ok(disk) => Ok(Some(disk)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(SnapshotError::io("read", &path, e)),
        }
    }

    /// An empty file system of a size, made once.
    fn template(&self, size: u64) -> Result<PathBuf, SnapshotError> {
        let folder = self.base().join(TEMPLATES);
        let path = folder.join(format!("{size}.ext4"));
        if path.exists() {
            // Whether times of access are kept at all depends on how the disk is mounted.
            let _ = File::open(&path)
                .and_then(|file| file.set_times(FileTimes::new().set_accessed(SystemTime::now())));
            return Ok(path);
        }
        make_dir(&folder, 0o700)?;
        forget_oldest(&folder);
        let (raw, new) = (
            folder.join(format!("{NEW}{size}.raw")),
            folder.join(format!("{NEW}{size}.ext4")),
        );
        for left in [&raw, &new] {
            let _ = fs::remove_file(left);
        }
        // mke2fs reserves the room of what it would write zeros to; a copy has holes there, which
        // read as zeros just as well.
        let made = format(&raw, size)
            .and_then(|()| {
                sparse::copy(&raw, &new, true).map_err(|e| SnapshotError::io("make", &path, e))
            })
            .and_then(|()| {
                fs::rename(&new, &path).map_err(|e| SnapshotError::io("make", &path, e))
            });
        let _ = fs::remove_file(&raw);
        if made.is_err() {
            let _ = fs::remove_file(&new);
        }
        made.map(|()| path)
    }
}

fn format(path: &Path, size: u64) -> Result<(), SnapshotError> {
    File::create_new(path)
        .and_then(|file| file.set_len(size))
        .map_err(|e| SnapshotError::io("make", path, e))?;
    let journal = ((size / JOURNAL_PART) >> 20).clamp(JOURNAL_MIB.0, JOURNAL_MIB.1);
    let mut command = MKE2FS.command()?;
    command
        .args([
            "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256",
        ])
        .args(["-i", "16384", "-J"])
        .arg(format!("size={journal}"))
        // Blocks held back for growing would be the larger part of an empty disk.
        .args(["-O", "^resize_inode"])
        // All tables count as zeroed, so that the guest does not zero them in the background.
        .args([
            "-E",
            "lazy_itable_init=0,lazy_journal_init=1,nodiscard,root_owner=0:0",
        ])
        .arg(path);
    MKE2FS.run(&mut command, path)
}

/// Sizes that nobody used for long make room; failing at that is no reason not to start.
fn forget_oldest(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut known: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                return None;
            }
            Some((entry.metadata().ok()?.accessed().ok()?, entry.path()))
        })
        .collect();
    known.sort();
    let many = known.len().saturating_sub(MAX_TEMPLATES - 1);
    for (_, path) in known.into_iter().take(many) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::Snapshotter as _;

    fn clean(path: &Path) -> bool {
        let mut check = Command::new("/usr/sbin/e2fsck");
        let status = check.args(["-n", "-f"]).arg(path).output().unwrap().status;
        status.success()
    }

    #[test]
    fn prepare_disk_is_ext4_and_takes_little_room() {
        let tmp = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(tmp.path()).unwrap();
        assert_eq!(overlay.disk("a").unwrap(), None);
        for (id, size) in [("a", 10 << 30), ("b", 10 << 30), ("c", SMALLEST_DISK)] {
            let disk = overlay.prepare_disk(id, size).unwrap();
            assert_eq!(disk.size, size);
            assert!(disk.used < 1 << 20, "{disk:?}");
            assert!(clean(&disk.path));
            assert_eq!(overlay.disk(id).unwrap().unwrap().path, disk.path);
            let counted = overlay.usage(id).unwrap().bytes;
            assert!(counted > 0 && counted < 1 << 20, "{counted}");
        }
        assert_eq!(fs::read_dir(tmp.path().join(TEMPLATES)).unwrap().count(), 2);
        assert_eq!(overlay.list().unwrap().len(), 3);
        overlay.remove("a").unwrap();
        assert_eq!(overlay.disk("a").unwrap(), None);
    }

    #[test]
    fn prepare_disk_that_is_there_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(tmp.path()).unwrap();
        let disk = overlay.prepare_disk("a", SMALLEST_DISK + 1).unwrap();
        assert_eq!(disk.size, SMALLEST_DISK + STEP);
        fs::write(&disk.path, "written").unwrap();
        overlay.prepare_disk("a", 1 << 30).unwrap();
        assert_eq!(fs::read(&disk.path).unwrap(), b"written");
    }

    #[test]
    fn prepare_disk_of_no_size_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(tmp.path()).unwrap();
        for size in [0, SMALLEST_DISK - 1, LARGEST_DISK + 1] {
            let error = overlay.prepare_disk("a", size).unwrap_err();
            assert!(matches!(error, SnapshotError::DiskSize(_)), "{error}");
        }
        assert!(overlay.prepare_disk("../a", 1 << 30).is_err());
        assert!(overlay.list().unwrap().is_empty());
    }

    #[test]
    fn template_of_many_sizes_forgets_the_oldest() {
        let tmp = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(tmp.path()).unwrap();
        for number in 0..MAX_TEMPLATES as u64 + 3 {
            let size = SMALLEST_DISK + number * STEP;
            overlay.prepare_disk(&format!("d{number}"), size).unwrap();
        }
        let kept = fs::read_dir(tmp.path().join(TEMPLATES)).unwrap().count();
        assert_eq!(kept, MAX_TEMPLATES);
    }
}
