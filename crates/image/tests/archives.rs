//! Whole archives: as Docker, skopeo and umoci write them, loaded, saved and loaded again.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::{Fixture, Tar, chain, docker_archive, gzip, run};
use hull_image::archive::LoadProgress;
use hull_image::export::export_tree;
use hull_image::hash::digest_of;
use hull_image::import::ImportOptions;
use hull_image::store::{ImageUser, LayerJob, LayerSource, RemoveOptions, Removed};
use hull_image::unpack::Expectation;
use hull_image::{ImageStore, RootKind, StoreError};
use hull_model::Reference;

fn layers() -> Vec<Vec<u8>> {
    let base = Tar::new()
        .dir("etc")
        .file("etc/motd", "base")
        .file("etc/old", "x")
        .bytes();
    let top = Tar::new()
        .dir("etc")
        .file("etc/motd", "top")
        .file("etc/.wh.old", "")
        .bytes();
    vec![base, top]
}

fn load(f: &Fixture, archive: &[u8]) -> Vec<hull_image::archive::Loaded> {
    f.store.load(&mut &archive[..], None, &|_| {}).unwrap().0
}

fn save(f: &Fixture, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let selected = f.store.select(&names).unwrap();
    let mut out = Vec::new();
    f.store.save(&selected, &mut out).unwrap();
    out
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn load_of_a_docker_archive_makes_the_image_and_save_gives_it_back() {
    let f = Fixture::new();
    let archive = docker_archive(&layers(), "demo/app:1");
    let packed = [
        archive.clone(),
        gzip(&archive),
        zstd::encode_all(&archive[..], 1).unwrap(),
    ];
    let seen = std::sync::Mutex::new(Vec::new());
    let (loaded, warnings) = f
        .store
        .load(&mut &packed[0][..], None, &|p| {
            seen.lock().unwrap().push(p);
        })
        .unwrap();
    assert!(warnings.is_empty());
    let completed = seen.into_inner().unwrap();
    let completed = completed
        .iter()
        .filter(|p| {
            matches!(
                p,
                LoadProgress::Layer(hull_image::store::LayerProgress::Complete { .. })
            )
        })
        .count();
    assert_eq!(completed, 2);
    let image = &loaded[0].image;
    assert_eq!(image.familiar_tags(), ["demo/app:1"]);
    assert_eq!(image.config().config.cmd, ["/bin/true"]);
    assert_eq!(image.record.size, 4 + 1 + 3);
    for other in &packed[1..] {
        assert_eq!(load(&f, other)[0].image.id(), image.id());
    }
    let lowers = f.store.lower_dirs(&image.record).unwrap();
    assert_eq!(
        fs::read_to_string(lowers[0].join("etc/motd")).unwrap(),
        "top"
    );
    assert_eq!(
        fs::read_to_string(lowers[1].join("etc/motd")).unwrap(),
        "base"
    );
    assert!(lowers[0].file_name().unwrap().len() <= 8);

    let saved = save(&f, &["demo/app:1"]);
    let g = Fixture::new();
    let again = load(&g, &saved);
    assert_eq!(again[0].image.id(), image.id());
    assert_eq!(again[0].names, [reference("demo/app:1")]);
    assert_eq!(save(&g, &["demo/app"]), saved, "save is reproducible");
}

#[test]
fn load_with_a_wrong_digest_or_missing_parts_is_refused() {
    let f = Fixture::new();
    let mut changed = layers();
    let archive = docker_archive(&layers(), "a:1");
    // The same archive with another first layer, whose digest the configuration does not list.
    changed[0] = Tar::new().file("etc/motd", "evil").bytes();
    let promised = [digest_of(&layers()[0]), digest_of(&layers()[1])];
    let config = serde_json::json!({"rootfs": {"type": "layers", "diff_ids": promised}});
    let manifest = |layers: &[&str]| {
        serde_json::json!([{"Config": "c", "RepoTags": ["a:1"], "Layers": layers}]).to_string()
    };
    let with = |manifest: &str, config: &str| {
        Tar::new()
            .entry(tar::EntryType::Regular, b"l0", b"", 0o644, &changed[0])
            .entry(tar::EntryType::Regular, b"l1", b"", 0o644, &changed[1])
            .file("c", config)
            .file("manifest.json", manifest)
            .bytes()
    };
    let config = config.to_string();
    for (archive, words) in [
        (with(&manifest(&["l0", "l1"]), &config), "expected sha256:"),
        (with(&manifest(&["l0"]), &config), "lists 1 layers"),
        (with(&manifest(&["l0", "l2"]), &config), "l2 is missing"),
        (with(&manifest(&["l0", "l1"]), "{"), "is not valid"),
        (with("nonsense", &config), "manifest.json is not valid"),
        (with("[]", &config), "no image"),
        (Tar::new().file("x", "y").bytes(), "not an image archive"),
        (b"garbage".repeat(1000), "not a tar archive"),
        (archive[..2000].to_vec(), "truncated"),
        // Between two members, where the tar itself shows no damage.
        (archive[..archive.len() - 2048].to_vec(), "truncated"),
        (Vec::new(), "empty"),
    ] {
        let text = chain(f.store.load(&mut &archive[..], None, &|_| {}).unwrap_err());
        assert!(text.contains(words), "{text:?} lacks {words:?}");
        f.assert_empty();
    }
}

#[test]
fn load_of_what_umoci_and_skopeo_write_gives_the_same_image() {
    let f = Fixture::new();
    let dir = f.tmp.path();
    let rootfs = dir.join("rootfs");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::write(rootfs.join("bin/tool"), "#!/bin/sh\n").unwrap();
    symlink("bin/tool", rootfs.join("entry")).unwrap();
    run("umoci", &["init", "--layout", "oci"], dir);
    run("umoci", &["new", "--image", "oci:v1"], dir);
    run(
        "umoci",
        &["insert", "--image", "oci:v1", "rootfs/bin", "/bin"],
        dir,
    );
    run(
        "umoci",
        &["insert", "--image", "oci:v1", "rootfs/entry", "/entry"],
        dir,
    );
    run(
        "umoci",
        &["config", "--image", "oci:v1", "--config.cmd", "/entry"],
        dir,
    );
    let copy = |to: &str| {
        run(
            "skopeo",
            &["--insecure-policy", "copy", "oci:oci:v1", to],
            dir,
        );
    };
    copy("docker-archive:docker.tar:demo/umoci:v1");
    copy("oci-archive:oci.tar:localhost/demo/umoci:v2");
    run("tar", &["-cf", "layout.tar", "-C", "oci", "."], dir);
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let docker = load(&f, &read("docker.tar"));
    assert_eq!(docker[0].image.familiar_tags(), ["demo/umoci:v1"]);
    let oci = load(&f, &read("oci.tar"));
    assert_eq!(oci[0].names, [reference("localhost/demo/umoci:v2")]);
    assert_eq!(oci[0].image.config().config.cmd, ["/entry"]);
    // A bare tag names no repository: the image has an id only.
    let bare = load(&f, &read("layout.tar"));
    assert!(bare[0].names.is_empty());
    assert_eq!(bare[0].image.id(), oci[0].image.id());
    // skopeo keeps the layers, whatever the format.
    assert_eq!(
        docker[0].image.record.layers(),
        oci[0].image.record.layers()
    );

    // And skopeo reads what we write, in either format, with the digests it expects.
    fs::write(
        dir.join("saved.tar"),
        save(&f, &["localhost/demo/umoci:v2"]),
    )
    .unwrap();
    let id = oci[0].image.id();
    for source in ["docker-archive:saved.tar", "oci-archive:saved.tar"] {
        let config = run("skopeo", &["inspect", "--config", "--raw", source], dir);
        assert_eq!(digest_of(&config), id, "{source}");
        run(
            "skopeo",
            &["--insecure-policy", "copy", source, "dir:copied"],
            dir,
        );
    }
}

#[test]
fn load_of_an_index_of_platforms_takes_the_one_that_fits() {
    let f = Fixture::new();
    let layer = Tar::new().file("a", "x").bytes();
    let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut put = |bytes: Vec<u8>| {
        let digest = digest_of(&bytes);
        let size = bytes.len();
        blobs.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        (digest, size)
    };
    let packed = put(gzip(&layer));
    let mut manifests = Vec::new();
    for architecture in ["arm64", "amd64"] {
        let config = put(serde_json::to_vec(&serde_json::json!({
            "architecture": architecture, "os": "linux", "config": null,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(&layer)]},
        }))
        .unwrap());
        let manifest = put(serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.0, "size": config.1},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": packed.0, "size": packed.1}],
        }))
        .unwrap());
        manifests.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest.0, "size": manifest.1,
            "platform": {"os": "linux", "architecture": architecture},
        }));
    }
    let inner = put(serde_json::to_vec(
        &serde_json::json!({"schemaVersion": 2, "manifests": manifests}),
    )
    .unwrap());
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": inner.0, "size": inner.1,
        "annotations": {"io.containerd.image.name": "docker.io/demo/multi:1"},
    }]});
    let mut tar = Tar::new();
    for (name, bytes) in &blobs {
        // Names of blobs are too long for the helper's short form.
        tar = tar.pax(&[("path", name.as_bytes())]).entry(
            tar::EntryType::Regular,
            b"blob",
            b"",
            0o644,
            bytes,
        );
    }
    let archive = tar.file("index.json", &index.to_string()).bytes();
    let loaded = |platform| f.store.load(&mut &archive[..], platform, &|_| {});
    let (images, _) = loaded(Some("linux/amd64")).unwrap();
    assert_eq!(images[0].image.config().architecture, "amd64");
    assert_eq!(images[0].names, [reference("demo/multi:1")]);
    let (images, _) = loaded(Some("linux/arm64")).unwrap();
    assert_eq!(images[0].image.config().architecture, "arm64");
    let text = chain(loaded(Some("linux/s390x")).unwrap_err());
    assert!(text.contains("linux/arm64, linux/amd64"), "{text}");
}

