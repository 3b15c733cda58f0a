//! How much space images take: all together, each alone, and what they share.

use std::collections::{HashMap, HashSet};

use hull_model::Digest;

use super::ImageStore;
use super::index::Index;

/// Space taken by images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Number of images.
    pub images: usize,
    /// Bytes of all layers, each counted once.
    pub layers_bytes: u64,
    /// Bytes that only images without a user need.
    pub reclaimable_bytes: u64,
    /// Of each image, the bytes in layers that another image has, too.
    pub shared_bytes: HashMap<Digest, u64>,
}

impl ImageStore {
    /// Space taken by layers, and how much of it would be free if images without a user went.
    pub fn disk_usage(&self, in_use: &dyn Fn(&Digest) -> bool) -> DiskUsage {
        // Asked before the index is locked: whoever answers may look into the index himself.
        let images: Vec<Digest> = self.read_index().images.keys().copied().collect();
        let used: HashSet<Digest> = images.into_iter().filter(|id| in_use(id)).collect();
        let index = self.read_index();
        let mut needed: HashSet<Digest> = HashSet::new();
        for image in index
            .images
            .values()
            .filter(|image| used.contains(&image.id))
        {
            needed.extend(image.layers());
        }
        let sum = |wanted: &dyn Fn(&Digest) -> bool| -> u64 {
            let wanted = index.layers.values().filter(|l| wanted(&l.diff_id));
            wanted.map(|l| l.tree_bytes).sum()
        };
        DiskUsage {
            images: index.images.len(),
            layers_bytes: sum(&|_| true),
            reclaimable_bytes: sum(&|id| !needed.contains(id)),
            shared_bytes: shared(&index),
        }
    }
}

fn shared(index: &Index) -> HashMap<Digest, u64> {
    let mut owners: HashMap<Digest, usize> = HashMap::new();
    for image in index.images.values() {
        let own: HashSet<&Digest> = image.layers().iter().collect();
        for layer in own {
            *owners.entry(*layer).or_default() += 1;
        }
    }
    let bytes = |layer: &Digest| index.layers.get(layer).map_or(0, |meta| meta.tree_bytes);
    let of_others = |layer: &&Digest| owners.get(layer).is_some_and(|count| *count > 1);
    index
        .images
        .values()
        .map(|image| {
            let shared = image.layers().iter().filter(of_others);
            (image.id, shared.map(bytes).sum())
        })
        .collect()
}
