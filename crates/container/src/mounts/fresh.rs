//! New file systems of any type: by fsopen, and by mount(2) where that does not do.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use hull_proto::plan::MountOptions;
use hull_sys::mount::{self, Attr, FsContext};
use hull_sys::{Errno, Result};

use super::fd_path::FdPath;
use super::options;
use crate::LaunchError;
use crate::error::prepare;
use crate::rootfs::c_string;

/// mount(2) takes one page of options.
const MAX_DATA: usize = 4095;

/// Options that mount(2) takes as flags. fsconfig knows most of them by name.
const FLAGS: [(&str, u64); 8] = [
    ("ro", libc::MS_RDONLY),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
    ("mand", libc::MS_MANDLOCK),
    ("lazytime", libc::MS_LAZYTIME),
    (SILENT, libc::MS_SILENT),
    ("iversion", libc::MS_I_VERSION),
    ("acl", libc::MS_POSIXACL),
];
/// The kernel says nothing of a detached mount anyway.
const SILENT: &str = "silent";

/// File systems that a parent makes: they are the same wherever they are made, and what the kernel
/// says of their options can be told.
const BY_PARENT: [&str; 16] = [
    "tmpfs",
    "devpts",
    "ramfs",
    "hugetlbfs",
    "overlay",
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "f2fs",
    "squashfs",
    "erofs",
    "iso9660",
    "vfat",
    "exfat",
];

/// A file system to be made.
#[derive(Debug)]
pub(crate) struct Fresh {
    kind: CString,
    settings: Vec<(CString, Option<CString>)>,
    /// What mount(2) takes; none if it is too long.
    legacy: Option<Legacy>,
    /// What the kernel said when the parent tried.
    pub(crate) note: Option<String>,
}

#[derive(Debug)]
struct Legacy {
    source: CString,
    data: CString,
    flags: u64,
    /// Options that only it can tell apart.
    is_first: bool,
}

/// A mount, detached yet or not.
pub(crate) enum Made {
    Detached(OwnedFd),
    Attached,
}

impl Fresh {
    pub(crate) fn new(
        kind: &str,
        source: &str,
        data: &[String],
    ) -> std::result::Result<Self, LaunchError> {
        let mut settings = Vec::with_capacity(data.len() + 1);
        if !source.is_empty() {
            settings.push((c_string("source")?, Some(c_string(source)?)));
        }
        let mut text = String::new();
        let mut flags = 0;
        let mut is_first = false;
        for option in data {
            let flag = FLAGS.iter().find(|(name, _)| name == option);
            match flag {
                Some((_, bit)) => flags |= bit,
                None => {
                    if !text.is_empty() {
                        text.push(',');
                    }
                    text.push_str(option);
                }
            }
            if option == SILENT {
                continue;
            }
            settings.push(match option.split_once('=') {
                Some((key, value)) => {
                    let bare = value
                        .strip_prefix('"')
                        .and_then(|value| value.strip_suffix('"'));
                    is_first |= bare.is_none() && value.contains(',');
                    (c_string(key)?, Some(c_string(bare.unwrap_or(value))?))
                }
                None => {
                    is_first |= option.contains(',');
                    (c_string(option.as_str())?, None)
                }
            });
        }
        let legacy = Legacy {
            source: c_string(if source.is_empty() { "none" } else { source })?,
            data: c_string(text.as_str())?,
            flags,
            is_first,
        };
        Ok(Self {
            kind: c_string(kind)?,
            settings,
            legacy: (text.len() <= MAX_DATA).then_some(legacy),
            note: None,
        })
    }

    /// The type's name.
    pub(crate) fn kind(&self) -> &CStr {
        &self.kind
    }

    fn is_first_by_path(&self) -> bool {
        self.legacy.as_ref().is_some_and(|legacy| legacy.is_first)
    }

