//! An image's layers as one EROFS file system: read only, shared by all guests that run the image.
//!
//! It is written from the merged tree, so that whiteouts and opaque folders have done their work, and
//! hard links, owners, modes, times, devices and extended attributes are what a container sees.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hull_model::Digest;
use hull_sys::clone3::Namespaces;
use hull_sys::mount::{Propagation, attach, set_root_propagation};
use hull_sys::{Errno, ns};
use rustix::fs::{Mode, OFlags, open};
use sha2::{Digest as _, Sha256};

use super::tool::MKFS_EROFS;
use super::{IMAGES, NEW};
use crate::overlay::make_dir;
use crate::{Overlay, SnapshotError, view};

/// Raise when images are written in another way.
const FORMAT: &str = "hull block image 1";
const ENDING: &str = ".erofs";
/// Where the merged tree is mounted, in a namespace that only the writer sees.
const TREE: &str = ".tree";

/// A block image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockImage {
    /// The file, to be shown to guests as a read-only block device.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The name of the image that is made of layers, the lowest first.
pub fn key_of_layers<'a>(layers: impl IntoIterator<Item = &'a Digest>) -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    for layer in layers {
        hash.update(layer.as_bytes());
    }
    Digest::from_bytes(hash.finalize().into()).hex()
}

impl Overlay {
    /// The block image of the layers in `lowers`, the uppermost first; built if it is not there, by
    /// one of those who ask at the same time. Blocks for seconds then.
    ///
    /// # Errors
    /// If mkfs.erofs is missing or fails, or the disk is full.
    pub fn block_image(&self, key: &str, lowers: &[PathBuf]) -> Result<BlockImage, SnapshotError> {
        let path = self.image_file(key)?;
        if let Some(image) = found(&path)? {
            return Ok(image);
        }
        self.turns().take(key, || {
            if let Some(image) = found(&path)? {
                return Ok(image);
            }
            let folder = self.base().join(IMAGES);
            make_dir(&folder, 0o700)?;
            let new = folder.join(format!("{NEW}{key}"));
            let _ = fs::remove_file(&new);
            let built = self
                .write_image(key, lowers, &new)
                .and_then(|()| put_in_place(&new, &path));
            if let Err(error) = built {
                let _ = fs::remove_file(&new);
                return Err(error);
            }
            found(&path)?.ok_or_else(|| SnapshotError::NotFound(key.to_owned()))
        })
    }

    /// Removes block images that nothing needs; returns how many and the bytes they took. A guest
    /// that runs keeps what it has open.
    ///
    /// # Errors
    /// If the folder cannot be read, or the first failure after all has been tried.
    pub fn retain_block_images(
        &self,
        needed: &dyn Fn(&str) -> bool,
    ) -> Result<(usize, u64), SnapshotError> {
        let folder = self.base().join(IMAGES);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
            Err(e) => return Err(SnapshotError::io("list", &folder, e)),
        };
        let (mut count, mut bytes, mut first) = (0, 0, Ok(()));
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(key) = name.strip_suffix(ENDING).filter(|key| !needed(key)) else {
                continue;
            };
            let taken = self.turns().take(key, || -> io::Result<u64> {
                let length = fs::metadata(&path)?.len();
                fs::remove_file(&path)?;
                Ok(length)
            });
            match taken {
                Ok(length) => (count, bytes) = (count + 1, bytes + length),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => first = first.and(Err(SnapshotError::io("delete", &path, e))),
            }
        }
        first.map(|()| (count, bytes))
    }

    /// Bytes that block images take.
    pub fn block_image_bytes(&self) -> u64 {
        let entries = fs::read_dir(self.base().join(IMAGES)).into_iter().flatten();
        entries
            .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
            .sum()
    }

    fn image_file(&self, key: &str) -> Result<PathBuf, SnapshotError> {
        // The same bounds as for other ids.
        self.dir(key)?;
        Ok(self.base().join(IMAGES).join(format!("{key}{ENDING}")))
    }

    fn write_image(&self, key: &str, lowers: &[PathBuf], to: &Path) -> Result<(), SnapshotError> {
        let mut trees = self.lowers(lowers);
        if trees.len() < 2 {
            trees.push(self.filler().to_owned());
        }
        let tree = view::merged(&trees)?;
        // Builds at the same time meet here, each in a namespace of its own.
        let slot = self.base().join(TREE);
        make_dir(&slot, 0o700)?;
        let mut command = MKFS_EROFS.command()?;
        command
            .args(["--quiet", "--preserve-mtime"])
            // The same image has the same name of its own everywhere.
            .args(["-U", &uuid_of(key)])
            .arg(to)
            .arg(&slot);
        // Of the bounded time that its writer lives, the tree is mounted in a namespace that ends
        // with both: nothing is left in the host's table of mounts.
        let to = to.to_owned();
        let work = move || -> Result<(), SnapshotError> {
            enter(&tree, &slot).map_err(|e| SnapshotError::io("mount layers at", &slot, e))?;
            MKFS_EROFS.run(&mut command, &to)
        };
        std::thread::Builder::new()
            .name("block-image".into())
            .spawn(work)
            .map_err(|e| SnapshotError::io("start a thread for", self.base(), e))?
            .join()
            .unwrap_or_else(|_| {
                let lost = io::Error::other("the thread ended early");
                Err(SnapshotError::io("build", self.base(), lost))
            })
    }
}

/// Makes a mount namespace for this thread, with the tree in it.
fn enter(tree: &OwnedFd, slot: &Path) -> Result<(), Errno> {
    ns::unshare(Namespaces::MOUNT)?;
    set_root_propagation(Propagation::Slave)?;
    let target = open(slot, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(tree, &target)
}

fn found(path: &Path) -> Result<Option<BlockImage>, SnapshotError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(BlockImage {
            path: path.to_owned(),
            bytes: meta.len(),
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SnapshotError::io("read", path, e)),
    }
}

/// What has the name is whole, also after a power failure.
fn put_in_place(new: &Path, path: &Path) -> Result<(), SnapshotError> {
    let sync = || -> io::Result<()> {
        fs::set_permissions(new, fs::Permissions::from_mode(0o400))?;
        File::open(new)?.sync_all()?;
        fs::rename(new, path)
    };
    sync().map_err(|e| SnapshotError::io("make", path, e))
}

/// A UUID of the kind that is made of a digest (version 8).
fn uuid_of(key: &str) -> String {
    let digits: String = key.chars().filter(char::is_ascii_hexdigit).collect();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    if digits.len() < 32 {
        return "00000000-0000-8000-8000-000000000000".to_owned();
    }
    format!(
        "{}-{}-8{}-a{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}
