//! The folder of kernels: what is there, which is the default, what goes.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::{KernelError, Manifest};

pub(crate) const KERNEL: &str = "vmlinux";
pub(crate) const CONFIG: &str = "config";
pub(crate) const MANIFEST: &str = "manifest.json";
/// Names that begin with a dot are ours; kernels cannot have such a name.
const DEFAULT: &str = ".default";
const LOCK: &str = ".lock";
const NEW: &str = ".new-";
const OLD: &str = ".old-";
const MAX_NAME: usize = 128;
/// A manifest is a handful of short lines.
const MAX_MANIFEST: u64 = 64 << 10;

/// The installed kernels.
#[derive(Debug, Clone)]
pub struct Kernels {
    dir: PathBuf,
}

/// An installed kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What it goes by.
    pub name: String,
    /// What is known of it.
    pub manifest: Manifest,
    /// The file to boot.
    pub path: PathBuf,
    /// When it was installed.
    pub installed: SystemTime,
    /// Used where none is asked for.
    pub default: bool,
}

impl Kernels {
    /// The kernels in a folder, which need not exist.
    pub fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// All of them by name.
    ///
    /// # Errors
    /// If the folder cannot be read. What is damaged in it is left out.
    pub fn list(&self) -> Result<Vec<Kernel>, KernelError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(KernelError::io("list", &self.dir, e)),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut kernels: Vec<Kernel> = names.filter_map(|name| self.get(&name).ok()).collect();
        kernels.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(kernels)
    }

    /// One by its name.
    ///
    /// # Errors
    /// If there is none, or its manifest cannot be read.
    pub fn get(&self, name: &str) -> Result<Kernel, KernelError> {
        check_name(name)?;
        let dir = self.dir.join(name);
        let file = dir.join(MANIFEST);
        let meta = match fs::metadata(&file) {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(KernelError::NotFound(name.to_owned()));
            }
            Err(e) => return Err(KernelError::io("read", &file, e)),
        };
        if meta.len() > MAX_MANIFEST {
            let large = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(KernelError::io("read", &file, large));
        }
        let text = fs::read(&file).map_err(|e| KernelError::io("read", &file, e))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|e| KernelError::io("read", &file, e))?;
        Ok(Kernel {
            name: name.to_owned(),
            manifest: manifest.tame(),
            path: dir.join(KERNEL),
            installed: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            default: self.default_name().is_some_and(|default| default == name),
        })
    }

    /// The one that is used where none is asked for.
    ///
    /// # Errors
    /// [`KernelError::NoneInstalled`] if there is none.
    pub fn default_kernel(&self) -> Result<Kernel, KernelError> {
        match self.default_name() {
            Some(name) => self.get(&name),
            None => Err(KernelError::NoneInstalled),
        }
    }

    /// Makes one the default, at one stroke.
    ///
    /// # Errors
    /// If it does not exist or the host refuses.
    pub fn use_by_default(&self, name: &str) -> Result<Kernel, KernelError> {
        let _lock = self.lock()?;
        self.get(name)?;
        self.point_at(name)?;
        self.get(name)
    }

    /// Removes one. A guest that runs has it in memory.
    ///
    /// # Errors
    /// If it does not exist; if it is the default, unless forced.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), KernelError> {
        let _lock = self.lock()?;
        // What is damaged goes, too.
        check_name(name)?;
        let dir = self.dir.join(name);
        if !dir.is_dir() {
            return Err(KernelError::NotFound(name.to_owned()));
        }
        if self.default_name().is_some_and(|default| default == name) {
            if !force {
                return Err(KernelError::IsDefault(name.to_owned()));
            }
            let link = self.dir.join(DEFAULT);
            fs::remove_file(&link).map_err(|e| KernelError::io("remove", &link, e))?;
        }
        self.discard(name)
    }

    /// Held by those who change something.
    pub(crate) fn lock(&self) -> Result<File, KernelError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.dir)
            .map_err(|e| KernelError::io("make", &self.dir, e))?;
        let path = self.dir.join(LOCK);
        let file = File::create(&path).map_err(|e| KernelError::io("make", &path, e))?;
        // Nobody holds it for long: what is sent is written without it.
        flock(&file, FlockOperation::LockExclusive)
            .map_err(|e| KernelError::io("lock", &path, e))?;
        self.sweep();
        Ok(file)
    }

    /// A folder to write a kernel in, which nobody sweeps while its lock is held.
    pub(crate) fn begin(&self) -> Result<(TempDir, File), KernelError> {
        let _lock = self.lock()?;
        let fail = |e| KernelError::io("write in", &self.dir, e);
        let new = tempfile::Builder::new()
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o755))
            .tempdir_in(&self.dir)
            .map_err(fail)?;
        let held = File::open(new.path()).map_err(fail)?;
        flock(&held, FlockOperation::NonBlockingLockExclusive).map_err(|e| fail(e.into()))?;
        Ok((new, held))
    }

    /// Puts a finished folder in its place, and makes it the default if there is none.
    pub(crate) fn put(&self, new: &Path, name: &str, force: bool) -> Result<(), KernelError> {
        let to = self.dir.join(name);
        if to.exists() {
            if !force {
                return Err(KernelError::Exists(name.to_owned()));
            }
            self.discard(name)?;
        }
        fs::rename(new, &to).map_err(|e| KernelError::io("make", &to, e))?;
        if self.default_name().is_none() {
            self.point_at(name)?;
        }
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| KernelError::io("write", &self.dir, e))
    }

    /// Takes a kernel out of sight before its files go, so that nobody sees half of one.
    fn discard(&self, name: &str) -> Result<(), KernelError> {
        let (from, to) = (self.dir.join(name), self.dir.join(format!("{OLD}{name}")));
        let _ = fs::remove_dir_all(&to);
        fs::rename(&from, &to)
            .and_then(|()| fs::remove_dir_all(&to))
            .map_err(|e| KernelError::io("remove", &from, e))
    }

    /// The default's name, if it leads to a kernel.
    fn default_name(&self) -> Option<String> {
        let name = fs::read_link(self.dir.join(DEFAULT)).ok()?;
        let name = name.to_str()?.to_owned();
        (check_name(&name).is_ok() && self.dir.join(&name).join(KERNEL).exists()).then_some(name)
    }

    fn point_at(&self, name: &str) -> Result<(), KernelError> {
        let (link, new) = (
            self.dir.join(DEFAULT),
            self.dir.join(format!("{NEW}default")),
        );
        std::os::unix::fs::symlink(name, &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(|e| KernelError::io("make", &link, e))
    }

    /// Deletes what those who were killed have left.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let path = entry.path();
            if (name.starts_with(NEW) && !is_held(&path)) || name.starts_with(OLD) {
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

/// Whether somebody writes in a folder.
fn is_held(path: &Path) -> bool {
    let taken = File::open(path).map(|dir| flock(&dir, FlockOperation::NonBlockingLockExclusive));
    matches!(taken, Ok(Err(Errno::WOULDBLOCK)))
}

pub(crate) fn check_name(name: &str) -> Result<(), KernelError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts && name.len() <= MAX_NAME && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(KernelError::Name(name.to_owned()))
    }
}
