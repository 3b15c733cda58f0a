//! Block images, mounted and compared with the trees that they were made of.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use hull_model::Digest;
use hull_snapshot::{Overlay, SnapshotError, Snapshotter, key_of_layers};
use rustix::fs::{
    CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, unmount,
};

/// Everything about a file that a program can see.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    time: (i64, i64),
    links: u64,
    /// The first path with the same inode.
    same_as: PathBuf,
    content: Vec<u8>,
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|&b| b == 0).filter(|n| !n.is_empty());
    names
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, &*name, &mut value[..]).unwrap();
            value.truncate(length);
            (name, value)
        })
        .collect()
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(name) = left.pop() {
        // Not `root/`, which would be opened, too, were it a link.
        let path = if name.as_os_str().is_empty() {
            root.join(".")
        } else {
            root.join(&name)
        };
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(&path)
                .unwrap()
                .map(|entry| name.join(entry.unwrap().file_name()))
                .collect();
            names.sort();
            left.extend(names.into_iter().rev());
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let same_as = inodes.entry(meta.ino()).or_insert_with(|| name.clone());
        seen.insert(
            name.clone(),
            Seen {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                device: meta.rdev(),
                time: (meta.mtime(), meta.mtime_nsec()),
                // What a folder counts is each file system's own affair.
                links: if meta.is_dir() { 1 } else { meta.nlink() },
                same_as: same_as.clone(),
                content,
                xattrs: xattrs(&path),
            },
        );
    }
    seen
}

/// An image that is mounted for as long as this lives.
enum Mounted {
    Detached(OwnedFd),
    Loop(PathBuf),
}

impl Mounted {
    fn new(image: &Path, spare: &Path) -> Self {
        let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_set_string(&context, "source", image).unwrap();
        fsconfig_set_flag(&context, "ro").unwrap();
        // Kernels before 6.12 mount block devices alone.
        if fsconfig_create(&context).is_ok() {
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            return Self::Detached(
                fsmount(&context, flags, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap(),
            );
        }
        fs::create_dir_all(spare).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "erofs", "-o", "ro,loop"]);
        assert!(mount.arg(image).arg(spare).status().unwrap().success());
        Self::Loop(spare.to_owned())
    }

    fn root(&self) -> PathBuf {
        match self {
            Self::Detached(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            Self::Loop(path) => path.clone(),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Self::Loop(path) = self {
            let _ = unmount(&**path, UnmountFlags::DETACH);
        }
    }
}

fn whiteout(path: &Path) {
    mknodat(
        CWD,
        path,
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )
    .unwrap();
}

fn set(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Two layers, the uppermost first, with everything in them that a layer may have.
fn layers(base: &Path) -> Vec<PathBuf> {
    let (top, bottom) = (base.join("top"), base.join("bottom"));
    for dir in ["bin", "dev", "etc/gone", "var/log", "empty", "tmp"] {
        fs::create_dir_all(bottom.join(dir)).unwrap();
    }
    fs::create_dir_all(top.join("var/log")).unwrap();
    fs::create_dir_all(top.join("etc")).unwrap();

    fs::write(bottom.join("bin/tool"), vec![b'x'; 100_000]).unwrap();
    for other in ["bin/again", "bin/thrice"] {
        fs::hard_link(bottom.join("bin/tool"), bottom.join(other)).unwrap();
    }
    fs::set_permissions(bottom.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(bottom.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    // cap_net_bind_service+ep, in the form of version 2.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(bottom.join("bin/bound"), "b").unwrap();
    set(
        &bottom.join("bin/bound"),
        "security.capability",
        &capability,
    );
    fs::write(bottom.join("etc/passwd"), "below").unwrap();
    fs::write(bottom.join("etc/gone/file"), "x").unwrap();
    fs::write(bottom.join("var/log/old"), "x").unwrap();
    fs::write(bottom.join("empty-file"), "").unwrap();
    fs::write(bottom.join("page"), vec![7; 4096]).unwrap();
    fs::write(bottom.join("n".repeat(254)), "long").unwrap();
    symlink("../etc/passwd", bottom.join("bin/link")).unwrap();
    symlink("t".repeat(4000), bottom.join("long-link")).unwrap();
    let node = |name: &str, kind, device| {
        mknodat(
            CWD,
            bottom.join(name),
            kind,
            Mode::from_raw_mode(0o640),
            device,
        )
        .unwrap();
    };
    node("dev/null", FileType::CharacterDevice, makedev(1, 3));
    node("dev/sda", FileType::BlockDevice, makedev(8, 0));
    node("dev/big", FileType::CharacterDevice, makedev(511, 70_000));
    node("dev/pipe", FileType::Fifo, 0);
    drop(UnixListener::bind(bottom.join("dev/socket")).unwrap());
    lchown(bottom.join("etc/passwd"), Some(1000), Some(70_000)).unwrap();
    lchown(bottom.join("bin/link"), Some(65_536), Some(4_000_000_000)).unwrap();
    set(&bottom.join("etc"), "user.note", b"a folder");
    for number in 0..40 {
        set(
            &bottom.join("page"),
            &format!("user.n{number}"),
            &[number; 20],
        );
    }
    // An access list: user 1000 may read.
    let mut list = vec![2, 0, 0, 0];
    for (tag, rights, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 4, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    set(&bottom.join("empty-file"), "system.posix_acl_access", &list);

    fs::write(top.join("etc/passwd"), "above").unwrap();
    whiteout(&top.join("etc/gone"));
    set(&top.join("var/log"), "trusted.overlay.opaque", b"y");
    fs::write(top.join("var/log/new"), "x").unwrap();
    lchown(top.join("var/log"), Some(33), Some(33)).unwrap();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o711)).unwrap();
    let old = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::open(bottom.join("bin/tool"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    File::open(top.join("etc"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    vec![top, bottom]
}

#[test]
fn block_image_shows_what_the_merged_layers_show() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Overlay::open(&tmp.path().join("snapshot")).unwrap();
    let lowers = layers(tmp.path());
    let image = store.block_image("abc", &lowers).unwrap();
    assert_eq!(fs::metadata(&image.path).unwrap().len(), image.bytes);

    let view = store.view(None, &lowers).unwrap();
    let merged = tree(Path::new(&format!("/proc/self/fd/{}", view.as_raw_fd())));
    let mounted = Mounted::new(&image.path, &tmp.path().join("mount"));
    let found = tree(&mounted.root());
    for (name, seen) in &merged {
        assert_eq!(found.get(name), Some(seen), "{}", name.display());
    }
    assert_eq!(found.len(), merged.len());

    // What the comparison would not show if the view were wrong, too.
    let seen = |name: &str| &found[Path::new(name)];
    assert!(!found.contains_key(Path::new("etc/gone")));
    assert!(!found.contains_key(Path::new("var/log/old")));
    assert_eq!(seen("etc/passwd").content, b"above");
    assert_eq!(seen("bin/again").same_as, seen("bin/tool").same_as);
    assert_eq!(seen("bin/tool").links, 3);
    assert_eq!(seen("bin/bound").xattrs.len(), 1);
    assert_eq!(seen("page").xattrs.len(), 40);
    assert!(seen("var/log").xattrs.is_empty());
    let socket = fs::symlink_metadata(mounted.root().join("dev/socket")).unwrap();
    assert!(socket.file_type().is_socket());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains("/.tree "));
}

#[test]
fn block_image_asked_for_by_many_is_built_once() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Overlay::open(&tmp.path().join("snapshot")).unwrap();
    let lowers = layers(tmp.path());
    let inodes = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let image = store.block_image("k", &lowers).unwrap();
                let inode = fs::metadata(&image.path).unwrap().ino() as usize;
                let before = inodes.swap(inode, Ordering::SeqCst);
                assert!(before == 0 || before == inode);
            });
        }
        // Another image does not wait for that one.
        scope.spawn(|| store.block_image("other", &lowers[1..]).unwrap());
    });
    let folder = tmp.path().join("snapshot/.images");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    assert!(store.block_image_bytes() > 0);
}

