//! The store on a full disk. A process of its own: one that starts others would keep deleted files
//! open in them for a moment, and with them their space.

mod common;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use common::{Tar, chain, docker_archive};
use hull_image::ImageStore;
use hull_image::limits::Limits;

#[test]
fn load_on_a_full_disk_fails_clearly_and_leaves_nothing() {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    };
    // A detached mount: it goes with the descriptor and never appears in a mount table.
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", "1m").unwrap();
    fsconfig_create(&context).unwrap();
    let small = fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap();
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
