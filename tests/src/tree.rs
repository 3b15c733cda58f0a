//! Unpacked trees, compared by content, mode, owner, attributes, links and times.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use hull_testkit::Daemon;
use hull_testkit::archive::digest;
use rustix::fs::{lgetxattr, llistxattr};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// Largest attribute, and list of names, that Linux knows.
const XATTR_BYTES: usize = 64 << 10;

/// What there is to know of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `file`, `dir`, `link`, `char`, `block`, `pipe` or `socket`.
    pub kind: &'static str,
    /// The lower twelve bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Digest of a file's content, target of a link, number of a device.
    pub content: String,
    /// Attributes by name, the values in Rust's notation.
    pub xattrs: BTreeMap<String, String>,
    /// The first name, in the order of names, of a file that has several.
    pub same_as: Option<String>,
}

/// All nodes below a folder, and the folder itself as `.`; names in Rust's notation.
pub type Tree = BTreeMap<String, Node>;

/// Reads a tree; no link is followed.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut stack = vec![(root.join("."), b".".to_vec())];
    let mut inodes: HashMap<(u64, u64), Vec<Vec<u8>>> = HashMap::new();
    while let Some((path, name)) = stack.pop() {
        let meta = path.symlink_metadata().expect("read a node");
        if meta.is_dir() {
            for entry in fs::read_dir(&path).expect("list a folder") {
                let below = entry.expect("list a folder").file_name();
                let below_name = match &name[..] {
                    b"." => below.as_bytes().to_vec(),
                    name => [name, b"/", below.as_bytes()].concat(),
                };
                stack.push((path.join(&below), below_name));
            }
        } else if meta.nlink() > 1 {
            let names = inodes.entry((meta.dev(), meta.ino())).or_default();
            names.push(name.clone());
        }
        tree.insert(show(&name), node(&path, &meta));
    }
    for names in inodes.values_mut().filter(|names| names.len() > 1) {
        names.sort_unstable();
        for name in names.iter() {
            if let Some(node) = tree.get_mut(&show(name)) {
                node.same_as = names.first().map(|first| show(first));
            }
        }
    }
    tree
}

fn show(name: &[u8]) -> String {
    format!("{:?}", OsString::from_vec(name.to_vec()))
}

fn node(path: &Path, meta: &fs::Metadata) -> Node {
    let kind = meta.file_type();
    let (kind, content) = if kind.is_dir() {
        ("dir", String::new())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).expect("read a link");
        ("link", format!("{target:?}"))
    } else if kind.is_file() {
        let bytes = fs::read(path).expect("read a file");
        ("file", format!("{} {}", bytes.len(), digest(&bytes)))
    } else {
        let kind = match () {
            () if kind.is_char_device() => "char",
            () if kind.is_block_device() => "block",
            () if kind.is_fifo() => "pipe",
            () => "socket",
        };
        (kind, format!("{:x}", meta.rdev()))
    };
    Node {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        content,
        xattrs: xattrs(path),
        same_as: None,
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0u8; XATTR_BYTES];
    let count = llistxattr(path, &mut names[..]).expect("list attributes");
    names.truncate(count);
    names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; XATTR_BYTES];
            let count = lgetxattr(path, name, &mut value[..]).expect("read an attribute");
            value.truncate(count);
            (show(name), show(&value))
        })
        .collect()
}

/// What differs, a line each; nothing if the trees are equal.
#[must_use]
pub fn differences(one: &Tree, other: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (name, node) in one {
        match other.get(name) {
            None => found.push(format!("{name} is only in the first: {node:?}")),
            Some(peer) if peer != node => {
                found.push(format!("{name}:\n  first  {node:?}\n  second {peer:?}"));
            }
            Some(_) => {}
        }
    }
    for (name, node) in other {
        if !one.contains_key(name) {
            found.push(format!("{name} is only in the second: {node:?}"));
        }
    }
    found
}

/// Layers stacked by overlayfs, nowhere mounted: only this value leads into them.
#[derive(Debug)]
pub struct Stack {
    mount: OwnedFd,
    _empty: tempfile::TempDir,
}

impl Stack {
    /// Stacks folders in overlayfs' own format, the topmost first.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn new(lowers: &[PathBuf]) -> Self {
        // A single layer is no overlay: an empty one goes below.
        let empty = tempfile::tempdir().expect("folder");
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).expect("open overlayfs");
        for lower in lowers.iter().map(PathBuf::as_path).chain([empty.path()]) {
            fsconfig_set_string(fs.as_fd(), "lowerdir+", lower).expect("add a layer");
        }
        fsconfig_create(fs.as_fd()).expect("stack the layers");
        let mount = fsmount(
            fs.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )
        .expect("make the stack visible");
        Self {
            mount,
            _empty: empty,
        }
    }

    /// Where it can be read while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }

    /// Its tree.
    #[must_use]
    pub fn tree(&self) -> Tree {
        read(&self.path())
    }
}

/// The layers of an image of Hull's, the topmost first.
///
/// # Panics
/// If there is no such image.
#[must_use]
pub fn hull_layers(daemon: &Daemon, image: &str) -> Vec<PathBuf> {
    let layers = daemon.ok([
        "image",
        "inspect",
        "--format",
        "{{json .RootFS.Layers}}",
        image,
    ]);
    let layers: Vec<String> = serde_json::from_str(&layers).expect("a list of layers");
    layers
        .iter()
        .rev()
        .map(|layer| {
            let hex = layer.trim_start_matches("sha256:");
            daemon.data_dir().join("image/layers").join(hex).join("fs")
        })
        .collect()
}
