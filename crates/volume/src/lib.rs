//! Named volumes: `BASE/<name>/{_data/, volume.json}`.
//!
//! A volume appears by rename and disappears by rename; `.tmp` holds what is being made or
//! deleted and is emptied when the store is opened.

mod copy;
mod error;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, ResolveFlags, openat, openat2, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use error::VolumeError;

/// Directory with a volume's content.
const DATA: &str = "_data";
/// Directory with a complete copy on its way into `_data`.
const FILL: &str = "_fill";
const META: &str = "volume.json";
const TMP: &str = ".tmp";
/// Label of volumes that nobody named.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// Mode of a new volume's root.
const DATA_MODE: u32 = 0o755;
/// Largest `volume.json`; labels are the user's choice.
const MAX_META_BYTES: u64 = 1 << 20;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Options given at creation, kept for display.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Its content on the host.
    #[serde(skip)]
    pub mountpoint: PathBuf,
}

impl Volume {
    /// True if it got its name from us.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}

/// Keeps volumes in a directory.
#[derive(Debug)]
pub struct VolumeStore {
    base: PathBuf,
    tmp: PathBuf,
    counter: AtomicU64,
    /// Held while a volume is filled: two containers may start with the same new one.
    filling: Mutex<()>,
}

impl VolumeStore {
    /// Opens the volumes in `base`, making the directory if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub fn open(base: &Path) -> Result<Self, VolumeError> {
        let tmp = base.join(TMP);
        fs::create_dir_all(&tmp).map_err(|e| VolumeError::io("create", &tmp, e))?;
        // Others may pass through to a volume that they know and may read, but not look around.
        fs::set_permissions(base, fs::Permissions::from_mode(0o711))
            .map_err(|e| VolumeError::io("set mode of", base, e))?;
        fs::set_permissions(&tmp, fs::Permissions::from_mode(0o700))
            .map_err(|e| VolumeError::io("set mode of", &tmp, e))?;
        let counter = delete_leftovers(&tmp)?;
        for item in fs::read_dir(base).map_err(|e| VolumeError::io("list", base, e))? {
            let dir = item.map_err(|e| VolumeError::io("list", base, e))?.path();
            // One damaged volume must not keep the others from being used; its next copy-up tries
            // again and tells.
            if dir != tmp {
                let _ = finish_fill(&dir);
            }
        }
        Ok(Self {
            base: base.to_owned(),
            tmp,
            counter: AtomicU64::new(counter),
            filling: Mutex::new(()),
        })
    }

