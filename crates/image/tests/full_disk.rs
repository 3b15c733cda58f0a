//! The store on a full disk. A process of its own: one that starts others would keep deleted files
//! open in them for a moment, and with them their space.

mod common;

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use common::{Tar, chain, docker_archive};
use hull_image::ImageStore;
use hull_image::limits::Limits;
use hull_image::store::{GcPolicy, RemoveOptions};

/// A file system of this size. A detached mount: it goes with the descriptor and never appears in a
/// mount table.
fn disk(size: &str) -> OwnedFd {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", size).unwrap();
    fsconfig_create(&context).unwrap();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap()
}

#[test]
fn removal_on_a_full_disk_makes_room() {
    let small = disk("4m");
    let base = PathBuf::from(format!("/proc/self/fd/{}/image", small.as_raw_fd()));
    let store = ImageStore::open(&base, Limits::default()).unwrap();
    for tag in ["a:1", "b:1"] {
        let layer = Tar::new().file(tag, &tag.repeat(100_000)).bytes();
        store
            .load(&mut &docker_archive(&[layer], tag)[..], None, &|_| {})
            .unwrap();
    }
    // To the last byte.
    let mut filler = fs::File::create(base.join("../filler")).unwrap();
    while filler.write_all(&[0; 512]).is_ok() {}
    let id = store.resolve("a:1").unwrap().id();
    let tagged = store.tag(&id, &"c:1".parse().unwrap());
    assert!(tagged.is_err(), "the disk is not full");
    let nobody = |_: &_| Vec::new();
    store
        .remove("a:1", RemoveOptions::default(), &nobody)
        .unwrap();
    let policy = GcPolicy {
        unused_for: Some(Duration::ZERO),
        ..GcPolicy::default()
    };
    let report = store.gc(&policy, &|_| false).unwrap();
    assert_eq!(report.images[0].names, ["b:1"]);
    assert_eq!(report.reclaimed_bytes, 300_000);
    drop(store);
    let store = ImageStore::open(&base, Limits::default()).unwrap();
    store.wait_until_clean();
    assert!(store.list().is_empty() && store.warnings().is_empty());
    let names = fs::read_to_string(base.join("refs.json")).unwrap();
    assert_eq!(names, "{}");
}

#[test]
fn load_on_a_full_disk_fails_clearly_and_leaves_nothing() {
    let small = disk("1m");
    let base = PathBuf::from(format!("/proc/self/fd/{}/image", small.as_raw_fd()));
    let store = ImageStore::open(&base, Limits::default()).unwrap();
    let big = docker_archive(
        &[Tar::new().file("big", &"x".repeat(3 << 20)).bytes()],
        "a:1",
    );
    for _ in 0..3 {
        let error = store.load(&mut &big[..], None, &|_| {}).unwrap_err();
        let error = hull_model::Error::from(error);
        assert_eq!(error.kind(), hull_model::ErrorKind::Unavailable);
        assert!(chain(error).contains("No space left on device"));
    }
    // Packed it fits while it is spooled, and the disk is full only while it is unpacked.
    let layer = Tar::new().file("big", &"x".repeat(3 << 20)).bytes();
    let options = hull_image::import::ImportOptions::default();
    let error = store
        .import(&mut &common::gzip(&layer)[..], &options, &|_| {})
        .unwrap_err();
    let text = chain(error);
    assert!(
        text.contains("cannot write \"big\": No space left"),
        "{text}"
    );
    for dir in ["tmp", "layers", "images", "blobs/sha256", "l"] {
        assert_eq!(fs::read_dir(base.join(dir)).unwrap().count(), 0, "{dir}");
    }
    let small = docker_archive(&[Tar::new().file("small", "x").bytes()], "b:1");
    store.load(&mut &small[..], None, &|_| {}).unwrap();
}
