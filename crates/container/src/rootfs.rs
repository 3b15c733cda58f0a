//! The root file system: prepared as a detached mount where the kernel can, attached by the child.
//!
//! ```text
//! overlay, lowerdir+ (6.7)   parent: fsopen … fsmount          child: attach
//! overlay, older             parent: option string, scratch    child: attach scratch, mount(2)
//! directory                  parent: open_tree                 child: attach
//! host                       parent: scratch tmpfs             child: attach scratch, overlay of /
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hull_proto::plan::RootFs;
use hull_sys::features::{Feature, Features};
use hull_sys::mount::{self, Attr, FsContext, Propagation, SetAttr};
use hull_sys::{Errno, path};
use rustix::fs::{CWD, Mode, OFlags};

use crate::error::prepare;
use crate::report::{At, Failed, Step};
use crate::user::{self, Databases};
use crate::{LaunchError, UserError};

/// Layers an overlay may have: the kernel's own limit.
const MAX_LAYERS: usize = 500;
/// mount(2) takes one page of options.
const MAX_OPTIONS: usize = 4095;

/// What the child attaches.
#[derive(Debug)]
pub(crate) enum PreparedRoot {
    /// A whole mount.
    Detached(OwnedFd),
    /// An overlay by mount(2), with names relative to `layers`, on a folder of `scratch`.
    Legacy {
        scratch: OwnedFd,
        mount_point: CString,
        layers: CString,
        options: CString,
        lookup: Vec<OwnedFd>,
    },
    /// A folder that the child binds in its own mount namespace.
    Path { path: CString, lookup: OwnedFd },
    /// An overlay of `/` with its upper layer in `scratch`.
    Host { scratch: OwnedFd },
}

const ROOT_DIR: &std::ffi::CStr = c"root";

impl PreparedRoot {
    /// `slave`: the host's later mounts below a root that is a folder are seen inside.
    pub(crate) fn prepare(
        root: &RootFs,
        features: Features,
        slave: bool,
    ) -> Result<Self, LaunchError> {
        match root {
            RootFs::Overlay {
                lower,
                upper,
                work,
                volatile,
            } => {
                if lower.is_empty() || lower.len() > MAX_LAYERS {
                    let text = format!("{} layers: there must be 1 to {MAX_LAYERS}", lower.len());
                    return Err(LaunchError::Plan(text));
                }
                if *volatile {
                    // A volatile overlay marks its work folder so that it is not used again by
                    // mistake after a crash. A container that is restarted means to.
                    let mark = work.join("work/incompat/volatile");
                    let _ = rustix::fs::unlink(mark.join("dirty"));
                    let _ = rustix::fs::rmdir(&mark);
                }
                let by_string = || legacy(lower, upper, work, *volatile);
                if !features.has(Feature::OverlayLowerAppend) {
                    return by_string();
                }
                match overlay(lower, upper, work, *volatile) {
                    Ok(root) => Ok(Self::Detached(root)),
                    Err(error) if may_lack_options(&error) => by_string().map_err(|_| error.into()),
                    Err(error) => Err(error.into()),
                }
            }
            RootFs::Directory { path } => {
                let tree = open_path(path)
                    .and_then(|dir| mount::clone_tree(dir.as_fd(), c"", true))
                    .map_err(prepare(format!(
                        "use {} as root file system",
                        path.display()
                    )))?;
                cut_off(&tree, features, slave)
                    .map_err(prepare("make the root file system private"))?;
                Ok(Self::Detached(tree))
            }
            RootFs::Host { size, .. } => {
                let size = size.map(|size| size.to_string());
                let scratch = scratch(size.as_deref(), &[c"upper", c"work"])
                    .map_err(prepare("make the memory layer"))?;
                Ok(Self::Host { scratch })
            }
        }
    }