    fn fresh(&self) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.tmp.join(number.to_string())
    }

    fn dir(&self, name: &str) -> Result<PathBuf, VolumeError> {
        hull_model::name::validate("volume", name).map_err(VolumeError::Name)?;
        Ok(self.base.join(name))
    }

    fn lock_filling(&self) -> MutexGuard<'_, ()> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a volume, or takes the one that has this name already.
    ///
    /// # Errors
    /// If the name is malformed or the host refuses.
    pub fn create(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume, VolumeError> {
        let place = self.dir(name)?;
        if let Some(known) = self.read(name)? {
            return Ok(known);
        }
        let volume = Volume {
            name: name.to_owned(),
            created: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            labels,
            options,
            mountpoint: place.join(DATA),
        };
        let tmp = self.fresh();
        let make = || -> io::Result<()> {
            fs::create_dir(&tmp)?;
            fs::set_permissions(&tmp, fs::Permissions::from_mode(0o711))?;
            fs::create_dir(tmp.join(DATA))?;
            fs::set_permissions(tmp.join(DATA), fs::Permissions::from_mode(DATA_MODE))?;
            let mut file = File::create_new(tmp.join(META))?;
            file.write_all(&serde_json::to_vec(&volume)?)?;
            // A volume that nobody named goes with its container; its name need not outlive a
            // power failure.
            if !volume.is_anonymous() {
                file.sync_all()?;
            }
            Ok(())
        };
        let made = make().and_then(|()| {
            match renameat_with(CWD, &tmp, CWD, &place, RenameFlags::NOREPLACE) {
                // Somebody else made it meanwhile.
                Err(Errno::EXIST | Errno::NOTEMPTY) => fs::remove_dir_all(&tmp),
                renamed => Ok(renamed?),
            }
        });
        if let Err(e) = made {
            // Best effort: what stays is removed when the store is opened next.
            let _ = fs::remove_dir_all(&tmp);
            return Err(VolumeError::io("create volume", &place, e));
        }
        self.inspect(name)
    }

    /// Makes a volume with a name of 64 random hex digits.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_anonymous(
        &self,
        mut labels: BTreeMap<String, String>,
    ) -> Result<Volume, VolumeError> {
        let mut bytes = [0u8; 32];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| VolumeError::io("get random bytes for", &self.base, e))?;
        let name = hull_model::Digest::from_bytes(bytes).hex();
        labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        self.create(&name, labels, BTreeMap::new())
    }

    fn read(&self, name: &str) -> Result<Option<Volume>, VolumeError> {
        let dir = self.dir(name)?;
        let path = dir.join(META);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|f| f.take(MAX_META_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(VolumeError::io("read", &path, e)),
        }
        let mut volume: Volume =
            serde_json::from_slice(&bytes).map_err(|source| VolumeError::Json { path, source })?;
        volume.mountpoint = dir.join(DATA);
        Ok(Some(volume))
    }

    /// Looks a volume up.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or its record is damaged.
    pub fn inspect(&self, name: &str) -> Result<Volume, VolumeError> {
        let known = match self.read(name) {
            // What cannot be a name is not there.
            Err(VolumeError::Name(_)) => None,
            read => read?,
        };
        known.ok_or_else(|| VolumeError::NotFound(name.to_owned()))
    }

    /// All volumes, sorted by name.
    ///
    /// # Errors
    /// If the directory or a record cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let fail = |e| VolumeError::io("list", &self.base, e);
        let mut volumes = Vec::new();
        for item in fs::read_dir(&self.base).map_err(fail)? {
            let name = item.map_err(fail)?.file_name();
            if let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) {
                volumes.extend(self.read(name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Removes a volume with its content. The caller makes sure that nobody uses it.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or the host refuses.
    pub fn remove(&self, name: &str) -> Result<(), VolumeError> {
        self.inspect(name)?;
        let place = self.dir(name)?;
        let trash = self.fresh();
        match fs::rename(&place, &trash) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::NotFound(name.to_owned()));
            }
            Err(e) => return Err(VolumeError::io("remove", &place, e)),
        }
        fs::remove_dir_all(&trash).map_err(|e| VolumeError::io("delete", &trash, e))
    }

    /// Removes volumes that are not in use and that `wanted` accepts; returns their names and the
    /// bytes freed.
    ///
    /// # Errors
    /// If a volume cannot be read or removed; what went before stays removed.
    pub fn prune(
        &self,
        in_use: &dyn Fn(&str) -> bool,
        wanted: &dyn Fn(&Volume) -> bool,
    ) -> Result<(Vec<String>, u64), VolumeError> {
        let (mut names, mut freed) = (Vec::new(), 0);
        for volume in self.list()? {
            if !in_use(&volume.name) && wanted(&volume) {
                freed += self.usage(&volume.name)?;
                self.remove(&volume.name)?;
                names.push(volume.name);
            }
        }
        Ok((names, freed))
    }

    /// Sum of the sizes of a volume's files, each inode counted once.
    ///
    /// # Errors
    /// [`VolumeError::NotFound`], or it cannot be read.
    pub fn usage(&self, name: &str) -> Result<u64, VolumeError> {
        let path = self.inspect(name)?.mountpoint;
        let root = openat(CWD, &path, copy::dir_flags(), Mode::empty())
            .map_err(|e| VolumeError::io("open", &path, e))?;
        copy::total_size(root.as_fd())
    }

    /// Fills an empty volume with what an image has at `path` (resolved inside `root`, links
    /// included), with owners, modes, attributes, times and hard links. True if it did: nothing
    /// happens if the volume has content or the image has no such directory. The copy is made
    /// aside and then moved in; a move that was interrupted is finished by the next call or the
    /// next [`Self::open`].
    ///
    /// # Errors
    /// If the volume does not exist or something cannot be copied.
    pub fn copy_up(
        &self,
        name: &str,
        root: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<bool, VolumeError> {
        let data = self.inspect(name)?.mountpoint;
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() {
            Path::new(".")
        } else {
            inside
        };
        let source = match openat2(
            root,
            inside,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        ) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(e) => return Err(VolumeError::io("open in the image", path, e)),
        };
        let _filling = self.lock_filling();
        let dir = self.dir(name)?;
        if finish_fill(&dir)? {
            return Ok(true);
        }
        let mut entries = fs::read_dir(&data).map_err(|e| VolumeError::io("list", &data, e))?;
        if entries.next().is_some() {
            return Ok(false);
        }
        let tmp = self.fresh();
        let copied = (|| {
            fs::create_dir(&tmp).map_err(|e| VolumeError::io("create", &tmp, e))?;
            let target = openat(CWD, &tmp, copy::dir_flags(), Mode::empty())
                .map_err(|e| VolumeError::io("open", &tmp, e))?;
            copy::copy_tree(source.as_fd(), target.as_fd())?;
            // From here on the copy is complete, and whoever comes next finishes the move.
            let fill = dir.join(FILL);
            fs::rename(&tmp, &fill).map_err(|e| VolumeError::io("fill", &fill, e))
        })();
        if let Err(e) = copied {
            // Best effort: what stays is removed when the store is opened next.
            let _ = fs::remove_dir_all(&tmp);
            return Err(e);
        }
        finish_fill(&dir)
    }
}

/// Moves a complete copy of an image's content into the volume, name by name: the directory itself
/// must stay, since another container may have it mounted. False if there is no copy.
fn finish_fill(dir: &Path) -> Result<bool, VolumeError> {
    let (fill, data) = (dir.join(FILL), dir.join(DATA));
    let from = match openat(CWD, &fill, copy::dir_flags(), Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(e) => return Err(VolumeError::io("open", &fill, e)),
    };
    let to = openat(CWD, &data, copy::dir_flags(), Mode::empty())
        .map_err(|e| VolumeError::io("open", &data, e))?;
    copy::move_entries(&from, &to)?;
    fs::remove_dir_all(&fill).map_err(|e| VolumeError::io("delete", &fill, e))?;
    Ok(true)
}

/// Deletes what an interrupted operation left in `tmp`, on a thread of its own since it may be
/// much. Returns the first number that is free for new names.
fn delete_leftovers(tmp: &Path) -> Result<u64, VolumeError> {
    let fail = |e| VolumeError::io("list", tmp, e);
    let mut leftovers = Vec::new();
    let mut free = 0;
    for item in fs::read_dir(tmp).map_err(fail)? {
        let item = item.map_err(fail)?;
        let number = item
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u64>().ok());
        free = free.max(number.map_or(0, |n| n.saturating_add(1)));
        leftovers.push(item.path());
    }
    if !leftovers.is_empty() {
        // What stays, even for want of a thread, is found again when the store is opened next.
        let _ = std::thread::Builder::new()
            .name("volume-cleaner".into())
            .spawn(move || {
                for path in leftovers {
                    let _ = fs::remove_dir_all(&path);
                }
            });
    }
    Ok(free)
}