#[test]
fn load_of_the_oldest_format_builds_the_configuration() {
    let f = Fixture::new();
    let l = layers();
    let archive = Tar::new()
        .file("aa/json", r#"{"id":"aa","created":"2014-01-01T00:00:00Z"}"#)
        .entry(tar::EntryType::Regular, b"aa/layer.tar", b"", 0o644, &l[0])
        .file(
            "bb/json",
            r#"{"id":"bb","parent":"aa","config":{"Cmd":["sh"],"Env":null},"architecture":"amd64"}"#,
        )
        .entry(tar::EntryType::Regular, b"bb/layer.tar", b"", 0o644, &l[1])
        .file("repositories", r#"{"old/app":{"1":"bb","latest":"bb"}}"#)
        .bytes();
    let loaded = load(&f, &archive);
    assert_eq!(loaded[0].names.len(), 2);
    let image = &loaded[0].image;
    assert_eq!(image.config().config.cmd, ["sh"]);
    assert_eq!(image.record.layers(), [digest_of(&l[0]), digest_of(&l[1])]);
    assert_eq!(f.store.history(image).len(), 2);
}

#[test]
fn images_are_found_tagged_and_removed_as_docker_does() {
    let mut f = Fixture::new();
    let id = load(&f, &docker_archive(&layers(), "demo/app:1"))[0]
        .image
        .id();
    f.store.tag(&id, &reference("demo/app:2")).unwrap();
    f.store.tag(&id, &reference("other:latest")).unwrap();
    f.reopen();
    let store = &f.store;
    let hex = id.hex();
    for name in [
        "demo/app:1",
        "other",
        "docker.io/library/other:latest",
        &hex,
        &hex[..12],
        &hex[..1],
        &format!("sha256:{hex}"),
        &format!("sha256:{}", &hex[..20]),
    ] {
        assert_eq!(store.resolve(name).unwrap().id(), id, "{name}");
    }
    for name in ["demo/app:3", "nope", &"0".repeat(64)] {
        assert!(
            matches!(store.resolve(name), Err(StoreError::NotFound { .. })),
            "{name}"
        );
    }
    assert!(store.resolve("UPPER").is_err());
    let nobody = |_: &_| Vec::new();
    let used = |running| {
        move |_: &_| {
            vec![ImageUser {
                container: "c0ffee".into(),
                running,
            }]
        }
    };
    let plain = RemoveOptions::default();
    let force = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    assert_eq!(
        store.remove("demo/app:2", plain, &used(true)).unwrap(),
        [Removed::Untagged("demo/app:2".into())]
    );
    let conflict = |error: StoreError| {
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
    };
    // Two repositories are left: by id only by force.
    conflict(store.remove(&hex[..12], plain, &nobody).unwrap_err());
    store.remove("other", plain, &nobody).unwrap();
    conflict(store.remove("demo/app:1", plain, &used(false)).unwrap_err());
    conflict(store.remove("demo/app:1", force, &used(true)).unwrap_err());
    // Forced, the name goes; the image stays for the container.
    assert_eq!(
        store.remove("demo/app:1", force, &used(false)).unwrap(),
        [Removed::Untagged("demo/app:1".into())]
    );
    assert!(store.get(&id).unwrap().tags.is_empty());
    assert_eq!(store.disk_usage(&|_| false).reclaimable_bytes, 8);
    let (removed, freed) = store.prune(false, &|_| true, &|_| false).unwrap();
    assert_eq!((removed, freed), (vec![Removed::Deleted(id)], 8));
    f.assert_empty();
}

#[test]
fn shared_layers_stay_until_the_last_image_goes() {
    let f = Fixture::new();
    let l = layers();
    load(&f, &docker_archive(&l[..1], "base:1"));
    load(&f, &docker_archive(&l, "app:1"));
    let count = || fs::read_dir(f.store.base().join("layers")).unwrap().count();
    assert_eq!(count(), 2);
    let remove = |name: &str| {
        f.store
            .remove(name, RemoveOptions::default(), &|_| Vec::new())
            .unwrap()
    };
    assert_eq!(remove("base:1").len(), 2);
    assert_eq!(count(), 2);
    remove("app:1");
    f.assert_empty();
}

#[test]
fn open_after_a_kill_removes_leftovers_and_repairs_links() {
    let mut f = Fixture::new();
    let id = load(&f, &docker_archive(&layers(), "app:1"))[0].image.id();
    let base = f.store.base().to_owned();
    // Died while unpacking, after the layers were renamed but not the record, and before links.
    fs::create_dir_all(base.join("tmp/7/layer-0/fs/x")).unwrap();
    let orphan = Fixture::new();
    orphan.tree(&Tar::new().file("orphan", "x").bytes());
    let layer = digest_of(&Tar::new().file("orphan", "x").bytes()).hex();
    run(
        "cp",
        &[
            "-a",
            orphan
                .store
                .base()
                .join("layers")
                .join(&layer)
                .to_str()
                .unwrap(),
            base.join("layers").to_str().unwrap(),
        ],
        &base,
    );
    fs::write(base.join("blobs/sha256").join("0".repeat(64)), "x").unwrap();
    for link in fs::read_dir(base.join("l")).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    symlink("../layers/gone/fs", base.join("l/77")).unwrap();
    f.reopen();
    let image = f.store.get(&id).unwrap();
    for lower in f.store.lower_dirs(&image.record).unwrap() {
        assert!(lower.join("etc").is_dir(), "{}", lower.display());
    }
    assert_eq!(fs::read_dir(base.join("l")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(base.join("layers")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(base.join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(base.join("blobs/sha256")).unwrap().count(), 1);
}

#[test]
fn import_with_changes_and_export_of_the_tree_round_trip() {
    let f = Fixture::new();
    let tar = Tar::new()
        .dir("d")
        .pax(&[("SCHILY.xattr.user.k", b"v"), ("uid", b"5000000")])
        .file("d/a", "content")
        // The last word on the owner is the link's.
        .pax(&[("uid", b"5000000")])
        .hard_link("d/b", "d/a")
        .symlink("l", "d/a")
        .entry(tar::EntryType::Fifo, b"p", b"", 0o600, b"")
        .bytes();
    let options = ImportOptions {
        changes: vec!["CMD [\"sh\"]".into(), "ENV A=b".into()],
        message: "from a test".into(),
        name: Some(reference("imported")),
        platform: Some("linux/arm64/v8".into()),
    };
    let (image, _) = f.store.import(&mut &tar[..], &options, &|_| {}).unwrap();
    assert_eq!(image.familiar_tags(), ["imported:latest"]);
    assert_eq!(image.config().config.cmd, ["sh"]);
    assert_eq!(image.config().architecture, "arm64");
    assert_eq!(f.store.history(&image)[0].comment, "from a test");
    let tree = f.store.layer_tree(&image.record.layers()[0]);
    let root = fs::File::open(&tree).unwrap();
    let mut exported = Vec::new();
    export_tree(root.as_fd(), &mut exported).unwrap();
    let again = f.tree(&exported);
    run(
        "diff",
        &[
            "-r",
            "--no-dereference",
            "--exclude=p",
            tree.to_str().unwrap(),
            again.to_str().unwrap(),
        ],
        Path::new("/"),
    );
    let pipe = fs::symlink_metadata(again.join("p")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&pipe.file_type()));
    let (a, b) = (
        fs::metadata(again.join("d/a")).unwrap(),
        fs::metadata(again.join("d/b")).unwrap(),
    );
    assert_eq!((a.ino(), a.uid()), (b.ino(), 5_000_000));
    let mut value = [0u8; 4];
    let n = rustix::fs::getxattr(again.join("d/a"), "user.k", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"v");
    let bad = ImportOptions {
        changes: vec!["RUN x".into()],
        ..ImportOptions::default()
    };
    let text = chain(f.store.import(&mut &tar[..], &bad, &|_| {}).unwrap_err());
    assert!(text.contains("RUN is not a valid change command"), "{text}");
}

#[test]
fn builtin_images_are_made_once_and_anew_when_the_binary_changes() {
    let mut f = Fixture::new();
    let binary = f.tmp.path().join("agent");
    fs::write(&binary, "elf").unwrap();
    let first = f.store.ensure_hello(&binary).unwrap();
    assert_eq!(first.familiar_tags(), ["hull/hello:latest"]);
    let tree = f.store.layer_tree(&first.record.layers()[0]);
    assert_eq!(
        fs::metadata(tree.join("hello")).unwrap().mode() & 0o777,
        0o755
    );
    f.reopen();
    assert_eq!(f.store.ensure_hello(&binary).unwrap(), first);
    // Reproducible: another store gives the same id.
    let g = Fixture::new();
    assert_eq!(g.store.ensure_hello(&binary).unwrap().id(), first.id());
    fs::write(&binary, "elf 2").unwrap();
    assert_ne!(f.store.ensure_hello(&binary).unwrap().id(), first.id());
    let host = f.store.ensure_host().unwrap();
    assert_eq!(host.record.root, RootKind::Host);
    assert!(host.record.layers().is_empty());
    assert_eq!(f.store.ensure_host().unwrap(), host);
    // An archive with the same configuration would share the id, and so the host's root.
    let config = f.store.config_bytes(&host.id()).unwrap();
    let archive = Tar::new()
        .file("c", std::str::from_utf8(&config).unwrap())
        .file(
            "manifest.json",
            r#"[{"Config":"c","RepoTags":["evil:1"],"Layers":[]}]"#,
        )
        .bytes();
    assert!(g.store.load(&mut &archive[..], None, &|_| {}).is_err());
    assert!(f.store.load(&mut &archive[..], None, &|_| {}).is_err());
    let selected = f.store.select(&["host".to_owned()]).unwrap();
    assert!(f.store.save(&selected, &mut Vec::new()).is_err());
}

#[test]
fn two_loads_of_the_same_archive_at_once_both_succeed() {
    let f = Fixture::new();
    let archive = docker_archive(&layers(), "app:1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    load(&f, &archive);
                    let _ = f.store.prune(true, &|_| true, &|_| false);
                }
            });
        }
    });
    let reopened = ImageStore::open(f.store.base(), *f.store.limits()).unwrap();
    for image in reopened.list() {
        for layer in image.record.layers() {
            reopened
                .copy_layer_tar(layer, &mut std::io::sink())
                .unwrap();
        }
    }
}