    /// A folder, for a parent that may not mount.
    pub(crate) fn by_path(path: &Path) -> Result<Self, LaunchError> {
        let lookup = open_path(path).map_err(prepare(format!(
            "use {} as root file system",
            path.display()
        )))?;
        Ok(Self::Path {
            path: c_path(path)?,
            lookup,
        })
    }

    /// Reads passwd and group of the image.
    pub(crate) fn databases(&self) -> Result<Databases, LaunchError> {
        let read = |file: &'static str| -> Result<String, UserError> {
            match self {
                Self::Detached(root) => user::read(root.as_fd(), Path::new(file), file),
                Self::Path { lookup, .. } => user::read(lookup.as_fd(), Path::new(file), file),
                Self::Legacy { lookup, .. } => {
                    for layer in lookup {
                        // A whiteout is a character device, which reads as no text: it hides.
                        match path::resolve(layer.as_fd(), file) {
                            Err(Errno::NOENT) => {}
                            _ => return user::read(layer.as_fd(), Path::new(file), file),
                        }
                    }
                    Ok(String::new())
                }
                Self::Host { .. } => {
                    let root = open_path(Path::new("/"))
                        .map_err(|source| UserError::Read { file, source })?;
                    user::read(root.as_fd(), Path::new(file), file)
                }
            }
        };
        Ok(Databases {
            passwd: read("/etc/passwd")?,
            group: read("/etc/group")?,
        })
    }

    /// Attaches the root in the child's own mount namespace and returns a handle on it. `slot` is
    /// where: the old root, which is detached later. Runs in the child.
    pub(crate) fn attach(&self, slot: BorrowedFd<'_>) -> Result<RootHandle<'_>, Failed> {
        match self {
            Self::Detached(root) => {
                mount::attach(root, slot).at(Step::Rootfs)?;
                Ok(RootHandle::Borrowed(root.as_fd()))
            }
            Self::Path { path, .. } => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let tree = rustix::fs::open(path.as_c_str(), flags, Mode::empty())
                    .and_then(|dir| mount::clone_tree(dir.as_fd(), c"", true))
                    .at(Step::Rootfs)?;
                mount::attach(&tree, slot).at(Step::Rootfs)?;
                Ok(RootHandle::Owned(tree))
            }
            Self::Legacy {
                scratch,
                mount_point,
                layers,
                options,
                ..
            } => {
                mount::attach(scratch, slot).at(Step::Rootfs)?;
                // By path: a descriptor of the parent's is in the parent's mount namespace, from which
                // no mount can be made here.
                rustix::process::chdir(layers.as_c_str()).at(Step::Rootfs)?;
                mount::mount_legacy(
                    Some(c"overlay"),
                    mount_point,
                    Some(c"overlay"),
                    0,
                    Some(options),
                )
                .at(Step::Rootfs)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::openat(scratch, ROOT_DIR, flags, Mode::empty())
                    .map(RootHandle::Owned)
                    .at(Step::Rootfs)
            }
            Self::Host { scratch } => {
                mount::attach(scratch, slot).at(Step::Rootfs)?;
                rustix::process::fchdir(scratch).at(Step::Rootfs)?;
                let root = host_overlay().at(Step::Rootfs)?;
                mount::attach(&root, slot).at(Step::Rootfs)?;
                Ok(RootHandle::Owned(root))
            }
        }
    }
}

/// The attached root.
#[derive(Debug)]
pub(crate) enum RootHandle<'a> {
    Borrowed(BorrowedFd<'a>),
    Owned(OwnedFd),
}

impl AsFd for RootHandle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Borrowed(fd) => *fd,
            Self::Owned(fd) => fd.as_fd(),
        }
    }
}

fn host_overlay() -> hull_sys::Result<OwnedFd> {
    let fs = FsContext::open(c"overlay")?;
    fs.string(c"source", c"host")?;
    fs.string(c"lowerdir", c"/")?;
    fs.string(c"upperdir", c"upper")?;
    fs.string(c"workdir", c"work")?;
    fs.mount(Attr::empty())
}

