//! Big and odd images: sixty layers, three gigabytes, and one with every oddity of tar, whose
//! unpacked tree equals the one that Docker makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use hull_testkit::archive::{Image, Layer, digest};
use hull_testkit::{Daemon, Run, fixtures};
use hull_tests::docker::Dockerd;
use hull_tests::odd::{Member, OddLayer};
use hull_tests::registry::{Kind, Registry};
use hull_tests::tree::{Stack, Tree, differences, hull_layers, read};
use serde_json::json;

/// `cap_net_raw+ep` as the kernel stores it: version 2 with the effective bit, then the set.
const CAP_NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
/// `u::rwx,u:1000:rwx,g::r-x,m::rwx,o::---` as the kernel takes it from an attribute.
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 232, 3, 0, 0, 4, 0, 5, 0, 255, 255,
    255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
];

/// What later layers change, and most oddities.
fn lower_layer() -> Vec<u8> {
    let long = ["n".repeat(90), "o".repeat(90), "p".repeat(90)].join("/");
    let name = format!("{long}/{}", "q".repeat(120));
    let target = "t".repeat(300);
    let gnu = format!("gnu/{}", "g".repeat(200));
    let mut layer = OddLayer::new()
        .member(Member::dir(b"./", 0o751).mtime(1_600_000_000))
        .member(Member::dir(b"./etc/", 0o755).mtime(1_500_000_000))
        .member(Member::file(b"./etc/gone", 0o644, b"gone"))
        .member(Member::file(b"./etc/kept", 0o600, b"kept").owner(1000, 1001))
        .member(Member::dir(b"/absolute", 0o755))
        .member(Member::file(b"/absolute/file", 0o644, b"a"))
        .member(Member::dir(b"dot/", 0o755))
        .member(Member::file(b"dot/.//./name", 0o644, b"dot"))
        .member(Member::dir(b"tmp", 0o1777))
        // Files in a folder with the set-group bit get its group, unless told otherwise.
        .member(Member::dir(b"staff", 0o2775).owner(0, 50))
        .member(Member::file(b"staff/root", 0o644, b"r"))
        .member(Member::dir(b"staff/dir", 0o755))
        .member(Member::file(b"staff/dir/own", 0o640, b"o").owner(7, 8))
        .member(Member::symlink(b"staff/link", b"root"))
        .member(Member::new(b'6', b"staff/pipe", 0o600))
        .member(Member::dir(b"bin", 0o755))
        .member(Member::file(b"bin/su", 0o4755, b"#!"))
        .member(Member::file(b"bin/su-other", 0o6711, b"#!").owner(1000, 1000))
        .member(Member::file(b"bin/sticky", 0o1644, b""))
        .member(
            Member::file(b"bin/ping", 0o755, b"#!ping")
                .owner(0, 27)
                .pax("SCHILY.xattr.security.capability", &CAP_NET_RAW),
        )
        .member(Member::file(b"none", 0o000, b"nobody"))
        .member(
            Member::file(b"huge-ids", 0o644, b"")
                .pax("uid", b"4000000000")
                .pax("gid", b"2147483648"),
        )
        .member(
            Member::file(b"noted", 0o644, b"n")
                .pax("SCHILY.xattr.user.text", b"some = text\n")
                .pax("SCHILY.xattr.user.bytes", &[0, 255, 10, 61, 0])
                .pax("SCHILY.xattr.user.empty", b""),
        )
        .member(Member::dir(b"noted-dir", 0o755).pax("SCHILY.xattr.user.dir", b"d"))
        .member(Member::dir(b"acl", 0o770).pax("SCHILY.xattr.system.posix_acl_default", &ACL))
        .member(Member::file(b"acl/inherits", 0o644, b""))
        .member(
            Member::file(b"acl/own", 0o670, b"").pax("SCHILY.xattr.system.posix_acl_access", &ACL),
        )
        .member(Member::dir(b"acl/dir", 0o755))
        .member(Member::file(b"exact", 0o644, b"").pax("mtime", b"1234567890.123456789"))
        .member(Member::file(b"epoch", 0o644, b"").mtime(0))
        .member(Member::file(b"before", 0o644, b"").pax("mtime", b"-86400.5"))
        .member(Member::dir(b"before-dir", 0o755).pax("mtime", b"-3"))
        .member(Member::symlink(b"before-link", b"nowhere").pax("mtime", b"-5.25"))
        .member(Member::file(b"far", 0o644, b"").pax("mtime", b"4102444800.5"))
        .member(
            Member::symlink(b"old-link", b"/etc/kept")
                .mtime(1)
                .owner(5, 6),
        )
        .member(Member::file(b"caf\xe9-\xff\xfe", 0o644, b"latin"))
        .member(Member::symlink(b"to-\x80", b"caf\xe9-\xff\xfe"))
        .member(Member::file(b"new\nline \t\\\"'*", 0o644, b"hard to name"))
        .member(Member::file(b"-rf", 0o644, b""));
    for dir in long
        .match_indices('/')
        .map(|(at, _)| &long[..at])
        .chain([&long[..]])
    {
        layer = layer.member(Member::dir(b"x", 0o711).pax("path", dir.as_bytes()));
    }
    layer
        .member(
            Member::file(b"x", 0o644, b"long")
                .pax("path", name.as_bytes())
                .mtime(99),
        )
        .member(Member::symlink(b"long-link", b"x").pax("linkpath", target.as_bytes()))
        .member(Member::dir(b"gnu", 0o755))
        .add_gnu_long(Member::file(gnu.as_bytes(), 0o644, b"gnu"))
        .add_gnu_long(Member::symlink(b"gnu/link", target.as_bytes()))
        .member(
            // Form 1.0: the map stands before the fragments.
            Member::file(b"x", 0o644, &pax_sparse(b"fragment", 65_536))
                .pax("GNU.sparse.major", b"1")
                .pax("GNU.sparse.minor", b"0")
                .pax("GNU.sparse.name", b"sparse-pax")
                .pax("GNU.sparse.realsize", b"100000"),
        )
        .member(Member::dir(b"dev", 0o755))
        .member(Member::device(b'3', b"dev/null", (1, 3)))
        .member(Member::device(b'3', b"dev/large", (300, 70_000)).owner(0, 6))
        .member(Member::device(b'4', b"dev/loop", (7, 1)))
        .member(Member::new(b'6', b"dev/pipe", 0o4620).owner(3, 4))
        // Links with one inode; the last word on mode, owner and time is a link's.
        .member(Member::dir(b"links", 0o755))
        .member(
            Member::file(b"links/one", 0o644, b"one")
                .owner(1, 1)
                .mtime(10),
        )
        .member(
            Member::hardlink(b"links/two", b"links/one", 0o644)
                .owner(1, 1)
                .mtime(10),
        )
        .member(Member::dir(b"links/below", 0o755))
        .member(
            Member::hardlink(b"links/below/three", b"./links/two", 0o640)
                .owner(2, 3)
                .mtime(77),
        )
        .member(Member::symlink(b"links/soft", b"one").owner(9, 9))
        .member(Member::hardlink(b"links/soft-too", b"links/soft", 0o777).owner(9, 9))
        // For the layers above.
        .member(Member::dir(b"opaque", 0o755))
        .member(Member::file(b"opaque/hidden", 0o644, b"h"))
        .member(Member::dir(b"opaque/dir", 0o755))
        .member(Member::file(b"opaque/dir/hidden", 0o644, b"h"))
        .member(Member::dir(b"removed", 0o755))
        .member(Member::file(b"removed/below", 0o644, b"b"))
        .member(Member::dir(b"becomes-file", 0o755))
        .member(Member::file(b"becomes-file/below", 0o644, b"b"))
        .member(Member::file(b"becomes-dir", 0o644, b"b"))
        .member(Member::dir(b"becomes-link", 0o755))
        .member(Member::dir(b"merged", 0o755))
        .member(Member::file(b"merged/lower", 0o644, b"l"))
        .finish()
}

