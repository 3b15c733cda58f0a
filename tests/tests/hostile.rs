//! Layers made to break out, to fill up or to confuse, by every way in: a registry, `load`,
//! `import`. Each is refused with a clear error or made harmless, within bounded memory.

use std::fs;
use std::path::{Path, PathBuf};

use hull_testkit::archive::digest;
use hull_testkit::{Daemon, fixtures};
use hull_tests::liar::{Liar, Packed, Shelf, gzip};
use hull_tests::rawtar::{RawTar, header, octal};
use hull_tests::watched::{LIMIT, Watched};

/// A folder outside, which nothing may touch.
fn outside(daemon: &Daemon) -> PathBuf {
    let dir = daemon.scratch().join("outside");
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("secret"), "mine").expect("write");
    dir
}

fn assert_untouched(dir: &Path) {
    assert_eq!(fs::read_dir(dir).expect("list").count(), 1);
    assert_eq!(
        fs::read_to_string(dir.join("secret")).expect("read"),
        "mine"
    );
}

#[test]
fn layers_that_lead_out_are_refused() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let dir = outside(&watched.daemon);
    let out = dir.to_str().expect("text");
    let up = format!("{}{}", "../".repeat(40), out.trim_start_matches('/'));
    let tar = RawTar::new;
    let through = "symbolic link of the archive";
    let dots = "`..`";
    for (what, tar, words) in [
        ("..", tar().file("../evil", b"x"), dots),
        ("a/../..", tar().file("a/../../evil", b"x"), dots),
        ("dir ..", tar().dir("../evil"), dots),
        ("symlink ..", tar().symlink("../evil", "x"), dots),
        ("device ..", tar().device(b'3', "../evil", 1, 3), dots),
        (
            "PAX path",
            tar().pax(&[("path", b"x/../../y")]).file("a", b""),
            dots,
        ),
        (
            "PAX path over a long name",
            tar()
                .long(b'L', "good")
                .pax(&[("path", up.as_bytes())])
                .file("good", b""),
            dots,
        ),
        ("long name", tar().long(b'L', &up).file("good", b""), dots),
        (
            "sparse name",
            tar()
                .pax(&[
                    ("GNU.sparse.name", b"../x"),
                    ("GNU.sparse.map", b"0,1"),
                    ("GNU.sparse.size", b"1"),
                ])
                .file("good", b"x"),
            dots,
        ),
        (
            "file through a link",
            tar().symlink("l", out).file("l/evil", b"x"),
            through,
        ),
        (
            "file through a relative link",
            tar().symlink("l", &up[..99]).file("l/evil", b"x"),
            through,
        ),
        (
            "file through a long link",
            tar()
                .long(b'K', &up)
                .symlink("l", "good")
                .file("l/evil", b"x"),
            through,
        ),
        (
            "file through a PAX link",
            tar()
                .pax(&[("linkpath", up.as_bytes())])
                .symlink("l", "good")
                .file("l/evil", b"x"),
            through,
        ),
        (
            "file through two links",
            tar()
                .symlink("a", "b")
                .symlink("b", out)
                .file("a/evil", b"x"),
            through,
        ),
        (
            "deep through a link",
            tar().symlink("l", out).file("l/x/y/z", b"x"),
            through,
        ),
        (
            "dir through a link",
            tar().symlink("l", out).dir("l/evil"),
            through,
        ),
        (
            "link through a link",
            tar().symlink("l", out).symlink("l/evil", "x"),
            through,
        ),
        (
            "device through a link",
            tar().symlink("l", out).device(b'3', "l/evil", 1, 3),
            through,
        ),
        (
            "whiteout through a link",
            tar().symlink("l", out).file("l/.wh.secret", b""),
            through,
        ),
        (
            "opaque through a link",
            tar().symlink("l", out).file("l/.wh..wh..opq", b""),
            through,
        ),
        (
            "hard link through a link",
            tar().symlink("l", out).hardlink("h", "l/secret"),
            through,
        ),
        (
            "hard link into a link",
            tar()
                .symlink("l", out)
                .file("f", b"x")
                .hardlink("l/evil", "f"),
            through,
        ),
        (
            "hard link outside",
            tar().hardlink("h", format!("{out}/secret")),
            "not an earlier entry",
        ),
        ("hard link up", tar().hardlink("h", &up[..99]), dots),
        (
            "hard link to itself",
            tar().hardlink("h", "h"),
            "not an earlier entry",
        ),
        (
            "hard link to a folder",
            tar().dir("d").hardlink("h", "d"),
            "is a directory",
        ),
        ("whiteout of ..", tar().file(".wh...", b""), "whiteout"),
        ("whiteout of .", tar().file("a/.wh..", b""), "whiteout"),
        ("whiteout of nothing", tar().file("a/.wh.", b""), "whiteout"),
        (
            "below a file",
            tar().file("a", b"x").file("a/b", b"x"),
            "is used as a directory",
        ),
        (
            "below a pipe",
            tar().sized(b'6', "a", "", &octal(0), b"").file("a/b", b"x"),
            "is used as a directory",
        ),
    ] {
        watched.refuses(what, &tar.end(), words);
    }
    assert_untouched(&dir);
    watched.assert_modest();
}

