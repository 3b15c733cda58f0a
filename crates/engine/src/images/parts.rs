//! What an image is made of, and who needs it.

use std::collections::BTreeMap;

use hull_image::content::Pointer;
use hull_model::Digest;
use hull_registry::Descriptor;

use super::StoredImage;
use crate::Engine;

/// A layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPart {
    /// Digest of its tar.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its compressed form, as far as one is known.
    pub packed: Option<u64>,
}

impl Engine {
    /// The layers of an image from the bottom up.
    pub fn image_layers(&self, image: &StoredImage) -> Vec<LayerPart> {
        let store = &self.images.store;
        image
            .record
            .layers()
            .iter()
            .map(|layer| LayerPart {
                diff_id: *layer,
                bytes: store.layer(layer).map_or(0, |meta| meta.tree_bytes),
                packed: store.packed(layer).first().map(|form| form.size),
            })
            .collect()
    }

    /// Where the layers of an image lie, in the words of Docker's driver overlay2.
    pub fn image_places(&self, image: &StoredImage) -> BTreeMap<String, String> {
        let place = |layer: &Digest| self.images.store.layer_tree(layer).display().to_string();
        let mut layers = image.record.layers().iter().rev().map(place);
        let mut places = BTreeMap::new();
        if let Some(top) = layers.next() {
            places.insert("UpperDir".to_owned(), top);
            let below: Vec<String> = layers.collect();
            if !below.is_empty() {
                places.insert("LowerDir".to_owned(), below.join(":"));
            }
        }
        places
    }

    /// Every image that a container needs, with the container's id.
    pub fn image_users(&self) -> Vec<(Digest, String)> {
        let containers = self.containers.all();
        containers
            .iter()
            .filter_map(|one| Some((one.with(|r| r.image_id)?, one.id.clone())))
            .collect()
    }

    /// Bytes of what is kept behind an entry of an index.
    pub fn kept_size(&self, entry: &Descriptor) -> u64 {
        let root = Pointer {
            media_type: entry.media_type.clone(),
            digest: entry.digest,
            size: entry.size,
        };
        let all = self.images.content.reachable(&root);
        all.iter().map(|pointer| pointer.size).sum()
    }
}
