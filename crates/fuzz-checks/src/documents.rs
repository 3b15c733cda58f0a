//! Documents of images: manifests and indexes of a registry, configurations.

use hull_model::Digest;
use hull_registry::{Document, Manifest, Parsed};

/// A manifest or index: what is accepted is one of the two, and within bounds.
pub(crate) fn manifest(data: &[u8]) {
    let document = Document {
        bytes: data.to_vec(),
        media_type: String::new(),
        digest: Digest::from_bytes([0; 32]),
    };
    match document.parse() {
        Ok(Parsed::Index(index)) => {
            for wanted in [
                "linux/amd64",
                "linux/arm64/v8",
                "linux/arm/v7",
                "",
                "/",
                "x",
            ] {
                if let Some(chosen) = index.choose(wanted) {
                    assert!(index.manifests.contains(chosen), "{wanted:?}");
                }
            }
            for platform in index.platforms() {
                assert!(!platform.contains(char::is_control), "{platform:?}");
            }
        }
        Ok(Parsed::Manifest(manifest)) => {
            let text = serde_json::to_vec(&*manifest).expect("a manifest is JSON");
            let again: Manifest = serde_json::from_slice(&text).expect("it is read again");
            assert_eq!(*manifest, again);
            let _ = (manifest.is_image(), manifest.kind());
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("manifest sha256:"), "{text}");
        }
    }
}

/// An image's configuration: what is accepted stays the same when it is stored and read again.
pub(crate) fn image(data: &[u8]) {
    let Ok(config) = hull_image::store::parse_config(data) else {
        return;
    };
    let text = serde_json::to_vec(&config).expect("a configuration is JSON");
    let again = hull_image::store::parse_config(&text).expect("it is read again");
    assert_eq!(config, again);
}
