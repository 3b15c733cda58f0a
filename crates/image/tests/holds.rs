//! Images that somebody is about to use stay; what nobody uses goes, while others come.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hull_image::store::{GcPolicy, GcReason, ImageUser, RemoveOptions, Removed};
use hull_image::{ImageStore, StoreError};

use crate::common::{Fixture, Tar, docker_archive};

fn layer(name: &str, bytes: usize) -> Vec<u8> {
    Tar::new().file(name, &"x".repeat(bytes)).bytes()
}

fn load(store: &ImageStore, layers: &[Vec<u8>], tag: &str) {
    let archive = docker_archive(layers, tag);
    store
        .load(&mut archive.as_slice(), None, &|_| {})
        .expect("load");
}

fn idle() -> GcPolicy {
    GcPolicy {
        unused_for: Some(Duration::ZERO),
        ..GcPolicy::default()
    }
}

#[test]
fn held_image_is_neither_removed_nor_pruned_nor_collected() {
    let f = Fixture::new();
    load(&f.store, &[layer("a", 10)], "a:1");
    let nobody = |_: &_| Vec::<ImageUser>::new();
    let (image, hold) = f.store.hold("a:1").expect("hold");
    let again = f.store.hold_id(&image.id()).expect("hold");
    drop(hold);
    let force = RemoveOptions {
        force: true,
        ..RemoveOptions::default()
    };
    let refused = f.store.remove("a:1", force, &nobody).unwrap_err();
    assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    let (removed, freed) = f.store.prune(true, &|_| true, &|_| false).expect("prune");
    assert_eq!((removed, freed), (Vec::new(), 0));
    assert_eq!(f.store.gc(&idle(), &|_| false).expect("gc").images, []);
    // A name that is not the last may go.
    f.store
        .tag(&image.id(), &"b:1".parse().expect("name"))
        .expect("tag");
    let gone = f.store.remove("a:1", RemoveOptions::default(), &nobody);
    assert_eq!(gone.expect("remove"), [Removed::Untagged("a:1".into())]);
    drop(again);
    let report = f.store.gc(&idle(), &|_| false).expect("gc");
    assert_eq!(report.images.len(), 1);
    assert_eq!(report.images[0].names, ["b:1"]);
    assert_eq!(report.images[0].reason, GcReason::Idle);
    assert_eq!((report.layers, report.reclaimed_bytes), (1, 10));
    assert!(f.store.hold_id(&image.id()).is_none());
    f.assert_empty();
}

#[test]
fn plan_of_a_collection_is_what_it_does() {
    let f = Fixture::new();
    let (a, b, c) = (layer("a", 10), layer("b", 20), layer("c", 40));
    load(&f.store, &[a.clone(), b], "one:1");
    load(&f.store, &[a, c], "two:1");
    let two = f.store.resolve("two:1").expect("image").id();
    let used = |id: &hull_model::Digest| *id == two;
    let plan = f.store.gc_plan(&idle(), &used);
    assert_eq!((plan.reclaimed_bytes, plan.kept_bytes), (20, 50));
    assert_eq!(f.store.count(), 2);
    assert_eq!(f.store.gc(&idle(), &used).expect("gc"), plan);
    let usage = f.store.disk_usage(&used);
    assert_eq!((usage.layers_bytes, usage.reclaimable_bytes), (50, 0));
}

#[test]
fn shared_bytes_are_those_of_layers_that_others_have() {
    let f = Fixture::new();
    let (a, b) = (layer("a", 10), layer("b", 20));
    load(&f.store, std::slice::from_ref(&a), "one:1");
    load(&f.store, &[a, b], "two:1");
    load(&f.store, &[layer("c", 5)], "three:1");
    let shared = f.store.disk_usage(&|_| true).shared_bytes;
    let of = |name: &str| shared[&f.store.resolve(name).expect("image").id()];
    assert_eq!((of("one:1"), of("two:1"), of("three:1")), (10, 10, 0));
}

#[test]
fn last_use_is_kept_by_the_record() {
    let mut f = Fixture::new();
    load(&f.store, &[layer("a", 10)], "a:1");
    let id = f.store.resolve("a:1").expect("image").id();
    let came = f.store.last_use(&id);
    std::thread::sleep(Duration::from_millis(5));
    f.store.used(&id);
    let used = f.store.last_use(&id);
    assert!(used > came);
    // Within a minute the file lags behind, unless the store is closed in order.
    f.store.write_uses();
    f.reopen();
    let apart = used
        .duration_since(f.store.last_use(&id))
        .unwrap_or_default();
    assert!(apart < Duration::from_millis(5), "{apart:?}");
}

#[test]
fn collections_beside_loads_and_holds_never_take_what_is_held() {
    let f = Fixture::new();
    let layers = [layer("a", 1000), layer("b", 2000)];
    let left = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = 0;
            while left.load(Ordering::Relaxed) {
                collected += f.store.gc(&idle(), &|_| false).expect("gc").images.len();
            }
            collected
        });
        let mut held = 0;
        for _ in 0..200 {
            load(&f.store, &layers, "a:1");
            let Ok((image, _hold)) = f.store.hold("a:1") else {
                continue;
            };
            held += 1;
            let lowers = f.store.lower_dirs(&image.record).expect("all layers");
            for (lower, name) in lowers.iter().zip(["b", "a"]) {
                assert!(lower.join(name).is_file(), "{}", lower.display());
            }
        }
        left.store(false, Ordering::Relaxed);
        assert!(collector.join().expect("collect") > 0);
        assert!(held > 0);
    });
    f.store.gc(&idle(), &|_| false).expect("gc");
    f.assert_empty();
}
