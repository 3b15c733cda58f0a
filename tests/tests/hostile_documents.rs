//! Manifests, indexes, configurations and archives' documents made to fill memory or to confuse:
//! each is refused with a clear error, within bounded memory.

use std::sync::Arc;

use hull_tests::liar::{INDEX, MANIFEST, Packed, Shelf};
use hull_tests::rawtar::RawTar;
use hull_tests::watched::Watched;
use serde_json::json;

#[test]
fn absurd_documents_are_refused_within_bounded_memory() {
    let Some(watched) = Watched::start() else {
        return;
    };
    let layer = Packed::gzip(&RawTar::new().file("f", b"x").end());
    let shelf = Shelf::default();
    let good = shelf.image_manifest(std::slice::from_ref(&layer));
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.to_string().into_bytes()
    };
    let of = |count: usize| with(&|m| m["layers"] = json!(vec![layer.descriptor(); count]));
    let nested = |count: usize| {
        format!(
            "{{\"schemaVersion\":2,\"x\":{}{}}}",
            "[".repeat(count),
            "]".repeat(count)
        )
    };
    let numbers = |count: usize| format!("{{\"schemaVersion\":2,\"x\":[{}0]}}", "0,".repeat(count));
    let strange = "\u{1b}[2Jlinux";
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": MANIFEST, "digest": layer.digest(), "size": 1,
         "platform": {"os": strange, "architecture": "none"}}]});
    let size = |n: serde_json::Value| with(&move |m| m["layers"][0]["size"] = n.clone());
    let cases: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        (
            "megabytes",
            MANIFEST,
            vec![b' '; 5 << 20],
            "MAX_MANIFEST_BYTES",
        ),
        (
            "megabytes of numbers",
            MANIFEST,
            numbers(2_000_000).into(),
            "MAX_DOCUMENT_VALUES",
        ),
        (
            "deep nesting",
            MANIFEST,
            nested(100_000).into(),
            "recursion limit",
        ),
        (
            "very deep nesting",
            MANIFEST,
            nested(1_900_000).into(),
            "MAX_DOCUMENT_VALUES",
        ),
        ("20,000 layers", MANIFEST, of(20_000), "more than"),
        ("600 layers", MANIFEST, of(600), "max_layers"),
        ("a layer twice", MANIFEST, of(2), "lists 1 layers"),
        ("no layers", MANIFEST, of(0), "lists 1 layers"),
        ("negative size", MANIFEST, size(json!(-1)), "is not valid"),
        ("huge size", MANIFEST, size(json!(u64::MAX)), "expected"),
        ("size of exabytes", MANIFEST, size(json!(1e18)), ""),
        ("wrong size", MANIFEST, size(json!(7)), "expected 7"),
        (
            "digest of another kind",
            MANIFEST,
            with(&|m| m["layers"][0]["digest"] = json!("md5:00")),
            "is not valid",
        ),
        (
            "digest that is a path",
            MANIFEST,
            with(&|m| m["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")),
            "is not valid",
        ),
        (
            "foreign layer",
            MANIFEST,
            with(&|m| {
                m["layers"][0] = json!({
                "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                "digest": format!("sha256:{}", "1".repeat(64)), "size": 9,
                "urls": ["http://127.0.0.1:1/evil"]});
            }),
            "is not in the registry",
        ),
        (
            "index and manifest at once",
            MANIFEST,
            with(&|m| m["manifests"] = json!([])),
            "at once",
        ),
        ("a list", MANIFEST, b"[]".to_vec(), "is not valid"),
        (
            "schema 1",
            MANIFEST,
            br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
            "schema 1",
        ),
        (
            "index for nobody",
            INDEX,
            index.to_string().into(),
            "linux/none",
        ),
    ];
    for (what, kind, bytes, words) in cases {
        shelf.manifest("1", kind, &bytes);
        let out = watched.pull(&shelf);
        assert_eq!(out.code, 1, "{what}");
        assert!(out.stderr.contains(words), "{what}: {}", out.stderr);
        assert!(
            !out.stderr.contains('\u{1b}'),
            "{what} reaches the terminal"
        );
        assert!(
            out.stderr.len() < 8 << 10,
            "{what}: {} bytes",
            out.stderr.len()
        );
        watched.assert_empty(what);
    }
    configurations(&watched, &layer);
    archives(&watched);
    watched.assert_modest();
}