/// A payload of sparse form 1.0 with one fragment.
fn pax_sparse(fragment: &[u8], at: u64) -> Vec<u8> {
    let mut payload = format!("1\n{at}\n{}\n", fragment.len()).into_bytes();
    payload.resize(512, 0);
    payload.extend(fragment);
    payload
}

/// Names that come twice in one layer, which Docker refuses.
fn repeated_layer() -> Vec<u8> {
    OddLayer::new()
        // Of the same kind, and of another one.
        .member(Member::file(b"twice", 0o644, b"first").mtime(5))
        .member(Member::file(b"twice", 0o755, b"second time").mtime(6))
        .member(Member::file(b"file-dir", 0o644, b"f"))
        .member(Member::dir(b"file-dir", 0o700))
        .member(Member::dir(b"dir-file", 0o700))
        .member(Member::file(b"dir-file/below", 0o644, b"b"))
        .member(Member::file(b"dir-file", 0o644, b"now a file"))
        .member(Member::symlink(b"link-dir", b"/etc"))
        .member(Member::dir(b"link-dir", 0o755))
        .member(Member::dir(b"again", 0o700).mtime(1))
        .member(Member::file(b"again/file", 0o644, b""))
        .member(Member::dir(b"again", 0o755).owner(4, 4).mtime(2))
        .finish()
}

