//! Questions to the store: lookup, lists, history, sizes, directories of layers.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use hull_model::{Digest, Reference};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::index::Meaning;
use super::record::{Image, ImageRecord, LayerMeta};
use super::{ImageStore, StoreError, files};
use crate::split::{SplitReader, TREE_DIR};

/// One line of an image's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image id, for the newest line and where an image that it was made of ended.
    pub id: Option<Digest>,
    /// RFC 3339, if recorded.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Size of the layer it made.
    pub size: u64,
    /// Free text.
    pub comment: String,
    /// Tags of the image, for the newest line.
    pub tags: Vec<String>,
}

impl ImageStore {
    /// Finds an image by reference, id or beginning of an id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Ambiguous`], or the reference is malformed.
    pub fn resolve(&self, name: &str) -> Result<Image, StoreError> {
        let index = self.read_index();
        let (record, _) = index.resolve(name)?;
        Ok(index.image(record))
    }

    /// Finds an image by reference only.
    pub fn find(&self, reference: &Reference) -> Option<Image> {
        let index = self.read_index();
        index.by_reference(reference).map(|r| index.image(r))
    }

    /// Finds an image by its full id.
    pub fn get(&self, id: &Digest) -> Option<Image> {
        let index = self.read_index();
        index.by_id(id).map(|record| index.image(record))
    }

    /// True if `name` was an id or a beginning of one, not a reference.
    pub(crate) fn meaning(&self, name: &str) -> Result<(Arc<ImageRecord>, Meaning), StoreError> {
        let index = self.read_index();
        index.resolve(name).map(|(r, m)| (r.clone(), m))
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<Image> {
        let index = self.read_index();
        index.images.values().map(|r| index.image(r)).collect()
    }

    /// How many images there are.
    pub fn count(&self) -> usize {
        self.read_index().images.len()
    }

    /// The configuration document as it came.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn config_bytes(&self, id: &Digest) -> Result<Vec<u8>, StoreError> {
        files::read(&self.blob_file(id))
    }

    /// What is known of a layer.
    pub fn layer(&self, diff_id: &Digest) -> Option<Arc<LayerMeta>> {
        self.read_index().layers.get(diff_id).cloned()
    }

    /// Trees of an image's layers for overlayfs: the uppermost first, by their short links
    /// (`BASE/l/<n>`).
    ///
    /// # Errors
    /// [`StoreError::LayerMissing`].
    pub fn lower_dirs(&self, image: &ImageRecord) -> Result<Vec<PathBuf>, StoreError> {
        let index = self.read_index();
        image
            .layers()
            .iter()
            .rev()
            .map(|layer| match index.layers.get(layer) {
                Some(meta) => Ok(self.link_path(meta.link)),
                None => Err(StoreError::LayerMissing(*layer)),
            })
            .collect()
    }

    /// The tree of one layer.
    pub fn layer_tree(&self, diff_id: &Digest) -> PathBuf {
        self.layer_dir(diff_id).join(TREE_DIR)
    }

    /// Copies the exact original tar of a layer to `out`; returns its size.
    ///
    /// # Errors
    /// If the layer is missing or damaged, or `out` fails.
    pub fn copy_layer_tar(
        &self,
        diff_id: &Digest,
        out: &mut dyn io::Write,
    ) -> Result<u64, StoreError> {
        let meta = self
            .layer(diff_id)
            .ok_or(StoreError::LayerMissing(*diff_id))?;
        let path = self.layer_dir(diff_id);
        let dir = self.open_layer_dir(diff_id)?;
        let fail = |e| StoreError::io("read layer", &path, e);
        let moved: HashMap<u64, u64> = meta.moved.iter().copied().collect();
        let mut reader = SplitReader::open(dir.as_fd(), moved).map_err(fail)?;
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0;
        loop {
            let n = io::Read::read(&mut reader, &mut buffer).map_err(fail)?;
            if n == 0 {
                break;
            }
            out.write_all(buffer.get(..n).unwrap_or_default())
                .map_err(|e| StoreError::io("write layer", &path, e))?;
            total += n as u64;
        }
        if total == meta.tar_bytes {
            Ok(total)
        } else {
            Err(fail(io::Error::other(
                "stored layer is damaged: wrong size",
            )))
        }
    }

    fn open_layer_dir(&self, diff_id: &Digest) -> Result<OwnedFd, StoreError> {
        let path = self.layer_dir(diff_id);
        openat(
            CWD,
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|e| StoreError::io("open layer", &path, e))
    }

    /// How the image came to be, newest first.
    pub fn history(&self, image: &Image) -> Vec<HistoryLine> {
        let index = self.read_index();
        let config = image.config();
        let mut layers = image.record.layers().iter();
        let mut size_of_next = || {
            let meta = layers.next().and_then(|id| index.layers.get(id));
            meta.map_or(0, |meta| meta.tree_bytes)
        };
        let mut lines: Vec<HistoryLine> = config
            .history
            .iter()
            .map(|h| HistoryLine {
                id: None,
                created: h.created.clone(),
                created_by: h.created_by.clone().unwrap_or_default(),
                size: if h.empty_layer { 0 } else { size_of_next() },
                comment: h.comment.clone().unwrap_or_default(),
                tags: Vec::new(),
            })
            .collect();
        // Histories may be shorter than the list of layers, or missing.
        let described = config.history.iter().filter(|h| !h.empty_layer).count();
        for layer in image.record.layers().iter().skip(described) {
            lines.push(HistoryLine {
                id: None,
                created: config.created.clone(),
                created_by: String::new(),
                size: index.layers.get(layer).map_or(0, |meta| meta.tree_bytes),
                comment: String::new(),
                tags: Vec::new(),
            });
        }
        // Images that this one was made of, and that are here, stand where they ended.
        for id in index.ancestors(&image.record) {
            let Some(record) = index.by_id(&id) else {
                continue;
            };
            let config = &record.config;
            let told = config.history.iter().filter(|h| !h.empty_layer).count();
            let untold = record.layers().len().saturating_sub(told);
            let end = (config.history.len() + untold).checked_sub(1);
            if let Some(line) = end.and_then(|end| lines.get_mut(end)) {
                line.id = Some(id);
                line.tags = index.image(record).familiar_tags();
            }
        }
        lines.reverse();
        if let Some(first) = lines.first_mut() {
            first.id = Some(image.id());
            first.tags = image.familiar_tags();
        }
        lines
    }
}