#[test]
fn tars_with_absurd_headers_are_refused() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let tar = RawTar::new;
    let mut negative = [0xff; 12];
    negative[11] = 0xfe;
    let mut huge = [0xff; 12];
    (huge[0], huge[1], huge[2], huge[3], huge[4]) = (0x80, 0, 0, 0, 0x7f);
    let xattrs: Vec<String> = (0..2_000)
        .map(|n| format!("SCHILY.xattr.user.{n}"))
        .collect();
    let xattrs: Vec<(&str, &[u8])> = xattrs.iter().map(|name| (&**name, &b"x"[..])).collect();
    let mut headers = tar();
    for n in 0..100 {
        let value = vec![b'x'; 8_000];
        headers = headers.pax(&[(&format!("SCHILY.xattr.user.{n}"), &value)]);
    }
    let mut together = tar();
    for n in 0..10 {
        let value = vec![b'x'; 500_000];
        together = together.pax(&[(&format!("comment{n}"), &value)]);
    }
    let sparse = |map: &str, size: &str| {
        tar()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.map", map.as_bytes()),
                ("GNU.sparse.size", size.as_bytes()),
            ])
            .file("s", b"0123456789")
    };
    let long = vec![b'd'; 5_000];
    let deep = "d/".repeat(300);
    for (what, tar, words) in [
        (
            "negative size",
            tar().sized(b'0', "f", "", &negative, b""),
            "negative size",
        ),
        (
            "huge size",
            tar().sized(b'0', "f", "", &huge, b"x"),
            "truncated",
        ),
        (
            "no number",
            tar().sized(b'0', "f", "", b"12x45678901\0", b""),
            "size",
        ),
        (
            "PAX size",
            tar()
                .pax(&[("size", b"99999999999999999999")])
                .file("f", b""),
            "PAX size",
        ),
        (
            "negative PAX size",
            tar().pax(&[("size", b"-1")]).file("f", b""),
            "PAX size",
        ),
        (
            "largest PAX size",
            tar()
                .pax(&[("size", b"18446744073709551615")])
                .file("f", b""),
            "size",
        ),
        (
            "huge PAX header",
            tar().sized(b'x', "p", "", &octal(1 << 32), b"x"),
            "extension header is larger",
        ),
        (
            "huge long name",
            tar().sized(b'L', "p", "", &octal(7 << 30), b"x"),
            "extension header is larger",
        ),
        (
            "global header",
            tar().sized(b'g', "p", "", &octal(1 << 31), b"x"),
            "extension header is larger",
        ),
        ("many PAX headers", headers, "MAX_EXTENSIONS"),
        ("large PAX headers", together, "extension header is larger"),
        (
            "many attributes",
            tar().pax(&xattrs).file("f", b""),
            "MAX_XATTRS",
        ),
        (
            "PAX record without end",
            tar().sized(b'x', "p", "", &octal(9), b"9999 a=b\n"),
            "PAX record",
        ),
        (
            "name with NUL",
            tar().pax(&[("path", b"a\0b")]).file("f", b""),
            "zero byte",
        ),
        (
            "link with NUL",
            tar().pax(&[("linkpath", b"a\0b")]).symlink("f", "x"),
            "zero byte",
        ),
        (
            "long path",
            tar().pax(&[("path", &long)]).file("f", b""),
            "MAX_PATH_BYTES",
        ),
        (
            "long component",
            tar().pax(&[("path", &long[..300])]).file("f", b""),
            "name too long",
        ),
        (
            "long target",
            tar().long(b'K', &long).symlink("f", "x"),
            "too long",
        ),
        (
            "deep path",
            tar().pax(&[("path", deep.as_bytes())]).dir("f"),
            "MAX_PATH_DEPTH",
        ),
        ("no target", tar().symlink("f", ""), "no target"),
        (
            "nameless file",
            tar().file("./", b"").file(".", b"x"),
            "empty",
        ),
        (
            "sparse beyond its end",
            sparse("100,10", "20"),
            "beyond the end",
        ),
        ("sparse overlapping", sparse("0,6,3,4", "20"), "overlap"),
        ("sparse with too much", sparse("0,20", "20"), "does not fit"),
        (
            "sparse with too little",
            sparse("0,2", "20"),
            "does not fit",
        ),
        (
            "sparse that wraps",
            sparse("18446744073709551615,10", "20"),
            "sparse",
        ),
        (
            "sparse of exabytes",
            sparse("0,10", "9000000000000000000"),
            "max_layer_bytes",
        ),
        ("sparse of no number", sparse("0,x", "20"), "sparse"),
    ] {
        let tar = tar.end();
        let way = if what == "long component" {
            "oo long"
        } else {
            words
        };
        watched.refuses(what, &tar, way);
    }
    let mut block = header(b'0', b"f", b"", &octal(3));
    block[0] = b'g';
    watched.refuses("wrong checksum", &block, "checksum");
    watched.refuses("no tar", &[b'x'; 4_096], "not a tar archive");
    let cut = RawTar::new().file("f", &[b'x'; 5_000]).open();
    watched.refuses("cut", &cut[..3_000], "truncated");
    watched.assert_modest();
}