fn upper_layers() -> [Vec<u8>; 2] {
    let middle = OddLayer::new()
        .member(Member::file(b"etc/.wh.gone", 0, b""))
        .member(Member::file(b".wh.removed", 0, b""))
        .member(Member::file(b".wh.never-there", 0, b""))
        .member(Member::dir(b"opaque", 0o750).owner(0, 1))
        .member(Member::file(b"opaque/.wh..wh..opq", 0, b""))
        .member(Member::file(b"opaque/shown", 0o644, b"s"))
        .member(Member::file(b"becomes-file", 0o644, b"file"))
        .member(Member::dir(b"becomes-dir", 0o755))
        .member(Member::file(b"becomes-dir/below", 0o644, b"b"))
        .member(Member::symlink(b"becomes-link", b"merged"))
        .member(Member::dir(b"merged", 0o2711).owner(10, 11).mtime(44))
        .member(Member::file(b"merged/upper", 0o644, b"u"))
        // One of three names is replaced: the others keep the old content.
        .member(Member::dir(b"links", 0o755))
        .member(Member::file(b"links/two", 0o600, b"new"))
        .member(Member::hardlink(b"links/four", b"links/two", 0o600));
    let top = OddLayer::new()
        .member(Member::dir(b"etc", 0o755).mtime(3))
        .member(Member::file(b"etc/gone", 0o644, b"back"))
        .member(Member::dir(b"removed", 0o755))
        .member(Member::file(b"removed/new", 0o644, b"n"))
        .member(Member::dir(b"opaque", 0o755))
        .member(Member::file(b"opaque/.wh.shown", 0, b""))
        .member(Member::dir(b"links", 0o755))
        .member(Member::file(b"links/.wh.one", 0, b""));
    [middle.finish(), top.finish()]
}

fn odd_image() -> Image {
    let [middle, top] = upper_layers();
    Image::new("odd:1")
        .raw_layer(lower_layer())
        .raw_layer(middle)
        .raw_layer(top)
}

/// The root folder itself is the topmost layer's, which says nothing of it: it is left out.
fn assert_equal(first: &Tree, second: &Tree, what: &str) {
    let (mut first, mut second) = (first.clone(), second.clone());
    for tree in [&mut first, &mut second] {
        tree.remove("\".\"");
    }
    let (first, second) = (&first, &second);
    let found = differences(first, second);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    assert!(first.len() > 60, "{what}: only {} nodes", first.len());
}

#[test]
fn image_with_every_oddity_of_tar_has_the_tree_that_docker_makes() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let archive = daemon.scratch().join("odd.tar");
    odd_image().write(&archive);
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&archive, "odd:1", "v2s2");
    let name = format!("{}/odd:1", registry.host);

    let docker = Dockerd::start();
    docker.run(&["pull", "-q", &name]).ok();
    let expected = Stack::new(&docker.layers(&name)).tree();

    daemon.ok(["pull", &name]);
    let pulled = Stack::new(&hull_layers(&daemon, &name)).tree();
    assert_equal(&pulled, &expected, "pulled by Hull, and by Docker");

    // Through an archive of Hull's, which both load. Docker itself cannot save this image: it does
    // not give sparse files back as they came.
    let ours = daemon.scratch().join("ours.tar");
    daemon.ok(["save", "-o", &ours.display().to_string(), &name]);
    daemon.ok(["rmi", "-f", &name]);
    daemon.load(&ours);
    let loaded = Stack::new(&hull_layers(&daemon, &name)).tree();
    assert_equal(&loaded, &expected, "loaded by Hull, and pulled by Docker");
    docker.run(&["rmi", "-f", &name]).ok();
    docker
        .run(&["load", "-q", "-i", &ours.display().to_string()])
        .ok();
    let back = Stack::new(&docker.layers(&name)).tree();
    assert_equal(&back, &expected, "saved by Hull and loaded by Docker");

    // And by way of a registry: the layers are compressed anew and have the same digests inside.
    let pushed = format!("{}/pushed/odd:1", registry.host);
    daemon.ok(["tag", &name, &pushed]);
    daemon.ok(["push", "-q", &pushed]);
    docker.run(&["rmi", "-f", &name]).ok();
    docker.run(&["pull", "-q", &pushed]).ok();
    let again = Stack::new(&docker.layers(&pushed)).tree();
    assert_equal(&again, &expected, "pushed by Hull and pulled by Docker");
}