fn overlay(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> Result<OwnedFd, OverlayError> {
    let fs = FsContext::open(c"overlay").map_err(prepare("use overlayfs"))?;
    let set = |key: &std::ffi::CStr, value: &Path| -> Result<(), LaunchError> {
        fs.string(key, &c_path(value)?).map_err(prepare(format!(
            "use {} as {} of the root file system",
            value.display(),
            key.to_string_lossy().trim_end_matches('+')
        )))
    };
    fs.string(c"source", c"hull")
        .map_err(prepare("name the root file system"))?;
    for layer in lower {
        set(c"lowerdir+", layer)?;
    }
    set(c"upperdir", upper)?;
    set(c"workdir", work)?;
    if volatile {
        fs.flag(c"volatile")
            .map_err(prepare("make the root file system volatile"))?;
    }
    fs.mount(Attr::empty())
        .map_err(|source| OverlayError::Create {
            upper: upper.to_owned(),
            log: fs.log(),
            source,
        })
}

/// Why there is no overlay by descriptors.
#[derive(Debug)]
enum OverlayError {
    Prepare(LaunchError),
    Create {
        upper: PathBuf,
        log: Option<String>,
        source: Errno,
    },
}

impl From<LaunchError> for OverlayError {
    fn from(error: LaunchError) -> Self {
        Self::Prepare(error)
    }
}

impl From<OverlayError> for LaunchError {
    fn from(error: OverlayError) -> Self {
        match error {
            OverlayError::Prepare(error) => error,
            OverlayError::Create { upper, log, source } => {
                let reason = log.map(|log| format!(" ({log})")).unwrap_or_default();
                let upper = upper.display();
                Self::Prepare {
                    action: format!("mount the root file system with upper layer {upper}{reason}"),
                    source,
                }
            }
        }
    }
}

/// Whether the option string is worth a try: a kernel whose overlayfs only collects the options
/// refuses unknown ones when it mounts, and without a message to the caller.
fn may_lack_options(error: &OverlayError) -> bool {
    matches!(
        error,
        OverlayError::Create {
            log: None,
            source: Errno::INVAL,
            ..
        }
    )
}

/// Kernels before 6.7 take all lower layers in one string: short relative names fit about a
/// hundred of them in a page.
fn legacy(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    volatile: bool,
) -> Result<PreparedRoot, LaunchError> {
    let base = common_ancestor(lower.iter().map(PathBuf::as_path).chain([upper, work]));
    let name = |path: &Path| -> Result<String, LaunchError> {
        let short = path.strip_prefix(&base).unwrap_or(path);
        let text = short
            .to_str()
            .filter(|text| !text.is_empty())
            .ok_or_else(|| {
                LaunchError::Plan(format!("cannot use {} as a layer", path.display()))
            })?;
        // What separates layers and options must not appear in a name.
        Ok(text
            .replace('\\', "\\\\")
            .replace(':', "\\:")
            .replace(',', "\\,"))
    };
    let layers = lower
        .iter()
        .map(|layer| name(layer))
        .collect::<Result<Vec<_>, _>>()?;
    let mut options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.join(":"),
        name(upper)?,
        name(work)?
    );
    if volatile {
        options.push_str(",volatile");
    }
    if options.len() > MAX_OPTIONS {
        return Err(LaunchError::Plan(format!(
            "{} layers do not fit a mount call of this kernel: it needs Linux 6.7 for more",
            lower.len()
        )));
    }
    let open = |path: &Path| {
        open_path(path).map_err(prepare(format!("open the layer {}", path.display())))
    };
    let lookup = std::iter::once(upper)
        .chain(lower.iter().map(PathBuf::as_path))
        .map(open)
        .collect::<Result<_, _>>()?;
    let scratch = scratch(Some("4096"), &[ROOT_DIR]).map_err(prepare("make a mount point"))?;
    // The child still sees the host's procfs when it mounts.
    let mount_point = format!("/proc/self/fd/{}/root", scratch.as_raw_fd());
    Ok(PreparedRoot::Legacy {
        scratch,
        mount_point: c_string(mount_point)?,
        layers: c_path(&base)?,
        options: c_string(options)?,
        lookup,
    })
}

