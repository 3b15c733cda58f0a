//! What a layer's tar can hold, unpacked on a real file system and given back byte for byte.

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use common::{Fixture, Tar, gzip, run};
use hull_image::hash::digest_of;
use tar::EntryType;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 1024];
    let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

#[test]
fn unpack_with_ordinary_entries_sets_everything() {
    let f = Fixture::new();
    let tar = Tar::new()
        .entry(EntryType::Directory, b"./", b"", 0o711, b"")
        .dir("etc/")
        .file("etc/motd", "hello")
        .entry(EntryType::Regular, b"bin/su", b"", 0o4755, b"elf")
        .symlink("lib", "usr/lib")
        .symlink("evil", "/etc/shadow")
        .hard_link("etc/issue", "etc/motd")
        .entry(EntryType::Fifo, b"pipe", b"", 0o600, b"")
        .entry(EntryType::Directory, b"tmp", b"", 0o1777, b"")
        .bytes();
    let tree = f.tree(&tar);
    let meta = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    assert_eq!(meta("").mode() & 0o7777, 0o711);
    assert_eq!(meta("bin/su").mode() & 0o7777, 0o4755);
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(meta("etc/motd").ino(), meta("etc/issue").ino());
    assert_eq!(meta("etc").mtime(), 1_600_000_000);
    assert_eq!(meta("").mtime(), 1_600_000_000);
    assert_eq!(meta("lib").mtime(), 1_600_000_000);
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(
        fs::read_link(tree.join("evil")).unwrap(),
        Path::new("/etc/shadow")
    );
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_with_whiteouts_writes_overlayfs_terms() {
    let f = Fixture::new();
    let tar = Tar::new()
        .dir("a")
        .file("a/.wh.gone", "")
        .file("a/.wh..wh..opq", "")
        .file(".wh.b", "")
        .dir("b")
        .file("b/new", "x")
        .dir("c")
        .file(".wh.c", "")
        .file("d", "x")
        .file(".wh.d", "")
        .file(".wh..wh.plnk", "")
        .bytes();
    let tree = f.tree(&tar);
    assert!(is_whiteout(&tree.join("a/gone")));
    assert_eq!(
        xattr(&tree.join("a"), "trusted.overlay.opaque").as_deref(),
        Some(&b"y"[..])
    );
    // Removed below and made anew: nothing of the lower directory may show.
    assert!(xattr(&tree.join("b"), "trusted.overlay.opaque").is_some());
    assert!(tree.join("b/new").exists());
    assert!(xattr(&tree.join("c"), "trusted.overlay.opaque").is_some());
    // A whiteout does not hide what its own layer has.
    assert_eq!(fs::read_to_string(tree.join("d")).unwrap(), "x");
    assert_eq!(fs::read_dir(&tree).unwrap().count(), 4);
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_with_duplicates_keeps_the_last_and_still_reassembles() {
    let f = Fixture::new();
    let tar = Tar::new()
        .file("a", "first content of a")
        .hard_link("b", "a")
        .file("a", "second")
        .dir("d")
        .dir("d/e")
        .file("d/e/f", "deep in a directory that goes")
        .file("d/g", "too")
        .dir("d/empty")
        .file("d", "now a file")
        .symlink("s", "a")
        .file("s", "a file where a link was")
        .file("t", "then a link")
        .symlink("t", "a")
        .bytes();
    let tree = f.tree(&tar);
    let read = |name: &str| fs::read_to_string(tree.join(name)).unwrap();
    assert_eq!(read("a"), "second");
    assert_eq!(read("b"), "first content of a");
    assert_eq!(read("d"), "now a file");
    assert_eq!(read("s"), "a file where a link was");
    assert!(tree.join("t").is_symlink());
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_with_pax_headers_applies_them() {
    let f = Fixture::new();
    let long = format!("{}/{}", "d".repeat(150), "n\u{e9}".repeat(60));
    let capability: Vec<u8> = [1, 0, 0, 2, 0, 4, 0, 0]
        .into_iter()
        .chain([0; 12])
        .collect();
    let tar = Tar::new()
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"100000"),
            ("gid", b"3000000000"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.note", b"a\nb=c"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .file("short", "content")
        .pax(&[("linkpath", "t".repeat(300).as_bytes())])
        .symlink("link", "x")
        .bytes();
    let (image, warnings) = f.import(&tar).unwrap();
    let tree = f.store.layer_tree(&image.record.layers()[0]);
    let file = tree.join(&long);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (100_000, 3_000_000_000));
    // As Docker has it.
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (0, 0));
    assert_eq!(xattr(&file, "user.note").as_deref(), Some(&b"a\nb=c"[..]));
    assert_eq!(xattr(&file, "security.capability"), Some(capability));
    assert_eq!(xattr(&file, "trusted.overlay.redirect"), None);
    assert!(warnings.iter().any(|w| w.contains("trusted.overlay")));
    assert_eq!(
        fs::read_link(tree.join("link")).unwrap().as_os_str().len(),
        300
    );
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_with_names_that_are_not_utf8_keeps_their_bytes() {
    let f = Fixture::new();
    let name = b"caf\xe9\xff";
    let tar = Tar::new()
        .entry(EntryType::Regular, name, b"", 0o644, b"x")
        .entry(EntryType::Symlink, b"l", b"\xfe\xfd", 0o777, b"")
        .bytes();
    let tree = f.tree(&tar);
    assert!(tree.join(std::ffi::OsStr::from_bytes(name)).exists());
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_with_device_nodes_makes_them() {
    let f = Fixture::new();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Char);
    header.set_path("null").unwrap();
    header.set_mode(0o666);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(5);
    header.set_mtime(0);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_cksum();
    let mut tar = Tar::new();
    tar.0.append(&header, &b""[..]).unwrap();
    let tar = tar.bytes();
    let tree = f.tree(&tar);
    let meta = fs::metadata(tree.join("null")).unwrap();
    assert!(meta.file_type().is_char_device());
    assert_eq!((meta.rdev(), meta.gid()), (0x103, 5));
    assert_eq!(meta.permissions().mode() & 0o777, 0o666);
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_of_what_gnu_tar_writes_equals_the_source() {
    let f = Fixture::new();
    let source = f.tmp.path().join("source");
    fs::create_dir_all(source.join("x".repeat(120)).join("y".repeat(120))).unwrap();
    fs::write(
        source
            .join("x".repeat(120))
            .join("y".repeat(120))
            .join("long"),
        "long name",
    )
    .unwrap();
    // Holes at the start, in the middle and at the end, in more than four fragments.
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    for n in 1..30u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[n as u8; 5000], n << 20).unwrap();
    }
    fs::File::create(source.join("hole"))
        .unwrap()
        .set_len(5 << 20)
        .unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=pax"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let mut args = format.to_vec();
        args.extend(["--sparse", "-cf", "-", "-C", "source", "."]);
        let tar = run("tar", &args, f.tmp.path());
        let tree = f.tree(&tar);
        run(
            "diff",
            &["-r", "--no-dereference", "source", tree.to_str().unwrap()],
            f.tmp.path(),
        );
        let meta = fs::metadata(tree.join("sparse")).unwrap();
        assert_eq!(meta.size(), 40 << 20);
        assert!(meta.blocks() * 512 < 2 << 20, "holes were filled");
        f.assert_reassembles(&tar);
    }
}

#[test]
fn unpack_of_each_compression_gives_one_layer() {
    let f = Fixture::new();
    let tar = Tar::new().file("a", &"text ".repeat(10_000)).bytes();
    let mut two_members = gzip(&tar[..1000]);
    two_members.extend(gzip(&tar[1000..]));
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    for packed in [tar.clone(), gzip(&tar), two_members, zstd] {
        let (image, _) = f.import(&packed).unwrap();
        assert_eq!(image.record.layers(), [digest_of(&tar)]);
    }
    let layers = fs::read_dir(f.store.base().join("layers")).unwrap();
    assert_eq!(layers.count(), 1);
    f.assert_reassembles(&tar);
}

#[test]
fn unpack_keeps_what_follows_the_end_of_the_archive() {
    let f = Fixture::new();
    let mut tar = Tar::new().file("a", "x").bytes();
    tar.extend([0; 9000]);
    tar.extend(b"and some garbage that a digest covers");
    f.tree(&tar);
    f.assert_reassembles(&tar);
}
