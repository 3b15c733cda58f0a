//! Compressed forms of a layer that were sent or fetched: known by digest, not kept. A push asks
//! the registry for them before it compresses anew.

use hull_model::Digest;
use serde::{Deserialize, Serialize};

use super::{ImageStore, StoreError, files};

/// Most forms remembered of one layer.
const MAX_FORMS: usize = 8;
const FILE: &str = "packed.json";

/// A compressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Of the compressed bytes.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

impl ImageStore {
    /// The forms of a layer, the newest first. What cannot be read is as good as unknown.
    pub fn packed(&self, diff_id: &Digest) -> Vec<Packed> {
        files::read_json(&self.layer_dir(diff_id).join(FILE)).unwrap_or_default()
    }

    /// Remembers a form.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add_packed(&self, diff_id: &Digest, packed: Packed) -> Result<(), StoreError> {
        let _writing = self.lock_writing();
        let mut forms = self.packed(diff_id);
        forms.retain(|form| form.digest != packed.digest);
        forms.insert(0, packed);
        forms.truncate(MAX_FORMS);
        self.dirs
            .write_json(&self.layer_dir(diff_id).join(FILE), &forms)
    }
}
