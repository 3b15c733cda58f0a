//! A layer from an upper directory: on a kernel that moves directories by a note, and beside one
//! that does not.

mod common;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::Fixture;
use hull_image::commit::CommitOptions;
use hull_image::hash::digest_of;
use hull_image::store::Upper;
use hull_image::tar::{Kind, TarWriter, WriteEntry};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// An overlay that is mounted nowhere.
fn overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>, options: &[(&str, &str)]) -> OwnedFd {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in lowers {
        fsconfig_set_string(fs.as_fd(), "lowerdir+", *lower).unwrap();
    }
    if let Some((upper, work)) = upper {
        fsconfig_set_string(fs.as_fd(), "upperdir", upper).unwrap();
        fsconfig_set_string(fs.as_fd(), "workdir", work).unwrap();
    }
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, *value).unwrap();
    }
    fsconfig_create(fs.as_fd()).unwrap();
    fsmount(
        fs.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap()
}

fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn base_tar() -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (name, content) in [
        ("dir/", None),
        ("dir/a", Some("a")),
        ("dir/sub/", None),
        ("dir/sub/b", Some("b")),
        ("dir/sub/gone", Some("x")),
        ("file", Some("content that stays")),
        ("other/", None),
        ("other/c", Some("c")),
    ] {
        let text = content.unwrap_or_default();
        let kind = if content.is_some() {
            Kind::File
        } else {
            Kind::Dir
        };
        let mode = if content.is_some() { 0o644 } else { 0o755 };
        let entry = WriteEntry::new(name.as_bytes(), kind, mode, text.len() as u64);
        tar.file(&entry, &mut text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

/// Names, modes and contents below a folder.
fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut stack = vec![root.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let content = if meta.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                String::new()
            };
            found.push(format!("{name} {:o} {content:?}", meta.mode()));
            if meta.is_dir() {
                stack.push(path);
            }
        }
    }
    found.sort();
    found
}

fn captured(options: &[(&str, &str)]) -> (Fixture, hull_image::Image, Vec<String>) {
    let fixture = Fixture::new();
    let (image, _) = fixture.import(&base_tar()).unwrap();
    let lower = fixture.store.layer_tree(&image.record.layers()[0]);
    let (upper, work) = (
        fixture.tmp.path().join("upper"),
        fixture.tmp.path().join("work"),
    );
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    let mount = overlay(&[&lower], Some((&upper, &work)), options);
    let root = path_of(&mount);
    // Without the note the kernel refuses, and programs copy instead.
    if fs::rename(root.join("dir"), root.join("moved")).is_err() {
        fs::create_dir_all(root.join("moved/sub")).unwrap();
        fs::copy(root.join("dir/a"), root.join("moved/a")).unwrap();
        fs::copy(root.join("dir/sub/b"), root.join("moved/sub/b")).unwrap();
        fs::remove_dir_all(root.join("dir")).unwrap();
    } else {
        fs::remove_file(root.join("moved/sub/gone")).unwrap();
    }
    fs::write(root.join("moved/sub/new"), "new").unwrap();
    let mode = fs::Permissions::from_mode(0o4711);
    fs::set_permissions(root.join("file"), mode).unwrap();
    fs::remove_dir_all(root.join("other")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    fs::write(root.join("other/d"), "d").unwrap();
    let wanted = listing(&root);
    drop(mount);

    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = open(&upper, flags, Mode::empty()).unwrap();
    let read: Vec<(&str, &str)> = options
        .iter()
        .filter(|(key, _)| *key == "metacopy")
        .copied()
        .collect();
    let merged = || -> io::Result<OwnedFd> { Ok(overlay(&[&upper, &lower], None, &read)) };
    let what = Upper {
        dir: dir.as_fd(),
        merged: &merged,
    };
    let made = fixture
        .store
        .commit(&image, Some(what), CommitOptions::default())
        .unwrap();
    (fixture, made, wanted)
}

#[test]
fn capture_gives_the_merged_tree_whatever_notes_the_kernel_took() {
    let with_notes = [("redirect_dir", "on"), ("metacopy", "on")];
    let without = [("redirect_dir", "off"), ("metacopy", "off")];
    for options in [with_notes, without] {
        let (fixture, image, wanted) = captured(&options);
        let layers = image.record.layers();
        let trees: Vec<PathBuf> = layers
            .iter()
            .rev()
            .map(|layer| fixture.store.layer_tree(layer))
            .collect();
        let trees: Vec<&Path> = trees.iter().map(PathBuf::as_path).collect();
        let stack = overlay(&trees, None, &[("redirect_dir", "nofollow")]);
        assert_eq!(listing(&path_of(&stack)), wanted, "{options:?}");

        // The tar that the layer stands for has its digest, and gives the same tree.
        let mut tar = Vec::new();
        let top = layers.last().unwrap();
        fixture.store.copy_layer_tar(top, &mut tar).unwrap();
        assert_eq!(digest_of(&tar), *top);
        let other = Fixture::new();
        let base = other.tree(&base_tar());
        let upper = other.tree(&tar);
        let stack = overlay(&[&upper, &base], None, &[("redirect_dir", "nofollow")]);
        assert_eq!(listing(&path_of(&stack)), wanted, "{options:?}");
    }
}

#[test]
fn capture_twice_of_the_same_changes_is_one_layer() {
    let fixture = Fixture::new();
    let (image, _) = fixture.import(&base_tar()).unwrap();
    let upper = fixture.tmp.path().join("upper");
    fs::create_dir(&upper).unwrap();
    fs::write(upper.join("x"), "x").unwrap();
    let dir = open(&upper, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let merged = || -> io::Result<OwnedFd> { Err(io::ErrorKind::NotFound.into()) };
    let commit = || {
        let what = Upper {
            dir: dir.as_fd(),
            merged: &merged,
        };
        let options = CommitOptions::default();
        fixture.store.commit(&image, Some(what), options).unwrap()
    };
    let (one, two) = (commit(), commit());
    assert_eq!(one.record.layers(), two.record.layers());
    assert_eq!(one.record.layers().len(), 2);
    assert_eq!(one.record.parent, Some(image.id()));
}
