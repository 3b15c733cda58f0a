//! Archives made to break out, to fill up or to confuse: each is refused with a clear message,
//! and nothing is left behind.

mod common;

use std::fs;

use common::{Fixture, Tar, chain, docker_archive, gzip};
use hull_image::limits::Limits;
use hull_image::tar::TarWriter;
use tar::EntryType;

/// Imports, expects a refusal with these words, and nothing left.
fn refused(tar: &[u8], words: &str) {
    let f = Fixture::new();
    let text = chain(f.import(tar).unwrap_err());
    assert!(text.contains(words), "{text:?} lacks {words:?}");
    f.assert_empty();
}

#[test]
fn import_with_dot_dot_in_a_name_is_refused() {
    refused(&Tar::new().file("../evil", "x").bytes(), "`..`");
    refused(&Tar::new().file("a/../../evil", "x").bytes(), "`..`");
    refused(
        &Tar::new().hard_link("a", "../../etc/passwd").bytes(),
        "`..`",
    );
    refused(
        &Tar::new()
            .pax(&[("path", b"x/../../y")])
            .file("a", "")
            .bytes(),
        "`..`",
    );
}

#[test]
fn import_with_an_absolute_name_stays_inside() {
    let f = Fixture::new();
    let marker = f.tmp.path().join("outside");
    let tar = Tar::new()
        .pax(&[("path", marker.to_str().unwrap().as_bytes())])
        .file("x", "data")
        .bytes();
    let tree = f.tree(&tar);
    assert!(!marker.exists());
    assert!(tree.join(marker.strip_prefix("/").unwrap()).exists());
}

#[test]
fn import_that_writes_through_a_link_is_refused() {
    let f = Fixture::new();
    let outside = f.tmp.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let target = outside.to_str().unwrap();
    for tar in [
        Tar::new().symlink("l", target).file("l/evil", "x").bytes(),
        Tar::new().symlink("l", target).dir("l/evil").bytes(),
        Tar::new()
            .symlink("l", target)
            .file("l/sub/deep/evil", "x")
            .bytes(),
        Tar::new()
            .symlink("l", target)
            .file("l/.wh..wh..opq", "")
            .bytes(),
        Tar::new().symlink("l", target).file("l/.wh.x", "").bytes(),
        Tar::new()
            .dir("d")
            .symlink("d/l", target)
            .symlink("d/l/evil", "x")
            .bytes(),
        Tar::new()
            .symlink("l", target)
            .file("a", "x")
            .hard_link("l/evil", "a")
            .bytes(),
        Tar::new()
            .symlink("l", "/etc")
            .hard_link("a", "l/passwd")
            .bytes(),
    ] {
        let text = chain(f.import(&tar).unwrap_err());
        assert!(text.contains("symbolic link of the archive"), "{text}");
        f.assert_empty();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn import_that_overwrites_through_a_final_link_replaces_the_link() {
    let f = Fixture::new();
    let outside = f.tmp.path().join("outside");
    fs::write(&outside, "mine").unwrap();
    let target = outside.to_str().unwrap();
    let tree = f.tree(&Tar::new().symlink("l", target).file("l", "new").bytes());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "mine");
    assert_eq!(fs::read_to_string(tree.join("l")).unwrap(), "new");
}

#[test]
fn import_with_hard_link_to_nowhere_is_refused() {
    refused(
        &Tar::new().hard_link("a", "/etc/passwd").bytes(),
        "not an earlier entry",
    );
    refused(
        &Tar::new().hard_link("a", "lower/file").bytes(),
        "not an earlier entry",
    );
    refused(
        &Tar::new().dir("d").hard_link("a", "d").bytes(),
        "is a directory",
    );
}

#[test]
fn import_with_a_file_used_as_directory_or_nameless_entries_is_refused() {
    refused(
        &Tar::new().file("a", "x").file("a/b", "x").bytes(),
        "is used as a directory",
    );
    refused(&Tar::new().file(".", "x").bytes(), "empty");
    refused(&Tar::new().file("a/.wh.", "").bytes(), "whiteout");
    refused(&Tar::new().file("a/.wh...", "").bytes(), "whiteout");
    refused(&Tar::new().symlink("l", "").bytes(), "no target");
    refused(b"", "empty");
    refused(&[b'x'; 4096], "not a tar archive");
    let deep = "d/".repeat(300);
    refused(
        &Tar::new()
            .pax(&[("path", deep.as_bytes())])
            .dir("x")
            .bytes(),
        "MAX_PATH_DEPTH",
    );
    let long = "d".repeat(5000);
    refused(
        &Tar::new()
            .pax(&[("path", long.as_bytes())])
            .file("x", "")
            .bytes(),
        "MAX_PATH_BYTES",
    );
}

#[test]
fn import_with_an_endless_extension_header_is_refused() {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_path("x").unwrap();
    header.set_size(1 << 32);
    header.set_cksum();
    refused(header.as_bytes(), "extension header is larger");
}

#[test]
fn import_of_bombs_names_the_limit() {
    let limits = Limits {
        max_layer_bytes: 16 << 20,
        max_layer_entries: 100,
        max_ratio: 30,
        ratio_grace_bytes: 1 << 20,
        ..Limits::default()
    };
    let zeros = "\0".repeat(20 << 20);
    let bomb = Tar::new().file("zeros", &zeros).bytes();
    for (packed, words) in [
        (bomb.clone(), "max_layer_bytes"),
        (gzip(&bomb), "max_ratio"),
        (zstd::encode_all(&bomb[..], 1).unwrap(), "max_ratio"),
    ] {
        let f = Fixture::with(limits);
        let text = chain(f.import(&packed).unwrap_err());
        assert!(text.contains(words), "{text}");
        f.assert_empty();
    }
    let mut many = Tar::new();
    for n in 0..200 {
        many = many.file(&format!("f{n}"), "");
    }
    let f = Fixture::with(limits);
    let text = chain(f.import(&many.bytes()).unwrap_err());
    assert!(text.contains("max_layer_entries"), "{text}");
    f.assert_empty();
    // A sparse file of 8 EiB costs no byte in the archive.
    let huge = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", b"0,1"),
            ("GNU.sparse.size", b"9000000000000000000"),
        ])
        .file("huge", "x")
        .bytes();
    let text = chain(f.import(&huge).unwrap_err());
    assert!(text.contains("max_layer_bytes"), "{text}");
    f.assert_empty();
}