#[test]
fn odd_entries_are_made_harmless() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let dir = outside(&watched.daemon);
    let secret = dir.join("secret");
    let secret = secret.to_str().expect("text");
    let tar = RawTar::new()
        .pax(&[("path", format!("{}/made", dir.display()).as_bytes())])
        .file("x", b"inside")
        // A link replaced by a file, a hard link to a link replaced by a file.
        .symlink("l1", secret)
        .file("l1", b"new")
        .symlink("l2", secret)
        .hardlink("h2", "l2")
        .file("h2", b"new")
        .hardlink("h3", "l2")
        // Each kind over each other.
        .dir("d")
        .file("d/below", b"x")
        .file("d", b"file now")
        .file("f", b"x")
        .dir("f")
        .file("f/below", b"x")
        .symlink("s", dir.display().to_string())
        .dir("s")
        .file("s/below", b"x")
        .file("new\nline", b"1")
        .file(b"\xff\xfe\x1b[2J", b"1")
        .device(b'4', "disk", 253, 0)
        .device(b'3', "mem", 1, 1)
        .device(b'3', "hole", 0, 0)
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            (
                "SCHILY.xattr.security.selinux",
                b"system_u:object_r:etc_t:s0",
            ),
            ("SCHILY.xattr.security.ima", b"x"),
            ("SCHILY.xattr.user.good", b"kept"),
        ])
        .dir("attributes")
        .end();
    let shelf = Shelf::default();
    let busybox = Packed::gzip(&fixtures::busybox_layer());
    shelf.image("1", &[busybox, Packed::gzip(&tar)]);
    let liar = Liar::honest(&shelf);
    let name = format!("{}/evil:1", liar.host);
    let daemon = &watched.daemon;
    daemon.cli(["pull", "-q", &name]).limit(LIMIT).ok();
    assert_untouched(&dir);
    let tree = watched.store().join(digest(&tar)).join("fs");
    let read = |path: &str| fs::read_to_string(tree.join(path)).expect(path);
    assert_eq!(read(&format!(".{}/made", dir.display())), "inside");
    assert_eq!((read("l1"), read("h2")), ("new".into(), "new".into()));
    assert_eq!(
        fs::read_link(tree.join("h3")).expect("a link"),
        Path::new(secret)
    );
    assert_eq!(read("d"), "file now");
    assert!(tree.join("f/below").is_file() && tree.join("s/below").is_file());
    let mut names = vec![0; 4_096];
    let count = rustix::fs::llistxattr(tree.join("attributes"), &mut names).expect("list");
    let names = String::from_utf8_lossy(&names[..count]).replace('\0', " ");
    assert_eq!(names.trim(), "user.good");
    // Devices of the host are there by name alone.
    for device in ["/disk", "/mem"] {
        let out = daemon.hull([
            "run",
            "--rm",
            &name,
            "dd",
            &format!("if={device}"),
            "of=/dev/null",
            "count=1",
        ]);
        assert_ne!(out.code, 0, "{device} was read");
        assert!(
            out.stderr.contains("not permitted"),
            "{device}: {}",
            out.stderr
        );
    }
    // The same bytes go out again, the odd names among them.
    let archive = daemon.scratch().join("saved.tar");
    daemon.ok(["save", "-o", archive.to_str().expect("text"), &name]);
    daemon.ok(["rmi", "-f", &name]);
    daemon.load(&archive);
    assert!(tree.join("l1").is_file());
    let ids = daemon.ok(["images", "-aq"]);
    daemon.ok(["rmi", "-f"].into_iter().chain(ids.lines()));
    assert_untouched(&dir);
}

