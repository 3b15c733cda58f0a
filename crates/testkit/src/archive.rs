//! Image archives made by hand, good and evil: docker-archive and OCI-layout tars.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// One layer, written entry by entry. Names are taken as they are, so that evil ones can be made.
#[derive(Debug)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// An image about to be written.
#[derive(Debug, Default)]
pub struct Image {
    tags: Vec<String>,
    layers: Vec<Vec<u8>>,
    config: Value,
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(name, EntryType::Regular, mode, "", content)
    }

    /// Adds a folder.
    #[must_use]
    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(name, EntryType::Directory, mode, "", &[])
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, to, &[])
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hardlink(self, name: &str, to: &str) -> Self {
        self.entry(name, EntryType::Link, 0o755, to, &[])
    }

    /// Adds an entry of any kind; the name and link may be up to 100 bytes.
    #[must_use]
    pub fn entry(
        mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        link: &str,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        // The tar crate refuses `..` and absolute names, which evil archives have.
        let old = header.as_old_mut();
        for (to, from) in old.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        for (to, from) in old.linkname.iter_mut().zip(link.bytes()) {
            *to = from;
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        let padding = content.len().next_multiple_of(512) - content.len();
        self.bytes.resize(self.bytes.len() + padding, 0);
        self
    }

    /// The finished tar.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An image with a tag, and `/bin/sh` as its command.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        Self {
            tags: vec![tag.to_owned()],
            layers: Vec::new(),
            config: json!({
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Cmd": ["sh"],
            }),
        }
    }

    /// Adds a layer.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// Adds the layer of busybox and its applets.
    #[must_use]
    pub fn busybox(mut self) -> Self {
        self.layers.push(crate::fixtures::busybox_layer());
        self
    }

    /// Adds a finished tar as a layer.
    #[must_use]
    pub fn raw_layer(mut self, tar: Vec<u8>) -> Self {
        self.layers.push(tar);
        self
    }

    /// Sets a field of the container configuration.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        if let Some(config) = self.config.as_object_mut() {
            config.insert(field.to_owned(), value);
        }
        self
    }

    fn config_json(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", digest(layer)))
            .collect();
        let history: Vec<Value> = self
            .layers
            .iter()
            .map(|_| json!({"created": "2023-11-14T22:13:20Z", "created_by": "testkit"}))
            .collect();
        json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        })
        .to_string()
        .into_bytes()
    }

    /// The image as `docker save` writes it.
    #[must_use]
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = self.config_json();
        let config_name = format!("{}.json", digest(&config));
        let mut archive = Layer::new();
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}.tar", digest(layer));
            if !names.contains(&name) {
                archive = archive.file(&name, 0o644, layer);
            }
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": self.tags, "Layers": names}]);
        archive
            .file(&config_name, 0o644, &config)
            .file("manifest.json", 0o644, manifest.to_string().as_bytes())
            .finish()
    }

    /// The image as an OCI image layout in a tar.
    #[must_use]
    pub fn oci_layout(&self) -> Vec<u8> {
        let mut archive = Layer::new()
            .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
            .dir("blobs/", 0o755)
            .dir("blobs/sha256/", 0o755);
        let mut blob = |bytes: &[u8], kind: &str| {
            let hex = digest(bytes);
            let name = format!("blobs/sha256/{hex}");
            let layer = std::mem::take(&mut archive);
            archive = layer.file(&name, 0o644, bytes);
            json!({"mediaType": kind, "digest": format!("sha256:{hex}"), "size": bytes.len()})
        };
        let config = blob(
            &self.config_json(),
            "application/vnd.oci.image.config.v1+json",
        );
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| blob(layer, "application/vnd.oci.image.layer.v1.tar"))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        })
        .to_string();
        let mut descriptor = blob(
            manifest.as_bytes(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        if let (Some(fields), Some(tag)) = (descriptor.as_object_mut(), self.tags.first()) {
            fields.insert(
                "annotations".to_owned(),
                json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": tag}),
            );
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        archive
            .file("index.json", 0o644, index.to_string().as_bytes())
            .finish()
    }

    /// Writes the docker-archive form to a file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &Path) {
        let mut file = File::create(path).expect("make an archive file");
        file.write_all(&self.docker_archive())
            .expect("write an archive file");
    }
}

/// SHA-256 in lower-case hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
