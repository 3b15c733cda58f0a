//! The store after kill -9 at random moments.

mod common;

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Tar, docker_archive};
use hull_image::ImageStore;
use hull_image::limits::Limits;
use hull_image::store::RemoveOptions;

/// Tells the test binary that it is the process to be killed, and where its store is.
const WORKER_DIR: &str = "HULL_TEST_IMAGE_WORKER_DIR";
const ROUNDS: u64 = 40;

fn archive(variant: usize) -> Vec<u8> {
    let shared = Tar::new().file("shared", &"x".repeat(200_000)).bytes();
    let mut own = Tar::new();
    for n in 0..50 {
        own = own.file(&format!("f{n}"), &format!("{variant} {n}"));
    }
    docker_archive(&[shared, own.bytes()], &format!("app{variant}:1"))
}

/// Does nothing in an ordinary run; in the child of the test below it never ends.
#[test]
fn worker_for_kills() {
    let Some(dir) = std::env::var_os(WORKER_DIR) else {
        return;
    };
    let store = ImageStore::open(Path::new(&dir), Limits::default()).unwrap();
    for round in 0.. {
        let variant = round % 3;
        let archive = archive(variant);
        let (loaded, _) = store.load(&mut &archive[..], None, &|_| {}).unwrap();
        let id = loaded[0].image.id();
        store.tag(&id, &"second:tag".parse().unwrap()).unwrap();
        let old = format!("app{}:1", (variant + 1) % 3);
        // Not there in the first rounds.
        let _ = store.remove(
            &old,
            RemoveOptions {
                force: true,
                ..RemoveOptions::default()
            },
            &|_| Vec::new(),
        );
    }
}

#[test]
fn store_after_kills_at_random_moments_is_whole() {
    let tmp = tempfile::tempdir().unwrap();
    let base = tmp.path().join("image");
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker_for_kills"])
            .env(WORKER_DIR, &base)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(5 + round * 37 % 150));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_whole(&base);
    }
}

/// Every record has its layers, every layer its exact content, and nothing else is there.
fn assert_whole(base: &Path) {
    let store = ImageStore::open(base, Limits::default()).unwrap();
    store.wait_until_clean();
    let mut layers = HashSet::new();
    let mut blobs = HashSet::new();
    for image in store.list() {
        blobs.insert(image.id().hex());
        assert_eq!(
            hull_image::hash::digest_of(&store.config_bytes(&image.id()).unwrap()),
            image.id()
        );
        for lower in store.lower_dirs(&image.record).unwrap() {
            assert!(lower.is_dir(), "{}", lower.display());
        }
        for layer in image.record.layers() {
            let mut out = Vec::new();
            store.copy_layer_tar(layer, &mut out).unwrap();
            assert_eq!(hull_image::hash::digest_of(&out), *layer);
            layers.insert(layer.hex());
        }
    }
    let names = |dir: &str| -> HashSet<String> {
        fs::read_dir(base.join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("layers"), layers);
    assert_eq!(names("blobs/sha256"), blobs);
    assert_eq!(names("l").len(), layers.len());
    assert!(names("tmp").is_empty());
}