/// A member of a compressed stream again and again: a large stream for little work.
fn repeated(head: &[u8], piece: &[u8], times: usize) -> Vec<u8> {
    let mut out = head.to_vec();
    for _ in 0..times {
        out.extend_from_slice(piece);
    }
    out
}

#[test]
fn decompression_bombs_are_refused_within_bounded_memory() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let start = header(b'0', b"zeros", b"", &octal(8_000_000_000));
    let zeros = vec![0; 32 << 20];
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("pack");
    let bombs = [
        (
            "gzip",
            repeated(&gzip(&start), &gzip(&zeros), 64),
            "max_ratio",
        ),
        (
            "zstd",
            repeated(&zstd(&start), &zstd(&zeros), 64),
            "max_ratio",
        ),
    ];
    for (what, bomb, words) in bombs {
        let shelf = Shelf::default();
        shelf.image("1", &[Packed::claimed(bomb.clone())]);
        for out in [watched.pull(&shelf), watched.import(bomb)] {
            assert_ne!(out.code, 0, "{what}");
            assert!(out.stderr.contains(words), "{what}: {}", out.stderr);
        }
        watched.assert_empty(what);
    }
    // One inside the other is no tar, and an archive may be a bomb itself.
    let nested = gzip(&repeated(&gzip(&start), &gzip(&zeros), 4));
    let out = watched.import(nested);
    out.fails_saying(1, "tar");
    let archive = repeated(
        &gzip(&header(b'0', b"big", b"", &octal(8_000_000_000))),
        &gzip(&zeros),
        64,
    );
    watched.load(archive).fails_saying(1, "max_ratio");
    // Windows that want more memory than all else: large ones wait for one another, larger ones
    // are refused.
    let windowed = |log: u32| {
        let tar = RawTar::new().file("f", &vec![0; 1 << 20]).end();
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("encoder");
        encoder.window_log(log).expect("window");
        std::io::Write::write_all(&mut encoder, &tar[..512]).expect("pack");
        std::io::Write::flush(&mut encoder).expect("pack");
        std::io::Write::write_all(&mut encoder, &tar[512..]).expect("pack");
        (encoder.finish().expect("pack"), tar)
    };
    let (bytes, _) = windowed(26);
    watched.import(bytes).fails_saying(1, "memory");
    let (bytes, _) = windowed(25);
    watched.import(bytes).ok();
    watched.daemon.ok(["rmi", "-f", "evil:1"]);
    watched.assert_empty("bombs");
    watched.assert_modest();
}

#[test]
fn ten_million_entries_are_refused_within_bounded_memory() {
    let Some(watched) = Watched::in_memory() else {
        return;
    };
    // 100,000 folders with long names, then the same again and again.
    let long = "n".repeat(80);
    let mut block = Vec::with_capacity(100_000 * 512);
    for n in 0..100_000 {
        let name = format!("{}/{long}{n:06}", n % 100);
        block.extend_from_slice(&header(b'5', name.as_bytes(), b"", &octal(0)));
    }
    let bomb = repeated(&[], &gzip(&block), 100);
    let out = watched.import(bomb);
    out.fails_saying(1, "max_layer_entries = 1000000");
    watched.assert_empty("folders");
    watched.assert_modest();
    // Files that replace one another are kept until the end, so there may not be many of them.
    let mut block = Vec::new();
    for _ in 0..10_000 {
        block.extend_from_slice(&RawTar::new().file("same", b"x").open());
    }
    let bomb = repeated(&[], &gzip(&block), 100);
    watched.import(bomb).fails_saying(1, "MAX_REPLACED");
    watched.assert_empty("replaced files");
    // Members of an archive, their names and what they link to.
    let mut block = RawTar::new();
    for n in 0..100 {
        let name = format!("{n}/{}", "m/".repeat(1_000));
        block = block.pax(&[("path", name.as_bytes())]).file("x", b"");
    }
    let many = repeated(&[], &gzip(&block.open()), 100);
    watched.load(many).fails_saying(1, "MAX_");
    let link = vec![b'l'; 1_000_000];
    let block = RawTar::new().long(b'K', &link).symlink("s", "x").open();
    let links = repeated(&[], &gzip(&block), 1_000);
    watched.load(links).fails_saying(1, "MAX_NAMES_BYTES");
    watched.assert_empty("members");
    watched.assert_modest();
}