#[test]
fn image_with_every_oddity_of_tar_unpacked_by_umoci_is_the_same() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let archive = daemon.scratch().join("odd.tar");
    odd_image().raw_layer(repeated_layer()).write(&archive);
    daemon.load(&archive);
    let ours = Stack::new(&hull_layers(&daemon, "odd:1")).tree();
    let saved = daemon.scratch().join("saved.tar");
    daemon.ok(["save", "-o", &saved.display().to_string(), "odd:1"]);
    let layout = daemon.scratch().join("layout");
    Run::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            &format!("docker-archive:{}", saved.display()),
            &format!("oci:{}:odd", layout.display()),
        ])
        .ok();
    let bundle = daemon.scratch().join("bundle");
    Run::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:odd", layout.display()))
        .arg(&bundle)
        .ok();
    let mut theirs = read(&bundle.join("rootfs"));
    let mut ours = ours;
    // Where Docker and umoci differ, Hull is like Docker: times before 1970, what an entry
    // inherits from its folder's list of access rights, its own list where the mode says something
    // else, and what a hard link says of its file.
    let differs = [
        "before",
        "before-dir",
        "acl/dir",
        "acl/inherits",
        "acl/own",
        "links/below/three",
    ];
    for name in differs.map(|name| format!("{name:?}")) {
        assert!(ours.remove(&name).is_some() && theirs.remove(&name).is_some());
    }
    assert_equal(&ours, &theirs, "unpacked by Hull, and by umoci");
}

#[test]
fn hard_link_into_a_lower_layer_is_refused_by_hull_and_docker() {
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let lower = OddLayer::new().member(Member::file(b"lower", 0o644, b"l"));
    let upper = OddLayer::new().member(Member::hardlink(b"link", b"lower", 0o644));
    let archive = daemon.scratch().join("across.tar");
    Image::new("across:1")
        .raw_layer(lower.finish())
        .raw_layer(upper.finish())
        .write(&archive);
    let path = archive.display().to_string();
    let ours = daemon.hull(["load", "-i", &path]);
    ours.fails_saying(1, "not an earlier entry of the same archive");
    let docker = Dockerd::start();
    let theirs = docker.run(&["load", "-i", &path]);
    assert_ne!(theirs.code, 0, "{}", theirs.stdout);
}

#[test]
fn image_of_sixty_layers_is_pulled_loaded_and_runs() {
    const LAYERS: usize = 60;
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let mut image = Image::new("sixty:1").busybox();
    for number in 1..LAYERS {
        let mut layer = Layer::new()
            .dir("data", 0o755)
            .file("data/last", 0o644, number.to_string().as_bytes())
            .file(
                &format!("data/{number}"),
                0o644,
                number.to_string().as_bytes(),
            );
        if number > 1 && number % 3 == 0 {
            layer = layer.file(&format!("data/.wh.{}", number - 1), 0, b"");
        }
        image = image.layer(layer);
    }
    let archive = daemon.scratch().join("sixty.tar");
    image.write(&archive);
    let shown = (1..LAYERS)
        .filter(|number| (number + 1) % 3 != 0 || *number == LAYERS - 1)
        .count();
    let check = |name: &str| {
        let out = daemon.ok([
            "run",
            "--rm",
            name,
            "sh",
            "-c",
            "cat /data/last; ls /data | wc -l",
        ]);
        let expected = format!("{}{}", LAYERS - 1, shown + 1);
        assert_eq!(out.replace(char::is_whitespace, ""), expected, "{out}");
        let layers = daemon.ok([
            "image",
            "inspect",
            "--format",
            "{{len .RootFS.Layers}}",
            name,
        ]);
        assert_eq!(layers.trim(), LAYERS.to_string());
    };
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    registry.put(&archive, "sixty:1", "oci");
    let name = format!("{}/sixty:1", registry.host);
    daemon.ok(["pull", "-q", &name]);
    check(&name);
    daemon.ok(["rmi", "-f", &name]);
    daemon.load(&archive);
    check("sixty:1");
}