#[test]
fn load_with_too_many_layers_is_refused_before_any_is_unpacked() {
    let layer = Tar::new().file("a", "x").bytes();
    let f = Fixture::new();
    let archive = docker_archive(&vec![layer; 501], "bomb:1");
    let text = chain(f.store.load(&mut &archive[..], None, &|_| {}).unwrap_err());
    assert!(text.contains("max_layers"), "{text}");
    f.assert_empty();
}

#[test]
fn load_with_100_000_members_or_layers_is_refused() {
    let f = Fixture::new();
    let mut tar = TarWriter::new(Vec::new());
    for n in 0..100_000 {
        let name = format!("{n}/layer.tar");
        let entry = hull_image::tar::WriteEntry::new(
            name.as_bytes(),
            hull_image::tar::Kind::File,
            0o644,
            0,
        );
        tar.header(&entry).unwrap();
    }
    let bytes = tar.finish().unwrap();
    let text = chain(f.store.load(&mut &bytes[..], None, &|_| {}).unwrap_err());
    assert!(text.contains("MAX_ARCHIVE_MEMBERS"), "{text}");
    f.assert_empty();
    // The same layer named 100,000 times takes no room in the archive.
    let layer = Tar::new().file("a", "x").bytes();
    let id = hull_image::hash::digest_of(&layer);
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": vec![id; 100_000]}});
    let manifest =
        serde_json::json!([{"Config": "c", "Layers": vec!["l"; 100_000], "RepoTags": ["a:b"]}]);
    let archive = Tar::new()
        .entry(EntryType::Regular, b"l", b"", 0o644, &layer)
        .file("c", &config.to_string())
        .file("manifest.json", &manifest.to_string())
        .bytes();
    let text = chain(f.store.load(&mut &archive[..], None, &|_| {}).unwrap_err());
    assert!(
        text.contains("max_layers") || text.contains("MAX_CONFIG_BYTES"),
        "{text}"
    );
    f.assert_empty();
}

