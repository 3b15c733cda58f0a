//! Documents put into a registry by hand: images for several platforms, artifacts, referrers.

use std::path::{Path, PathBuf};

use hull_testkit::Run;
use hull_testkit::archive::Layer;
use serde_json::{Value, json};

use crate::registry::Registry;

/// Media types.
pub mod media {
    /// OCI manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI configuration of an image.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI's empty configuration.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// Docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's configuration of an image.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// A repository of a registry, written to by curl.
#[derive(Debug)]
pub struct Documents {
    base: String,
    files: PathBuf,
}

impl Documents {
    /// A repository; `files` is a folder for what is sent.
    ///
    /// # Panics
    /// If the folder cannot be made.
    #[must_use]
    pub fn new(registry: &Registry, repository: &str, files: &Path) -> Self {
        std::fs::create_dir_all(files).expect("make a folder");
        Self {
            base: format!("http://{}/v2/{repository}", registry.host),
            files: files.to_owned(),
        }
    }

    fn send(&self, arguments: &[&str], bytes: &[u8]) -> String {
        let file = self.files.join("body");
        std::fs::write(&file, bytes).expect("write a body");
        let data = format!("@{}", file.display());
        Run::new("curl")
            .args([
                "-sS",
                "--fail",
                "-i",
                "--noproxy",
                "*",
                "--data-binary",
                &data,
            ])
            .args(arguments)
            .ok()
    }

    /// Puts a blob there; gives its descriptor.
    ///
    /// # Panics
    /// If the registry refuses it.
    #[must_use]
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let answer = self.send(
            &["-X", "POST", &format!("{}/blobs/uploads/", self.base)],
            b"",
        );
        let place = answer
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .expect("a place for the upload")
            .trim();
        let mark = if place.contains('?') { '&' } else { '?' };
        let octets = "Content-Type: application/octet-stream";
        let _ = self.send(
            &[
                "-X",
                "PUT",
                "-H",
                octets,
                &format!("{place}{mark}digest={digest}"),
            ],
            bytes,
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Puts a document there, under a tag or else its digest; gives its descriptor.
    ///
    /// # Panics
    /// If the registry refuses it.
    pub fn document(&self, tag: Option<&str>, document: &Value) -> Value {
        let bytes = serde_json::to_vec(document).expect("JSON");
        let digest = digest(&bytes);
        let media_type = document["mediaType"].as_str().expect("a media type");
        let _ = self.send(
            &[
                "-X",
                "PUT",
                "-H",
                &format!("Content-Type: {media_type}"),
                &format!("{}/manifests/{}", self.base, tag.unwrap_or(&digest)),
            ],
            &bytes,
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Puts an image there, of busybox and a file that says for which platform it is; gives the
    /// descriptor for an index.
    ///
    /// # Panics
    /// If the registry refuses it.
    #[must_use]
    pub fn image(&self, tag: Option<&str>, platform: &str, docker: bool) -> Value {
        let base = hull_testkit::fixtures::busybox_layer();
        let own = Layer::new()
            .file("platform", 0o644, platform.as_bytes())
            .finish();
        let mut parts = platform.split('/');
        let mut of = json!({"os": parts.next(), "architecture": parts.next()});
        if let Some(variant) = parts.next() {
            of["variant"] = variant.into();
        }
        let mut config = json!({
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&base), digest(&own)]},
            "history": [{"created_by": "base"}, {"created_by": "platform"}],
        });
        for (name, value) in of.as_object().expect("an object") {
            config[name] = value.clone();
        }
        let (manifest_type, config_type) = if docker {
            (media::DOCKER_MANIFEST, media::DOCKER_CONFIG)
        } else {
            (media::MANIFEST, media::CONFIG)
        };
        let layer_type = if docker {
            "application/vnd.docker.image.rootfs.diff.tar"
        } else {
            media::LAYER
        };
        let config = serde_json::to_vec(&config).expect("JSON");
        let document = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.blob(config_type, &config),
            "layers": [self.blob(layer_type, &base), self.blob(layer_type, &own)],
        });
        let mut descriptor = self.document(tag, &document);
        descriptor["platform"] = of;
        descriptor
    }

    /// Puts an index there.
    pub fn index(&self, tag: &str, manifests: &[Value]) -> Value {
        self.document(
            Some(tag),
            &json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": manifests}),
        )
    }

    /// Puts an artifact there: a blob of its own type, perhaps about another document.
    #[must_use]
    pub fn artifact(
        &self,
        tag: Option<&str>,
        kind: &str,
        content: &[u8],
        about: Option<&Value>,
    ) -> Value {
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": media::MANIFEST,
            "artifactType": kind,
            "config": self.blob(media::EMPTY, b"{}"),
            "layers": [self.blob("text/plain", content)],
            "annotations": {"org.example.note": "kept"},
        });
        if let Some(about) = about {
            let mut about = about.clone();
            if let Some(members) = about.as_object_mut() {
                members.remove("platform");
            }
            document["subject"] = about;
        }
        let mut descriptor = self.document(tag, &document);
        descriptor["artifactType"] = kind.into();
        descriptor
    }
}

/// `sha256:…` of bytes.
///
/// # Panics
/// If it cannot be computed.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let out = Run::new("sha256sum").input(bytes.to_vec()).ok();
    let hex = out.split_whitespace().next().expect("a digest");
    format!("sha256:{hex}")
}
