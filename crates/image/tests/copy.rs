//! Packing and unpacking of trees whose content is hostile.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use hull_image::copy::{
    CopyError, Owner, Pack, Place, Rename, Scope, node, pack, pack_content, unpack,
};
use hull_image::limits::Limits;
use hull_image::tar::{Kind, TarWriter, WriteEntry};
use rustix::fs::{Mode, OFlags, open};

fn dir_of(path: &Path) -> OwnedFd {
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}

/// A tar of entries: name, kind, target of a link, content.
fn tar(entries: &[(&str, Kind, &str, &str)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut entry = WriteEntry::new(name.as_bytes(), *kind, 0o644, content.len() as u64);
        if *kind == Kind::Dir {
            entry.mode = 0o755;
        }
        entry.link = link.as_bytes();
        tar.file(&entry, &mut content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn place<'a>(dir: &'a OwnedFd, scope: Option<Scope<'a>>) -> Place<'a> {
    Place {
        dir: dir.as_fd(),
        scope,
        owner: Owner::Caller,
        keep_kinds: false,
        rename: Rename::Keep,
        closed: &|_| false,
    }
}

fn unpacked(bytes: &[u8], place: Place<'_>) -> Result<u64, CopyError> {
    unpack(&mut &bytes[..], place, &Limits::default())
}

#[test]
fn unpack_of_names_that_lead_out_is_refused_and_writes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let (inside, outside) = (base.path().join("in"), base.path().join("outside"));
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(&outside).unwrap();
    let target = outside.to_str().unwrap();
    let dir = dir_of(&inside);
    let evil = [
        tar(&[("../outside/x", Kind::File, "", "x")]),
        tar(&[("a/../../outside/x", Kind::File, "", "x")]),
        tar(&[
            ("way", Kind::Symlink, target, ""),
            ("way/x", Kind::File, "", "x"),
        ]),
        tar(&[
            ("way", Kind::Symlink, "../outside", ""),
            ("way/d/", Kind::Dir, "", ""),
        ]),
        tar(&[("hard", Kind::HardLink, "../outside", "")]),
        tar(&[
            ("way", Kind::Symlink, target, ""),
            ("h", Kind::HardLink, "way/secret", ""),
        ]),
    ];
    fs::write(outside.join("secret"), "s").unwrap();
    for bytes in evil {
        assert!(unpacked(&bytes, place(&dir, None)).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(fs::metadata(outside.join("secret")).unwrap().nlink(), 1);
        let _ = fs::remove_file(inside.join("way"));
    }
    // An absolute name is taken from the folder.
    unpacked(
        &tar(&[("/outside/x", Kind::File, "", "x")]),
        place(&dir, None),
    )
    .unwrap();
    assert!(inside.join("outside/x").exists());
}

#[test]
fn unpack_in_a_scope_follows_links_inside_the_root_alone() {
    let base = tempfile::tempdir().unwrap();
    let (root, outside) = (base.path().join("root"), base.path().join("outside"));
    fs::create_dir_all(root.join("dest")).unwrap();
    fs::create_dir_all(root.join("usr/lib")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    let target = outside.to_str().unwrap();
    fs::create_dir_all(root.join(target.trim_start_matches('/'))).unwrap();
    symlink("/usr/lib", root.join("dest/lib")).unwrap();
    symlink("../../../../..", root.join("dest/up")).unwrap();
    symlink(target, root.join("dest/out")).unwrap();
    let (top, dest) = (dir_of(&root), dir_of(&root.join("dest")));
    let scope = Scope {
        root: top.as_fd(),
        path: b"/dest",
    };
    let bytes = tar(&[
        ("lib/l", Kind::File, "", "1"),
        ("up/u", Kind::File, "", "2"),
        ("out/o", Kind::File, "", "3"),
        ("out/deep/er/o", Kind::File, "", "4"),
        ("hard", Kind::HardLink, "lib/l", ""),
    ]);
    unpacked(&bytes, place(&dest, Some(scope))).unwrap();
    assert!(root.join("usr/lib/l").exists());
    assert!(root.join("u").exists());
    let contained = root.join(target.trim_start_matches('/'));
    assert!(contained.join("o").exists() && contained.join("deep/er/o").exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::metadata(root.join("dest/hard")).unwrap().nlink(), 2);
    // A dangling link on the way is an error, not a place to make things.
    symlink("/nowhere", root.join("dest/dangling")).unwrap();
    let bytes = tar(&[("dangling/x", Kind::File, "", "x")]);
    assert!(unpacked(&bytes, place(&dest, Some(scope))).is_err());
}

#[test]
fn unpack_replaces_links_and_pipes_instead_of_writing_through_them() {
    let base = tempfile::tempdir().unwrap();
    let victim = base.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let inside = base.path().join("in");
    fs::create_dir(&inside).unwrap();
    symlink(&victim, inside.join("f")).unwrap();
    fs::hard_link(&victim, inside.join("g")).unwrap();
    let dir = dir_of(&inside);
    rustix::fs::mknodat(&dir, "p", rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let bytes = tar(&[
        ("f", Kind::File, "", "new"),
        ("g", Kind::File, "", "new"),
        ("p", Kind::File, "", "new"),
    ]);
    unpacked(&bytes, place(&dir, None)).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    for name in ["f", "g", "p"] {
        assert_eq!(fs::read_to_string(inside.join(name)).unwrap(), "new");
    }
}

#[test]
fn unpack_that_keeps_kinds_refuses_to_change_them() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir_all(base.path().join("d/full")).unwrap();
    fs::write(base.path().join("f"), "f").unwrap();
    let dir = dir_of(base.path());
    let keep = Place {
        keep_kinds: true,
        ..place(&dir, None)
    };
    let file_over_dir = tar(&[("d", Kind::File, "", "x")]);
    let dir_over_file = tar(&[("f/", Kind::Dir, "", "")]);
    assert!(matches!(
        unpacked(&file_over_dir, keep),
        Err(CopyError::OverwriteDir { .. })
    ));
    assert!(matches!(
        unpacked(&dir_over_file, keep),
        Err(CopyError::OverwriteNonDir { .. })
    ));
    unpacked(&file_over_dir, place(&dir, None)).unwrap();
    unpacked(&dir_over_file, place(&dir, None)).unwrap();
    assert!(base.path().join("d").is_file() && base.path().join("f").is_dir());
}

#[test]
fn unpack_in_closed_folders_is_refused_but_not_their_mention() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("proc")).unwrap();
    let ino = fs::metadata(base.path().join("proc")).unwrap().ino();
    let dir = dir_of(base.path());
    let closed = |fd: std::os::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino == ino;
    let place = Place {
        closed: &closed,
        ..place(&dir, None)
    };
    unpacked(
        &tar(&[("proc/", Kind::Dir, "", ""), ("f", Kind::File, "", "x")]),
        place,
    )
    .unwrap();
    let bytes = tar(&[("proc/x", Kind::File, "", "x")]);
    assert!(matches!(
        unpacked(&bytes, place),
        Err(CopyError::Closed { .. })
    ));
    assert_eq!(fs::read_dir(base.path().join("proc")).unwrap().count(), 0);
}

#[test]
fn pack_and_unpack_give_the_same_tree_back_under_another_name() {
    let base = tempfile::tempdir().unwrap();
    let from = base.path().join("from");
    fs::create_dir_all(from.join("locked/inner")).unwrap();
    fs::write(from.join("locked/inner/f"), vec![9; 700_000]).unwrap();
    fs::hard_link(from.join("locked/inner/f"), from.join("again")).unwrap();
    symlink("/nowhere", from.join("link")).unwrap();
    fs::write(from.join("suid"), "").unwrap();
    fs::set_permissions(from.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(from.join("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    let parent = dir_of(base.path());
    let how = Pack {
        called: b"from",
        hidden: &|_, _| false,
    };
    let mut bytes = Vec::new();
    let content = pack(node(parent.as_fd(), b"from").unwrap(), how, &mut bytes).unwrap();
    assert_eq!(content, 700_000);
    let renamed = Place {
        rename: Rename::First(b"to"),
        ..place(&parent, None)
    };
    assert_eq!(unpacked(&bytes, renamed).unwrap(), 700_000);
    let to = base.path().join("to");
    let meta = |name: &str| fs::symlink_metadata(to.join(name)).unwrap();
    assert_eq!(meta("locked").mode() & 0o7777, 0o555);
    assert_eq!(meta("suid").mode() & 0o7777, 0o4755);
    assert_eq!(meta("again").ino(), meta("locked/inner/f").ino());
    assert_eq!(
        fs::read_link(to.join("link")).unwrap(),
        Path::new("/nowhere")
    );
    for name in ["locked", "locked/inner/f", "link"] {
        let before = fs::symlink_metadata(from.join(name)).unwrap();
        let after = meta(name);
        assert_eq!(
            (before.mtime(), before.mtime_nsec()),
            (after.mtime(), after.mtime_nsec()),
            "{name}"
        );
    }
    // What is in a folder, under no name.
    let mut bytes = Vec::new();
    let how = Pack { called: b"", ..how };
    pack_content(dir_of(&from).as_fd(), how, &mut bytes).unwrap();
    let prefixed = Place {
        rename: Rename::Prefix(b"third"),
        ..place(&parent, None)
    };
    unpacked(&bytes, prefixed).unwrap();
    assert!(base.path().join("third/locked/inner/f").exists());
}