#[test]
fn load_with_members_that_lead_out_is_refused() {
    let f = Fixture::new();
    for archive in [
        Tar::new().file("../manifest.json", "[]").bytes(),
        Tar::new()
            .symlink("manifest.json", "../../../etc/passwd")
            .bytes(),
    ] {
        assert!(f.store.load(&mut &archive[..], None, &|_| {}).is_err());
        f.assert_empty();
    }
    // A link to itself ends, and an absolute one is a name inside the archive.
    for target in ["manifest.json", "/etc/passwd"] {
        let archive = Tar::new().symlink("manifest.json", target).bytes();
        let text = chain(f.store.load(&mut &archive[..], None, &|_| {}).unwrap_err());
        assert!(text.contains("not an image archive"), "{text}");
    }
    f.assert_empty();
}

/// A small pseudo-random generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

fn sample_archive() -> Vec<u8> {
    let layer = |n: u32| {
        Tar::new()
            .dir("d")
            .file("d/a", &"text".repeat(500))
            .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
            .file("d/b", &n.to_string())
            .symlink("s", "d")
            .hard_link("h", "d/a")
            .file("d/.wh.x", "")
            .bytes()
    };
    docker_archive(&[layer(1), layer(2)], "sample:1")
}

#[test]
fn load_of_truncated_archives_fails_and_leaves_nothing() {
    let archive = sample_archive();
    let f = Fixture::new();
    // All but the zeros at the end are needed.
    let needed = archive.iter().rposition(|&b| b != 0).unwrap() + 1;
    for cut in (0..needed).step_by(97).chain(needed - 30..needed) {
        let result = f.store.load(&mut &archive[..cut], None, &|_| {});
        let error = result.expect_err("a truncated archive was loaded");
        assert!(!chain(error).is_empty());
    }
    f.assert_empty();
    let packed = gzip(&archive);
    for cut in (0..packed.len()).step_by(7) {
        let result = f.store.load(&mut &packed[..cut], None, &|_| {});
        assert!(result.is_err(), "cut at {cut} was loaded");
    }
    f.assert_empty();
}

#[test]
fn load_of_archives_with_flipped_bytes_never_panics_or_changes_content() {
    let archive = sample_archive();
    let mut random = Random(0x5eed);
    let f = Fixture::new();
    for _ in 0..200 {
        let mut bytes = archive.clone();
        for _ in 0..=random.next(4) {
            let at = random.next(bytes.len());
            bytes[at] ^= 1 << random.next(8);
        }
        if let Ok((loaded, _)) = f.store.load(&mut &bytes[..], None, &|_| {}) {
            // A flip where nothing is covered (padding, the archive's own file modes).
            for image in loaded {
                for layer in image.image.record.layers() {
                    f.store.copy_layer_tar(layer, &mut std::io::sink()).unwrap();
                }
            }
        }
        assert_eq!(fs::read_dir(f.store.base().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn import_of_tars_with_random_headers_never_panics() {
    let mut random = Random(0xc0ffee);
    let base = Tar::new()
        .dir("d")
        .file("d/a", "text")
        .pax(&[("GNU.sparse.map", b"0,4"), ("GNU.sparse.size", b"4")])
        .file("sp", "text")
        .symlink("s", "d")
        .hard_link("h", "d/a")
        .bytes();
    let f = Fixture::new();
    for _ in 0..500 {
        let mut bytes = base.clone();
        let block = random.next(bytes.len() / 512) * 512;
        for _ in 0..=random.next(6) {
            let at = block + random.next(512);
            bytes[at] = match random.next(3) {
                0 => 0,
                1 => b"0123456789/.\x80\xffgSLKx"[random.next(19)],
                _ => random.next(256) as u8,
            };
        }
        // With the right checksum, so that the parser gets to see the rest.
        bytes[block + 148..block + 156].fill(b' ');
        let sum: u32 = bytes[block..block + 512]
            .iter()
            .map(|&b| u32::from(b))
            .sum();
        bytes[block + 148..block + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        if f.import(&bytes).is_ok() {
            f.assert_reassembles(&bytes);
        }
    }
}
