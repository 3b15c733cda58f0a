//! What the store knows of an image and of a layer.

use hull_model::{Digest, ImageConfig};
use serde::{Deserialize, Serialize};

/// What the root file system of an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootKind {
    /// The image's layers.
    #[default]
    Layers,
    /// The host's own `/`, read-only. Only the built-in image `host` has it: it is set by us and
    /// never read from an archive.
    Host,
}

/// An image, as stored in `images/<id>.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the configuration document.
    pub id: Digest,
    /// The configuration.
    pub config: ImageConfig,
    /// Sum of the sizes of the files in the layers.
    pub size: u64,
    /// The image it was built upon, if that was here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// Root file system.
    #[serde(default)]
    pub root: RootKind,
    /// Digest of the OCI manifest that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Free text given to `import`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// When it was stored, RFC 3339.
    pub stored: String,
    /// When it last got a name, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tagged: Option<String>,
    /// For a built-in image: what it was made from, so that it is made anew when that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_stamp: Option<String>,
}

impl ImageRecord {
    /// Diff-ids of the layers from the bottom up.
    pub fn layers(&self) -> &[Digest] {
        &self.config.rootfs.diff_ids
    }
}

/// An image with the names it goes by now.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The record.
    pub record: std::sync::Arc<ImageRecord>,
    /// Tags in full form (`docker.io/library/busybox:latest`), sorted.
    pub tags: Vec<hull_model::Reference>,
    /// Names by manifest digest, sorted.
    pub digests: Vec<hull_model::Reference>,
}

impl Image {
    /// The image id.
    pub fn id(&self) -> Digest {
        self.record.id
    }

    /// The configuration.
    pub fn config(&self) -> &ImageConfig {
        &self.record.config
    }

    /// Tags as people write them.
    pub fn familiar_tags(&self) -> Vec<String> {
        self.tags.iter().map(|tag| tag.familiar()).collect()
    }

    /// Digest names as people write them.
    pub fn familiar_digests(&self) -> Vec<String> {
        self.digests.iter().map(|name| name.familiar()).collect()
    }
}

/// A layer, as stored in `layers/<diff-id>/meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Size of the uncompressed tar.
    pub tar_bytes: u64,
    /// Bytes of file content in the tree.
    pub tree_bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Number of the short link `l/<n>` to the tree.
    pub link: u32,
    /// Replaced files: number of the split record, number of the file in `odd`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<(u64, u64)>,
    /// What had to be left out when it was unpacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
