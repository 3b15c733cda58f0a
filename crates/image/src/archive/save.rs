//! `save`: images become one archive that is docker-archive and OCI image layout at once, as
//! Docker 25 and later write it. Layers come out byte for byte as they went in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use hull_model::{Digest, ErrorKind, Reference};
use serde::Serialize;

use crate::content::Pointer;
use crate::hash::{HashWriter, digest_of};
use crate::store::{Image, ImageStore, RootKind, StoreError};
use crate::tar::{Kind, TarWriter, WriteEntry};

/// Small writes are gathered up to this size.
const BUFFER_BYTES: usize = 256 << 10;
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Why images could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The host's own root is no archive.
    #[error("image {0} is the host's own root file system and cannot be saved")]
    Host(String),
    /// Nothing was named.
    #[error("no image named: give at least one")]
    Nothing,
    /// A layer's stored form has changed.
    #[error("stored layer {expected} is damaged: its content has digest {found}")]
    Damaged {
        /// Its name.
        expected: Digest,
        /// What the content has.
        found: Digest,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SaveError> for hull_model::Error {
    fn from(error: SaveError) -> Self {
        match error {
            SaveError::Store(error) => error.into(),
            SaveError::Host(_) | SaveError::Nothing => {
                crate::store::from_chain(ErrorKind::InvalidArgument, error)
            }
            error => crate::store::from_chain(ErrorKind::Internal, error),
        }
    }
}

/// An image to be saved, and the tags that it shall have in the archive.
#[derive(Debug, Clone)]
pub struct SaveImage {
    /// The image.
    pub image: Image,
    /// Its tags.
    pub tags: Vec<Reference>,
}

/// An index or artifact to be saved as it came.
#[derive(Debug, Clone)]
pub struct SaveKept {
    /// Its name.
    pub name: Reference,
    /// Its document.
    pub document: Pointer,
    /// All that this leads to, itself too, and where each lies.
    pub blobs: Vec<(Pointer, PathBuf)>,
}

/// What an archive holds besides images, and what it leaves out of these.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Kept as they came.
    pub kept: Vec<SaveKept>,
    /// Layers that whoever loads the archive has.
    pub without: BTreeSet<Digest>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestItem {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Cow<'static, str>,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

impl Descriptor {
    fn new(media_type: impl Into<Cow<'static, str>>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            annotations: BTreeMap::new(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestDoc {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexDoc {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

impl ImageStore {
    /// Finds what the arguments of `save` mean: an id saves no tag, `repository:tag` that tag, and
    /// a repository alone all its tags.
    ///
    /// # Errors
    /// If one names no image.
    pub fn select(&self, names: &[String]) -> Result<Vec<SaveImage>, SaveError> {
        let mut selected: Vec<SaveImage> = Vec::new();
        let mut add = |image: Image, tags: Vec<Reference>| {
            if let Some(known) = selected.iter_mut().find(|s| s.image.id() == image.id()) {
                for tag in tags {
                    if !known.tags.contains(&tag) {
                        known.tags.push(tag);
                    }
                }
            } else {
                selected.push(SaveImage { image, tags });
            }
        };
        for name in names {
            if let Some(all) = self.repository(name) {
                for (image, tags) in all {
                    add(image, tags);
                }
                continue;
            }
            let image = self.resolve(name)?;
            let tag = name.parse::<Reference>().ok();
            let tags = tag.filter(|tag| image.tags.contains(tag));
            add(image, tags.into_iter().collect());
        }
        if selected.is_empty() {
            return Err(SaveError::Nothing);
        }
        Ok(selected)
    }

    /// All images with tags in a repository, if `name` is one and nothing more.
    fn repository(&self, name: &str) -> Option<Vec<(Image, Vec<Reference>)>> {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.contains([':', '@']) {
            return None;
        }
        let wanted = name.parse::<Reference>().ok()?;
        let mut found = Vec::new();
        for image in self.list() {
            let tags = image.tags.iter();
            let tags: Vec<Reference> = tags
                .filter(|tag| (&tag.domain, &tag.path) == (&wanted.domain, &wanted.path))
                .cloned()
                .collect();
            if !tags.is_empty() {
                found.push((image, tags));
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Writes images to `out`.
    ///
    /// # Errors
    /// See [`SaveError`]. What was written by then is no complete archive.
    pub fn save(&self, images: &[SaveImage], out: &mut dyn Write) -> Result<(), SaveError> {
        self.save_with(images, &SaveOptions::default(), out)
    }

    /// Writes images to `out`, with more or less than is theirs.
    ///
    /// # Errors
    /// See [`SaveError`]. What was written by then is no complete archive.
    pub fn save_with(
        &self,
        images: &[SaveImage],
        options: &SaveOptions,
        out: &mut dyn Write,
    ) -> Result<(), SaveError> {
        if let Some(host) = images
            .iter()
            .find(|s| s.image.record.root == RootKind::Host)
        {
            let tags = host.image.familiar_tags();
            return Err(SaveError::Host(tags.join(", ")));
        }
        let mut archive = Archive {
            tar: TarWriter::new(BufWriter::with_capacity(BUFFER_BYTES, out)),
            written: BTreeSet::new(),
        };
        archive.dir("blobs/")?;
        archive.dir("blobs/sha256/")?;
        let mut items = Vec::new();
        let mut manifests = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for SaveImage { image, tags } in images {
            let mut layers = Vec::new();
            for diff_id in image.record.layers() {
                let size = if options.without.contains(diff_id) {
                    let meta = self.layer(diff_id);
                    meta.ok_or(StoreError::LayerMissing(*diff_id))?.tar_bytes
                } else {
                    archive.layer(self, diff_id)?
                };
                layers.push(Descriptor::new(OCI_LAYER, *diff_id, size));
            }
            let config = self.config_bytes(&image.id())?;
            archive.blob(&config)?;
            let manifest = json(&ManifestDoc {
                schema_version: 2,
                media_type: OCI_MANIFEST,
                config: Descriptor::new(OCI_CONFIG, image.id(), config.len() as u64),
                layers,
            })?;
            let digest = archive.blob(&manifest)?;
            let descriptor = || Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64);
            for tag in tags {
                let mut named = descriptor();
                named
                    .annotations
                    .insert("io.containerd.image.name", tag.to_string());
                if let Some(text) = &tag.tag {
                    named
                        .annotations
                        .insert("org.opencontainers.image.ref.name", text.clone());
                    let top = image.record.layers().last().unwrap_or(&digest);
                    repositories
                        .entry(tag.familiar_name())
                        .or_default()
                        .insert(text.clone(), top.hex());
                }
                manifests.push(named);
            }
            if tags.is_empty() {
                manifests.push(descriptor());
            }
            items.push(ManifestItem {
                config: blob_name(&image.id()),
                repo_tags: (!tags.is_empty())
                    .then(|| tags.iter().map(Reference::familiar).collect()),
                layers: image.record.layers().iter().map(blob_name).collect(),
            });
        }
        for kept in &options.kept {
            for (pointer, path) in &kept.blobs {
                archive.raw(pointer, path)?;
            }
            let document = &kept.document;
            let mut named =
                Descriptor::new(document.media_type.clone(), document.digest, document.size);
            let notes = &mut named.annotations;
            notes.insert("io.containerd.image.name", kept.name.to_string());
            if let Some(tag) = &kept.name.tag {
                notes.insert("org.opencontainers.image.ref.name", tag.clone());
            }
            manifests.push(named);
        }
        archive.file(
            "index.json",
            &json(&IndexDoc {
                schema_version: 2,
                media_type: OCI_INDEX,
                manifests,
            })?,
        )?;
        // Docker's own document knows images only.
        if !items.is_empty() || options.kept.is_empty() {
            archive.file("manifest.json", &json(&items)?)?;
        }
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !repositories.is_empty() {
            archive.file("repositories", &json(&repositories)?)?;
        }
        archive.tar.finish().map_err(SaveError::Write)?;
        Ok(())
    }
}

struct Archive<'a> {
    tar: TarWriter<BufWriter<&'a mut dyn Write>>,
    written: BTreeSet<Digest>,
}

impl Archive<'_> {
    fn dir(&mut self, name: &str) -> Result<(), SaveError> {
        self.tar
            .header(&WriteEntry::new(name.as_bytes(), Kind::Dir, 0o755, 0))
            .map_err(SaveError::Write)
    }

    fn file(&mut self, name: &str, mut content: &[u8]) -> Result<(), SaveError> {
        let size = content.len() as u64;
        let entry = WriteEntry::new(name.as_bytes(), Kind::File, 0o644, size);
        self.tar
            .file(&entry, &mut content)
            .map_err(SaveError::Write)
    }

    fn blob(&mut self, content: &[u8]) -> Result<Digest, SaveError> {
        let digest = digest_of(content);
        if self.written.insert(digest) {
            self.file(&blob_name(&digest), content)?;
        }
        Ok(digest)
    }

    /// A blob as it lies on the disk.
    fn raw(&mut self, pointer: &Pointer, path: &std::path::Path) -> Result<(), SaveError> {
        if !self.written.insert(pointer.digest) {
            return Ok(());
        }
        let mut file = File::open(path).map_err(|e| StoreError::io("open", path, e))?;
        let name = blob_name(&pointer.digest);
        let entry = WriteEntry::new(name.as_bytes(), Kind::File, 0o644, pointer.size);
        self.tar.file(&entry, &mut file).map_err(SaveError::Write)
    }

    fn layer(&mut self, store: &ImageStore, diff_id: &Digest) -> Result<u64, SaveError> {
        let meta = store
            .layer(diff_id)
            .ok_or(StoreError::LayerMissing(*diff_id))?;
        let size = meta.tar_bytes;
        if !self.written.insert(*diff_id) {
            return Ok(size);
        }
        let name = blob_name(diff_id);
        self.tar
            .header(&WriteEntry::new(name.as_bytes(), Kind::File, 0o644, size))
            .map_err(SaveError::Write)?;
        let mut out = HashWriter::new(self.tar.get_mut());
        store.copy_layer_tar(diff_id, &mut out)?;
        let (_, _, found) = out.finish();
        if found != *diff_id {
            return Err(SaveError::Damaged {
                expected: *diff_id,
                found,
            });
        }
        self.tar.pad(size).map_err(SaveError::Write)?;
        Ok(size)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, SaveError> {
    serde_json::to_vec(value).map_err(|e| SaveError::Write(e.into()))
}