/// Configurations that want more memory than they have bytes, or do not fit.
fn configurations(watched: &Watched, layer: &Packed) {
    let shelf = Shelf::default();
    let ids = |count: usize| vec![layer.diff_id.as_str(); count];
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..300_000).map(|n| (n.to_string(), json!(""))).collect();
    for (what, config, words) in [
        (
            "numbers",
            format!("{{\"x\":[{}0]}}", "0,".repeat(3_900_000)),
            "MAX_DOCUMENT_VALUES",
        ),
        (
            "labels",
            json!({"config": {"Labels": labels}}).to_string(),
            "MAX_DOCUMENT_VALUES",
        ),
        ("too large", " ".repeat(9 << 20), "MAX_CONFIG_BYTES"),
        (
            "layers",
            json!({"rootfs": {"type": "layers", "diff_ids": ids(100_000)}}).to_string(),
            "lists 100000 layers",
        ),
        ("no object", "[]".to_owned(), "is not valid"),
    ] {
        let digest = shelf.blob(Arc::new(config.clone().into_bytes()));
        let mut manifest = shelf.image_manifest(std::slice::from_ref(layer));
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(config.len());
        shelf.manifest("1", MANIFEST, manifest.to_string().as_bytes());
        let out = watched.pull(&shelf);
        assert_eq!(out.code, 1, "{what}");
        assert!(out.stderr.contains(words), "{what}: {}", out.stderr);
        watched.assert_empty(what);
    }
}

/// Archives whose documents refer to much more than they hold.
fn archives(watched: &Watched) {
    let tar = RawTar::new;
    let config = format!(
        "{{\"author\":\"{}\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[]}}}}",
        "a".repeat(7 << 20)
    );
    let item = json!({"Config": "c", "Layers": [], "RepoTags": []});
    let same = |count: usize| json!(vec![item.clone(); count]).to_string();
    let repositories: serde_json::Map<String, serde_json::Value> = (0..2_000)
        .map(|n| (format!("r{n}"), json!({"1": "top"})))
        .collect();
    for (what, tar, words) in [
        (
            "one configuration for 900 images",
            tar()
                .file("c", config.as_bytes())
                .file("manifest.json", same(900).as_bytes()),
            "MAX_DOCUMENTS_BYTES",
        ),
        (
            "5,000 images",
            tar()
                .file("c", b"{}")
                .file("manifest.json", same(5_000).as_bytes()),
            "MAX_IMAGES",
        ),
        (
            "2,000 of the oldest kind",
            tar().file("top/json", b"{}").file(
                "repositories",
                serde_json::Value::from(repositories).to_string().as_bytes(),
            ),
            "MAX_IMAGES",
        ),
        (
            "numbers",
            tar().file(
                "manifest.json",
                format!("[{}0]", "0,".repeat(2_000_000)).as_bytes(),
            ),
            "MAX_DOCUMENT_VALUES",
        ),
        (
            "deep nesting",
            tar().file("index.json", "[".repeat(100_000).as_bytes()),
            "is not valid",
        ),
        (
            "parents in a circle",
            tar()
                .file("top/json", br#"{"parent":"top"}"#)
                .file("repositories", br#"{"r":{"1":"top"}}"#),
            "max_layers",
        ),
        (
            "a document that leads out",
            tar().file(
                "manifest.json",
                br#"[{"Config":"../../../etc/passwd","Layers":[]}]"#,
            ),
            "is missing",
        ),
        (
            "a link that leads out",
            tar().symlink("manifest.json", "../../etc/passwd"),
            "links out of the archive",
        ),
        (
            "links in a circle",
            tar()
                .symlink("manifest.json", "b")
                .symlink("b", "manifest.json"),
            "not an image archive",
        ),
        (
            "a sparse member",
            tar()
                .pax(&[
                    ("GNU.sparse.map", b"0,1"),
                    ("GNU.sparse.size", b"900000000000"),
                ])
                .file("manifest.json", b"x"),
            "is sparse",
        ),
    ] {
        let out = watched.load(tar.end());
        assert_eq!(out.code, 1, "{what}");
        assert!(out.stderr.contains(words), "{what}: {}", out.stderr);
        watched.assert_empty(what);
    }
}