fn common_ancestor<'a>(paths: impl Iterator<Item = &'a Path>) -> PathBuf {
    let mut common: Option<PathBuf> = None;
    for path in paths {
        let parent = path.parent().unwrap_or(Path::new("/"));
        common = Some(match common {
            None => parent.to_owned(),
            Some(known) => known
                .components()
                .zip(parent.components())
                .take_while(|(left, right)| left == right)
                .map(|(component, _)| component)
                .collect(),
        });
    }
    common
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| PathBuf::from("/"))
}

/// A tmpfs with these folders.
fn scratch(size: Option<&str>, dirs: &[&std::ffi::CStr]) -> hull_sys::Result<OwnedFd> {
    let fs = FsContext::open(c"tmpfs")?;
    fs.string(c"mode", c"0755")?;
    if let Some(size) = size.and_then(|size| CString::new(size).ok()) {
        fs.string(c"size", &size)?;
    }
    let mount = fs.mount(Attr::empty())?;
    for dir in dirs {
        rustix::fs::mkdirat(&mount, *dir, Mode::from_raw_mode(0o755))?;
    }
    Ok(mount)
}

/// Whether a `linux.rootfsPropagation` lets mounts of the host in.
pub(crate) fn is_slave(propagation: &str) -> bool {
    matches!(propagation, "slave" | "rslave")
}

/// What the mounts of a root are to those of the host.
pub(crate) fn bond(slave: bool) -> Propagation {
    if slave {
        Propagation::Slave
    } else {
        Propagation::Private
    }
}

/// Cuts a detached tree off its peers; older kernels have the child do it once it is attached.
fn cut_off(tree: &OwnedFd, features: Features, slave: bool) -> hull_sys::Result<()> {
    if !features.has(Feature::MountSetattr) {
        return Ok(());
    }
    let change = SetAttr {
        propagation: Some(bond(slave)),
        ..SetAttr::default()
    };
    mount::set_attr(tree, true, &change)
}

pub(crate) fn open_path(path: &Path) -> hull_sys::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

pub(crate) fn c_path(path: &Path) -> Result<CString, LaunchError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| LaunchError::Plan(format!("invalid path {}", path.display())))
}

pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, LaunchError> {
    CString::new(text).map_err(|error| LaunchError::Plan(format!("text with a zero byte: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn may_lack_options_only_silent_invalid_argument_is_tried_again() {
        let create = |log: Option<&str>, source| OverlayError::Create {
            upper: PathBuf::from("/v/upper"),
            log: log.map(str::to_owned),
            source,
        };
        assert!(may_lack_options(&create(None, Errno::INVAL)));
        assert!(!may_lack_options(&create(
            Some("overlay: why"),
            Errno::INVAL
        )));
        assert!(!may_lack_options(&create(None, Errno::NOENT)));
        let prepare = LaunchError::Plan("no".to_owned());
        assert!(!may_lack_options(&OverlayError::Prepare(prepare)));
    }

    #[test]
    fn common_ancestor_of_layers_is_their_folder() {
        let paths = ["/v/l/a", "/v/l/b", "/v/c/upper"].map(Path::new);
        assert_eq!(common_ancestor(paths.into_iter()), Path::new("/v"));
        assert_eq!(
            common_ancestor(["/a/x"].map(Path::new).into_iter()),
            Path::new("/a")
        );
        assert_eq!(
            common_ancestor(["/a"].map(Path::new).into_iter()),
            Path::new("/")
        );
    }
}
