//! Bounds on what a foreign image may make us do. Every bound has a name, and the error that it
//! raises says the name.

/// Most layers of one image. Overlayfs stacks at most 500 lower layers.
pub const MAX_LAYERS: usize = 500;
/// Most images in one archive.
pub const MAX_IMAGES: usize = 1_000;
/// Most members of an image archive (layers, configs, legacy per-layer files).
pub const MAX_ARCHIVE_MEMBERS: u64 = 20_000;
/// Largest manifest, index or `repositories` document in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Largest image configuration in bytes.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Most nested OCI indexes.
pub const MAX_INDEX_DEPTH: usize = 4;
/// Longest path or link target in bytes; the kernel's PATH_MAX without the final zero.
pub const MAX_PATH_BYTES: usize = 4_095;
/// Most components of a path.
pub const MAX_PATH_DEPTH: usize = 256;
/// Largest PAX or GNU extension header in bytes.
pub const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Most extension headers in front of one entry.
pub const MAX_EXTENSIONS: usize = 64;
/// Most extended attributes of one entry.
pub const MAX_XATTRS: usize = 1_000;
/// Most files of one layer that a later entry of the same layer may replace.
pub const MAX_REPLACED: usize = 100_000;
/// Most fragments of a sparse file.
pub const MAX_SPARSE_FRAGMENTS: usize = 100_000;
/// Stream bytes below which the compression ratio is not judged: short runs of zeros are normal.
pub const RATIO_GRACE_BYTES: u64 = 1 << 30;

/// The bounds that a deployment may wish to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most layers of one image.
    pub max_layers: usize,
    /// Most bytes of one uncompressed layer tar.
    pub max_layer_bytes: u64,
    /// Most bytes of one archive after decompression.
    pub max_archive_bytes: u64,
    /// Most entries of one layer tar.
    pub max_layer_entries: u64,
    /// Largest ratio of uncompressed to compressed bytes, judged beyond `ratio_grace_bytes`.
    pub max_ratio: u64,
    /// Stream bytes from which the ratio is judged.
    pub ratio_grace_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_layers: MAX_LAYERS,
            max_layer_bytes: 64 << 30,
            max_archive_bytes: 256 << 30,
            max_layer_entries: 1_000_000,
            // Real layers stay below 20; zeros alone give gzip 80 to 1,000 and zstd far more.
            max_ratio: 64,
            ratio_grace_bytes: RATIO_GRACE_BYTES,
        }
    }
}

/// Which bound was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// See [`Limits::max_layers`].
    #[error("image has {found} layers, more than max_layers = {limit}")]
    Layers {
        /// What the image has.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// See [`MAX_IMAGES`].
    #[error("archive holds {found} images, more than MAX_IMAGES = {limit}")]
    Images {
        /// What the archive has.
        found: usize,
        /// What is allowed.
        limit: usize,
    },
    /// See [`Limits::max_layer_bytes`] and [`Limits::max_archive_bytes`].
    #[error("uncompressed stream is larger than {name} = {limit} bytes")]
    Bytes {
        /// Name of the limit.
        name: &'static str,
        /// What is allowed.
        limit: u64,
    },
    /// See [`Limits::max_ratio`].
    #[error(
        "stream of {plain} bytes was compressed into {packed}: more than max_ratio = {limit} to one looks like a decompression bomb"
    )]
    Ratio {
        /// Bytes after decompression so far.
        plain: u64,
        /// Bytes before it.
        packed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// See [`Limits::max_layer_entries`] and [`MAX_ARCHIVE_MEMBERS`].
    #[error("tar has more entries than {name} = {limit}")]
    Entries {
        /// Name of the limit.
        name: &'static str,
        /// What is allowed.
        limit: u64,
    },
    /// See [`MAX_REPLACED`].
    #[error("layer replaces more than MAX_REPLACED = {MAX_REPLACED} of its own files")]
    Replaced,
    /// See [`MAX_MANIFEST_BYTES`] and [`MAX_CONFIG_BYTES`].
    #[error("{what} has {found} bytes, more than {name} = {limit}")]
    Document {
        /// Which document.
        what: &'static str,
        /// Its size.
        found: u64,
        /// Name of the limit.
        name: &'static str,
        /// What is allowed.
        limit: u64,
    },
}
