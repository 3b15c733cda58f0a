//! Volumes on a real file system.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use hull_volume::{VolumeError, VolumeStore};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr};

fn store(tmp: &tempfile::TempDir) -> VolumeStore {
    VolumeStore::open(&tmp.path().join("volume")).unwrap()
}

#[test]
fn volume_life_from_create_to_prune() {
    let tmp = tempfile::tempdir().unwrap();
    let volumes = store(&tmp);
    let labels: BTreeMap<_, _> = [("a".to_owned(), "b".to_owned())].into();
    let made = volumes
        .create("data", labels.clone(), BTreeMap::new())
        .unwrap();
    assert_eq!(made.labels, labels);
    // Idempotent: the first creation decides.
    let again = volumes
        .create("data", BTreeMap::new(), BTreeMap::new())
        .unwrap();
    assert_eq!(again, made);
    fs::write(made.mountpoint.join("f"), "12345").unwrap();
    let anonymous = volumes.create_anonymous(BTreeMap::new()).unwrap();
    assert_eq!(anonymous.name.len(), 64);
    assert!(anonymous.is_anonymous() && !made.is_anonymous());
    let reopened = store(&tmp);
    assert_eq!(reopened.list().unwrap().len(), 2);
    assert_eq!(reopened.usage("data").unwrap(), 5);
    let (gone, freed) = reopened.prune(&|n| n != "data", &|_| true).unwrap();
    assert_eq!((gone, freed), (vec!["data".to_owned()], 5));
    reopened.remove(&anonymous.name).unwrap();
    assert!(matches!(
        reopened.remove(&anonymous.name),
        Err(VolumeError::NotFound(_))
    ));
    assert!(reopened.list().unwrap().is_empty());
}

#[test]
fn volume_with_a_malformed_name_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let volumes = store(&tmp);
    for name in ["", "..", ".tmp", "a/b", "a\nb"] {
        assert!(
            volumes
                .create(name, BTreeMap::new(), BTreeMap::new())
                .is_err(),
            "{name:?}"
        );
        assert!(matches!(
            volumes.inspect(name),
            Err(VolumeError::NotFound(_))
        ));
    }
}

fn image(root: &Path) {
    let data = root.join("srv/data");
    fs::create_dir_all(data.join("sub/deep")).unwrap();
    fs::write(data.join("file"), "content").unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    std::os::unix::fs::chown(data.join("file"), Some(33), Some(34)).unwrap();
    fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o4750)).unwrap();
    setxattr(data.join("file"), "user.note", b"x", XattrFlags::empty()).unwrap();
    fs::hard_link(data.join("file"), data.join("sub/deep/same")).unwrap();
    symlink("/etc/shadow", data.join("link")).unwrap();
    symlink("data", root.join("srv/alias")).unwrap();
    symlink("/srv/alias", root.join("abs")).unwrap();
    mknodat(
        CWD,
        data.join("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let old = Timespec {
        tv_sec: 1_000_000,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: old,
        last_modification: old,
    };
    for path in [data.join("file"), data.join("sub"), data.clone()] {
        rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o1770)).unwrap();
}

#[test]
fn copy_up_keeps_all_that_belongs_to_files() {
    let tmp = tempfile::tempdir().unwrap();
    let volumes = store(&tmp);
    let root = tmp.path().join("root");
    image(&root);
    let fd = File::open(&root).unwrap();
    volumes
        .create("data", BTreeMap::new(), BTreeMap::new())
        .unwrap();
    // Through links that stay inside the image's root.
    assert!(
        volumes
            .copy_up("data", fd.as_fd(), Path::new("/abs"))
            .unwrap()
    );
    let data = volumes.inspect("data").unwrap().mountpoint;
    let file = fs::metadata(data.join("file")).unwrap();
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid(), file.nlink()),
        (0o4750, 33, 34, 2)
    );
    assert_eq!((file.mtime(), file.mtime_nsec()), (1_000_000, 123_456_789));
    let same = fs::metadata(data.join("sub/deep/same")).unwrap();
    assert_eq!(file.ino(), same.ino());
    assert_eq!(
        fs::read_link(data.join("link")).unwrap(),
        Path::new("/etc/shadow")
    );
    let root_of_volume = fs::metadata(&data).unwrap();
    assert_eq!(root_of_volume.mode() & 0o7777, 0o1770);
    assert_eq!(root_of_volume.mtime(), 1_000_000);
    assert_eq!(fs::metadata(data.join("sub")).unwrap().mtime(), 1_000_000);
    let mut value = [0u8; 8];
    let n = rustix::fs::getxattr(data.join("file"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"x");
}

#[test]
fn copy_up_into_a_volume_with_content_or_from_nowhere_does_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let volumes = store(&tmp);
    let root = tmp.path().join("root");
    image(&root);
    symlink("../../../../etc", root.join("out")).unwrap();
    let fd = File::open(&root).unwrap();
    let volume = volumes
        .create("data", BTreeMap::new(), BTreeMap::new())
        .unwrap();
    for nowhere in ["/none", "/srv/data/file", "/out"] {
        assert!(
            !volumes
                .copy_up("data", fd.as_fd(), Path::new(nowhere))
                .unwrap()
        );
    }
    fs::write(volume.mountpoint.join("mine"), "x").unwrap();
    assert!(
        !volumes
            .copy_up("data", fd.as_fd(), Path::new("/srv/data"))
            .unwrap()
    );
    let names: Vec<_> = fs::read_dir(&volume.mountpoint).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn copy_up_into_a_mounted_volume_keeps_its_directory_and_is_finished_after_a_kill() {
    let tmp = tempfile::tempdir().unwrap();
    let volumes = store(&tmp);
    let root = tmp.path().join("root");
    image(&root);
    let fd = File::open(&root).unwrap();
    let volume = volumes
        .create("data", BTreeMap::new(), BTreeMap::new())
        .unwrap();
    // What a container that has it mounted holds.
    let mounted = File::open(&volume.mountpoint).unwrap();
    assert!(
        volumes
            .copy_up("data", fd.as_fd(), Path::new("/srv/data"))
            .unwrap()
    );
    let ino = |meta: fs::Metadata| meta.ino();
    assert_eq!(
        ino(mounted.metadata().unwrap()),
        ino(fs::metadata(&volume.mountpoint).unwrap())
    );
    // Killed in the middle of the move.
    let fill = volume.mountpoint.with_file_name("_fill");
    fs::create_dir(&fill).unwrap();
    fs::rename(volume.mountpoint.join("file"), fill.join("file")).unwrap();
    fs::write(fill.join("link"), "the volume has one of that name").unwrap();
    let volumes = store(&tmp);
    assert!(volume.mountpoint.join("file").exists() && !fill.exists());
    assert!(volume.mountpoint.join("link").is_symlink());
    assert_eq!(volumes.list().unwrap().len(), 1);
}