#[test]
fn block_images_nobody_needs_go_and_the_others_stay() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Overlay::open(&tmp.path().join("snapshot")).unwrap();
    assert_eq!(store.retain_block_images(&|_| true).unwrap(), (0, 0));
    let lowers = layers(tmp.path());
    let kept = store.block_image("kept", &lowers).unwrap();
    let gone = store.block_image("gone", &lowers).unwrap();
    let open = File::open(&gone.path).unwrap();
    let went = store.retain_block_images(&|key| key == "kept").unwrap();
    assert_eq!(went, (1, gone.bytes));
    assert!(kept.path.exists() && !gone.path.exists());
    // A guest that runs goes on.
    assert_eq!(open.metadata().unwrap().len(), gone.bytes);
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn block_image_that_was_cut_short_is_made_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let base = tmp.path().join("snapshot");
    drop(Overlay::open(&base).unwrap());
    let folder = base.join(".images");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("new-k"), "half").unwrap();
    let store = Overlay::open(&base).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    // Of no layers at all, too.
    let image = store.block_image("k", &[]).unwrap();
    let mounted = Mounted::new(&image.path, &tmp.path().join("mount"));
    assert_eq!(tree(&mounted.root()).len(), 1);
}

#[test]
fn block_image_on_a_full_disk_leaves_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let small = tmp.path().join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount(
        "tmpfs",
        &small,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=256k",
    )
    .unwrap();
    let full = || -> Result<(), Box<dyn std::error::Error>> {
        let store = Overlay::open(&small.join("snapshot"))?;
        let big = tmp.path().join("big");
        fs::create_dir(&big)?;
        fs::write(big.join("file"), vec![1; 1 << 20])?;
        let error = store.block_image("k", &[big]).unwrap_err();
        match &error {
            SnapshotError::Io { source, .. } => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            }
            other => panic!("{other}"),
        }
        assert_eq!(fs::read_dir(small.join("snapshot/.images"))?.count(), 0);
        // Not even an empty disk has room.
        let _ = fs::write(small.join("filler"), vec![1; 1 << 20]);
        let error = store.prepare_disk("a", 1 << 30).unwrap_err();
        assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
        assert!(store.disk("a")?.is_none());
        Ok(())
    };
    let outcome = full();
    unmount(&small, UnmountFlags::DETACH).unwrap();
    outcome.unwrap();
}

#[test]
fn block_image_with_a_name_that_leads_elsewhere_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let store = Overlay::open(tmp.path()).unwrap();
    for key in ["", "../x", "a/b", ".images"] {
        let error = store.block_image(key, &[]).unwrap_err();
        assert!(matches!(error, SnapshotError::Id(_)), "{key}");
    }
}

#[test]
fn key_of_layers_depends_on_all_and_their_order() {
    let layer = |n| Digest::from_bytes([n; 32]);
    let key = |layers: &[Digest]| key_of_layers(layers);
    let (a, b) = (layer(1), layer(2));
    assert_eq!(key(&[a, b]), key(&[a, b]));
    let all = [key(&[]), key(&[a]), key(&[b]), key(&[a, b]), key(&[b, a])];
    let different: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}