    /// Made by the parent, if it is of a type that may be; `None` leaves it to the child.
    pub(crate) fn by_parent(
        &mut self,
        target: &str,
        attributes: Attr,
    ) -> std::result::Result<Option<OwnedFd>, LaunchError> {
        let kind = self.kind.to_str().unwrap_or_default().to_owned();
        if !BY_PARENT.contains(&kind.as_str()) || self.is_first_by_path() {
            return Ok(None);
        }
        let fs = match FsContext::open(&self.kind) {
            Ok(fs) => fs,
            Err(Errno::NODEV) => {
                let text =
                    format!("the mount at {target}: this kernel knows no file system {kind:?}");
                return Err(LaunchError::Plan(text));
            }
            Err(errno) => return Err(prepare(format!("mount {kind} at {target}"))(errno)),
        };
        match self.configure(&fs).and_then(|()| fs.mount(attributes)) {
            Ok(made) => Ok(Some(made)),
            Err(Errno::INVAL) if self.legacy.is_some() => {
                self.note = fs.log();
                Ok(None)
            }
            Err(errno) => {
                let reason = fs.log().map(|log| format!(" ({log})")).unwrap_or_default();
                Err(prepare(format!("mount {kind} at {target}{reason}"))(errno))
            }
        }
    }

    fn configure(&self, fs: &FsContext) -> Result<()> {
        for (key, value) in &self.settings {
            match value {
                Some(value) => fs.string(key, value)?,
                None => fs.flag(key)?,
            }
        }
        Ok(())
    }

    fn detached(&self, attributes: Attr) -> Result<OwnedFd> {
        let fs = FsContext::open(&self.kind)?;
        self.configure(&fs)?;
        fs.mount(attributes)
    }

    /// Makes it, on `target` if it must be. Runs in the child.
    pub(crate) fn make(&self, target: BorrowedFd<'_>, attributes: Attr) -> Result<Made> {
        if !self.is_first_by_path() {
            match self.detached(attributes) {
                Ok(made) => return Ok(Made::Detached(made)),
                // An option that has no name, or data that are no text.
                Err(Errno::INVAL | Errno::OPNOTSUPP) if self.legacy.is_some() => {}
                Err(errno) => return Err(errno),
            }
        }
        let flags = mount::legacy_flags(u64::from(attributes.bits()));
        self.by_path(target, flags).map(|()| Made::Attached)
    }

    /// Gives what is mounted at `target` these options. Runs in the child.
    pub(crate) fn remount(&self, target: BorrowedFd<'_>, attributes: Attr) -> Result<()> {
        let flags = mount::legacy_flags(u64::from(attributes.bits()));
        self.by_path(target, flags | libc::MS_REMOUNT)
    }

    fn by_path(&self, target: BorrowedFd<'_>, flags: u64) -> Result<()> {
        let legacy = self.legacy.as_ref().ok_or(Errno::TOOBIG)?;
        let path = FdPath::new(target);
        mount::mount_legacy(
            Some(&legacy.source),
            path.as_c_str()?,
            Some(&self.kind),
            flags | legacy.flags,
            Some(&legacy.data),
        )
    }
}

/// A new mount of a kernel file system. Runs in the child.
pub(crate) fn plain(kind: &CStr, attributes: Attr) -> Result<OwnedFd> {
    let fs = FsContext::open(kind)?;
    fs.string(c"source", kind)?;
    fs.mount(attributes)
}

/// A tmpfs of the parent's; options of the mount may be among those of the file system.
pub(crate) fn tmpfs(
    data: &str,
    mut attributes: Attr,
    target: &str,
) -> std::result::Result<OwnedFd, LaunchError> {
    let fail = || prepare("make a tmpfs");
    let fs = FsContext::open(c"tmpfs").map_err(fail())?;
    fs.string(c"source", c"tmpfs").map_err(fail())?;
    for option in data.split(',').filter(|option| !option.is_empty()) {
        let per_mount = match option {
            "ro" => Some((Attr::MOUNT_ATTR_RDONLY, true)),
            "rw" => Some((Attr::MOUNT_ATTR_RDONLY, false)),
            "nosuid" => Some((Attr::MOUNT_ATTR_NOSUID, true)),
            "suid" => Some((Attr::MOUNT_ATTR_NOSUID, false)),
            "nodev" => Some((Attr::MOUNT_ATTR_NODEV, true)),
            "dev" => Some((Attr::MOUNT_ATTR_NODEV, false)),
            "noexec" => Some((Attr::MOUNT_ATTR_NOEXEC, true)),
            "exec" => Some((Attr::MOUNT_ATTR_NOEXEC, false)),
            _ => None,
        };
        if let Some((attribute, set)) = per_mount {
            attributes.set(attribute, set);
            continue;
        }
        let wrong = |_| LaunchError::Plan(format!("invalid tmpfs option {option:?} at {target}"));
        match option.split_once('=') {
            Some((key, value)) => {
                fs.string(&c_string(key)?, &c_string(value)?)
                    .map_err(wrong)?;
            }
            None => fs.flag(&c_string(option)?).map_err(wrong)?,
        }
    }
    fs.mount(attributes).map_err(fail())
}