/// Lays down an OCI layout with layers of zeros and pattern, each of about `bytes`.
fn large_layout(dir: &Path, layers: usize, bytes: u64) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make a layout");
    let blob = |bytes: &[u8]| {
        let hex = digest(bytes);
        fs::write(blobs.join(&hex), bytes).expect("write a blob");
        (format!("sha256:{hex}"), bytes.len())
    };
    let (mut diff_ids, mut descriptors) = (Vec::new(), Vec::new());
    for number in 0..layers {
        // Of a real file by GNU tar: mostly holes, which the tar has as zeros.
        let name = format!("large-{number}");
        let file = fs::File::create(dir.join(&name)).expect("make a file");
        file.set_len(bytes).expect("make it long");
        for at in (0..bytes).step_by(64 << 20) {
            std::os::unix::fs::FileExt::write_all_at(
                &file,
                format!("{number} {at}").as_bytes(),
                at,
            )
            .expect("write a pattern");
        }
        let packed = dir.join("packed");
        let script = format!(
            "tar --format=ustar --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -cf - {name} \
             | tee packed-sum | zstd -q -1 -T2 > packed"
        );
        let script = script.replace("tee packed-sum", "tee >(sha256sum > sum)");
        let status = Command::new("bash")
            .args(["-c", &format!("set -o pipefail; {script}")])
            .current_dir(dir)
            .stdin(Stdio::null())
            .status()
            .expect("run tar");
        assert!(status.success(), "tar, sha256sum or zstd failed");
        fs::remove_file(dir.join(&name)).expect("remove a file");
        let mut sum = String::new();
        hull_testkit::eventually("the sum is written", || {
            sum = fs::read_to_string(dir.join("sum")).unwrap_or_default();
            sum.len() > 64
        });
        diff_ids.push(format!("sha256:{}", &sum[..64]));
        fs::remove_file(dir.join("sum")).expect("remove the sum");
        let bytes = fs::read(&packed).expect("read a layer");
        let (digest, size) = blob(&bytes);
        descriptors.push(json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
            "digest": digest,
            "size": size,
        }));
        fs::remove_file(packed).expect("remove a layer");
    }
    let box_layer = fixtures::busybox_layer();
    let (box_digest, box_size) = blob(&box_layer);
    diff_ids.push(box_digest.clone());
    descriptors.push(json!({
        "mediaType": "application/vnd.oci.image.layer.v1.tar",
        "digest": box_digest,
        "size": box_size,
    }));
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/bin:/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let (config, size) = blob(config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "layers": descriptors,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size},
    });
    let (manifest, size) = blob(manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": kind, "digest": manifest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "large"},
    }]});
    fs::write(dir.join("index.json"), index.to_string()).expect("write the index");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    dir.to_owned()
}

#[test]
fn image_of_three_gigabytes_is_pulled_within_bounded_memory() {
    const LAYERS: usize = 3;
    const BYTES: u64 = 1_000_000_000;
    let daemon = Daemon::builder().bare().start();
    if daemon.is_docker() {
        return;
    }
    let layout = large_layout(&daemon.scratch().join("layout"), LAYERS, BYTES);
    let registry = Registry::start(&daemon.scratch().join("registry"), Kind::Plain);
    let name = format!("{}/large:1", registry.host);
    Run::new("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{}:large", layout.display()),
            &format!("docker://{name}"),
        ])
        .limit(Duration::from_secs(60))
        .ok();
    let before = peak_kib(daemon.pid());
    daemon
        .cli(["pull", "-q", &name])
        .limit(Duration::from_secs(120))
        .ok();
    let grown = peak_kib(daemon.pid()) - before;
    assert!(grown < 100 << 10, "the daemon grew by {grown} KiB");
    let total: u64 = hull_layers(&daemon, &name)
        .iter()
        .flat_map(|layer| fs::read_dir(layer).expect("list a layer").flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("large-"))
        .map(|entry| entry.metadata().expect("read a file").len())
        .sum();
    assert_eq!(total, BYTES * LAYERS as u64);
    let out = daemon.ok([
        "run",
        "--rm",
        &name,
        "sh",
        "-c",
        "for n in 0 1 2; do dd if=/large-$n bs=65536 skip=1024 count=1 2>/dev/null | head -c 10; done",
    ]);
    assert_eq!(out, "0 671088641 671088642 67108864");
}

/// The most memory that a process has had.
fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).expect("a peak")
}