/// A layer as a registry will bring it: a packed stream with the digest of the packed bytes.
struct Remote(Vec<u8>);

impl LayerSource for Remote {
    fn name(&self) -> String {
        "remote".into()
    }

    fn packed_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + Send + '_>> {
        Ok(Box::new(&self.0[..]))
    }
}

#[test]
fn layers_from_another_source_are_verified_packed_and_unpacked() {
    let f = Fixture::new();
    let layer = Tar::new().file("a", "x").bytes();
    let remote = Remote(gzip(&layer));
    let packed = digest_of(&remote.0);
    let ingest = |expect| {
        let mut transaction = f.store.begin().unwrap();
        let job = LayerJob {
            source: &remote,
            expect,
        };
        transaction.ingest(&[job], &|_| {})
    };
    let right = Expectation {
        diff_id: Some(digest_of(&layer)),
        packed: Some(packed),
    };
    assert_eq!(ingest(right).unwrap(), [digest_of(&layer)]);
    for wrong in [
        Expectation {
            packed: Some(digest_of(b"other")),
            ..right
        },
        Expectation {
            diff_id: Some(digest_of(b"other")),
            ..right
        },
    ] {
        assert!(ingest(wrong).is_err());
    }
    // A transaction that is not committed leaves nothing.
    f.assert_empty();
}
