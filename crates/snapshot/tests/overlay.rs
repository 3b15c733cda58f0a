//! Snapshots on a real overlayfs.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hull_snapshot::{ChangeKind, Overlay, Rootfs, SnapshotError, Snapshotter};

/// Mounts a root file system in a detached mount and runs `act` in it.
fn in_mounted(rootfs: &Rootfs, act: impl FnOnce(&Path)) {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in &rootfs.lowers {
        fsconfig_set_string(&context, "lowerdir+", lower).unwrap();
    }
    fsconfig_set_string(&context, "upperdir", &rootfs.upper).unwrap();
    fsconfig_set_string(&context, "workdir", &rootfs.work).unwrap();
    fsconfig_create(&context).unwrap();
    let mount = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap();
    act(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())));
}

struct Fixture {
    tmp: tempfile::TempDir,
    store: Overlay,
    lowers: Vec<PathBuf>,
}

fn fixture() -> Fixture {
    let tmp = tempfile::tempdir().unwrap();
    let store = Overlay::open(&tmp.path().join("snapshot")).unwrap();
    let lowers: Vec<PathBuf> = ["top", "bottom"]
        .iter()
        .map(|n| tmp.path().join(n))
        .collect();
    for lower in &lowers {
        fs::create_dir_all(lower.join("etc")).unwrap();
    }
    fs::write(lowers[1].join("etc/passwd"), "root").unwrap();
    fs::write(lowers[1].join("etc/group"), "root").unwrap();
    fs::create_dir_all(lowers[1].join("var/log")).unwrap();
    fs::write(lowers[1].join("var/log/old"), "x").unwrap();
    fs::write(lowers[0].join("top"), "x").unwrap();
    fs::set_permissions(&lowers[0], fs::Permissions::from_mode(0o711)).unwrap();
    Fixture { tmp, store, lowers }
}

#[test]
fn changes_in_a_container_are_reported_by_kind() {
    let f = fixture();
    let rootfs = f.store.prepare("c1", &f.lowers).unwrap();
    assert_eq!(fs::metadata(&rootfs.upper).unwrap().mode() & 0o7777, 0o711);
    in_mounted(&rootfs, |root| {
        fs::write(root.join("etc/passwd"), "changed").unwrap();
        fs::write(root.join("new"), "12345").unwrap();
        fs::remove_file(root.join("etc/group")).unwrap();
        fs::remove_dir_all(root.join("var/log")).unwrap();
        fs::create_dir(root.join("var/log")).unwrap();
        fs::write(root.join("var/log/new"), "x").unwrap();
    });
    let changes = f.store.changes("c1", &f.lowers).unwrap();
    let shown: Vec<String> = changes
        .iter()
        .map(|c| {
            let kind = match c.kind {
                ChangeKind::Modified => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{kind} {}", c.path.display())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "C /etc",
            "D /etc/group",
            "C /etc/passwd",
            "A /new",
            "C /var",
            "C /var/log",
            "A /var/log/new",
            "D /var/log/old",
        ]
    );
    assert_eq!(f.store.usage("c1").unwrap().bytes, 7 + 5 + 1);
    let view = f.store.view(Some("c1"), &f.lowers).unwrap();
    let base = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
    assert_eq!(
        fs::read_to_string(base.join("etc/passwd")).unwrap(),
        "changed"
    );
    assert!(!base.join("etc/group").exists());
    assert!(!base.join("var/log/old").exists());
}

#[test]
fn remove_hides_at_once_and_trash_is_emptied_later() {
    let f = fixture();
    f.store.prepare("c1", &f.lowers).unwrap();
    f.store.prepare("c2", &[]).unwrap();
    f.store.remove("c1").unwrap();
    f.store.remove("c1").unwrap();
    assert_eq!(f.store.list().unwrap(), ["c2"]);
    assert!(matches!(
        f.store.usage("c1"),
        Err(SnapshotError::NotFound(_))
    ));
    let trash = f.tmp.path().join("snapshot/.trash");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1);
    // A daemon that died here finds the leftover again.
    let store = Overlay::open(&f.tmp.path().join("snapshot")).unwrap();
    store.remove("c2").unwrap();
    store.empty_trash().unwrap();
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
}

#[test]
fn prepare_again_cleans_the_mark_of_a_volatile_mount_and_keeps_changes() {
    let f = fixture();
    let rootfs = f.store.prepare("c1", &f.lowers).unwrap();
    fs::write(rootfs.upper.join("kept"), "x").unwrap();
    fs::create_dir_all(rootfs.work.join("work/incompat/volatile")).unwrap();
    let again = f.store.prepare("c1", &f.lowers).unwrap();
    assert_eq!(again, rootfs);
    assert!(again.upper.join("kept").exists());
    assert_eq!(fs::read_dir(&again.work).unwrap().count(), 0);
    in_mounted(&again, |root| assert!(root.join("top").exists()));
}

#[test]
fn view_of_nothing_and_of_many_layers_works() {
    let f = fixture();
    let empty = f.store.view(None, &[]).unwrap();
    let base = PathBuf::from(format!("/proc/self/fd/{}", empty.as_raw_fd()));
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
    let many: Vec<PathBuf> = (0..200)
        .map(|n| {
            let dir = f.tmp.path().join(format!("layer-{n}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(format!("f{n}")), "x").unwrap();
            dir
        })
        .collect();
    let view = f.store.view(None, &many).unwrap();
    let base = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
    assert_eq!(fs::read_dir(&base).unwrap().count(), 200);
}

#[test]
fn prepare_with_an_id_that_leads_elsewhere_is_refused() {
    let f = fixture();
    for id in ["", "..", ".trash", "a/b", "a\0b"] {
        assert!(
            matches!(f.store.prepare(id, &[]), Err(SnapshotError::Id(_))),
            "{id:?}"
        );
    }
}