/// The devpts of every container.
pub(crate) fn devpts(attributes: Attr) -> std::result::Result<OwnedFd, LaunchError> {
    let fail = || prepare("make a devpts");
    let fs = FsContext::open(c"devpts").map_err(fail())?;
    fs.string(c"source", c"devpts").map_err(fail())?;
    fs.flag(c"newinstance").map_err(fail())?;
    for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")] {
        fs.string(key, value).map_err(fail())?;
    }
    fs.mount(attributes).map_err(fail())
}

/// Attributes of a tmpfs that is made read-only in the end.
pub(crate) fn writable(options: &MountOptions) -> Attr {
    options::attributes(options).difference(Attr::MOUNT_ATTR_RDONLY)
}

/// Whether a target's mount is one, for the child after mount(2).
pub(crate) fn is_mount_root(found: &OwnedFd) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    let found = statx(
        found.as_fd(),
        c"",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS,
    )?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(data: &[&str]) -> Vec<String> {
        data.iter().map(|option| (*option).to_owned()).collect()
    }

    #[test]
    fn tmpfs_bad_option_names_it() {
        let error = tmpfs("size=64k,bogus=1", Attr::empty(), "/x").expect_err("refused");
        assert!(error.to_string().contains("bogus=1"), "{error}");
        tmpfs("rw,noexec,size=64k,mode=1777", Attr::empty(), "/x").expect("accepted");
    }

    #[test]
    fn new_flags_go_by_bit_and_the_rest_as_text() {
        let data = strings(&["sync", "size=1m", "silent", "mode=700"]);
        let fresh = Fresh::new("tmpfs", "", &data).expect("fresh");
        let legacy = fresh.legacy.expect("short");
        assert_eq!(legacy.flags, libc::MS_SYNCHRONOUS | libc::MS_SILENT);
        assert_eq!(legacy.data.as_c_str(), c"size=1m,mode=700");
        assert_eq!(
            (legacy.source.as_c_str(), legacy.is_first),
            (c"none", false)
        );
        assert_eq!(fresh.settings.len(), 3);
    }

    #[test]
    fn new_commas_are_left_to_the_file_system_unless_quoted() {
        let label = strings(&["context=\"a:b:c0,c1\""]);
        let fresh = Fresh::new("tmpfs", "t", &label).expect("fresh");
        assert!(!fresh.is_first_by_path());
        let (_, value) = fresh.settings.last().expect("setting");
        assert_eq!(value.as_deref(), Some(c"a:b:c0,c1"));
        let policy = strings(&["mpol=bind:0,1"]);
        assert!(
            Fresh::new("tmpfs", "t", &policy)
                .expect("fresh")
                .is_first_by_path()
        );
    }

    #[test]
    fn by_parent_wrong_option_is_left_to_the_child_with_the_kernels_words() {
        let mut fresh = Fresh::new("tmpfs", "t", &strings(&["bogus=1"])).expect("fresh");
        let made = fresh.by_parent("/x", Attr::empty()).expect("no error yet");
        assert!(made.is_none());
        assert!(fresh.note.expect("note").contains("bogus"));
        let mut good = Fresh::new("tmpfs", "t", &strings(&["size=64k", "sync"])).expect("fresh");
        assert!(good.by_parent("/x", Attr::empty()).expect("made").is_some());
        let mut nfs = Fresh::new("nfs", "a:/b", &[]).expect("fresh");
        assert!(
            nfs.by_parent("/x", Attr::empty())
                .expect("child's")
                .is_none()
        );
    }
}
