//! Block images: an image as guests with a kernel of their own see it, and when it goes.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::Arc;

use hull_model::{Digest, Error, Result};
use hull_snapshot::{BlockImage, Disk, key_of_layers};
use hull_state::ContainerRecord;

use super::{Image, blocking};
use crate::Engine;
use crate::containers::{rootfs, storage};

/// What a guest may write where `--storage-opt size=` says nothing. It takes room on the host only
/// once it is written.
const DISK_BYTES: u64 = 10 << 30;

impl Engine {
    /// The block image of an image; built at its first use, in about a second for half a gigabyte.
    /// Mount points that it may lack are in it. It stays for as long as the image does.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the image `host`; `Unavailable` without mkfs.erofs or room.
    pub async fn block_image(self: &Arc<Self>, id: Digest) -> Result<BlockImage> {
        let Some((image, hold)) = self.images.store.hold_id(&id) else {
            return Err(Error::not_found(format!("No such image: {id}")));
        };
        let image = Image::from(image);
        if image.host {
            return Err(Error::invalid(
                "the image host is the host's own files, which a kernel of its own cannot be given",
            ));
        }
        let key = key_of_layers(image.stored().record.layers());
        let mut lowers = self.images.lowers(&image)?;
        lowers.push(rootfs::skeleton(&self.settings));
        let engine = Arc::clone(self);
        blocking(move || {
            let _hold = hold;
            Ok(engine.snapshots.block_image(&key, &lowers)?)
        })
        .await
    }

    /// The writable disk of a container that has a kernel of its own, made at its first start.
    ///
    /// # Errors
    /// `InvalidArgument` for a size that no disk has; `Unavailable` without mke2fs or room.
    pub fn guest_disk(&self, record: &ContainerRecord) -> Result<Disk> {
        let size = storage::wanted(&record.spec)?.unwrap_or(DISK_BYTES);
        Ok(self.snapshots.prepare_disk(&record.id, size)?)
    }

    /// Deletes what only images that are gone had use for: documents that were kept, and block
    /// images. Returns the bytes freed.
    pub(super) async fn sweep_unneeded(self: &Arc<Self>) -> Result<u64> {
        let kept = self.sweep_kept().await?;
        let engine = Arc::clone(self);
        let blocks = blocking(move || {
            // Asked for after the folder was read: whoever builds a block image holds its image.
            let needed = OnceCell::new();
            let (_, bytes) = engine.snapshots.retain_block_images(&|key| {
                let needed = needed.get_or_init(|| engine.needed_block_images());
                needed.contains(key)
            })?;
            Ok(bytes)
        })
        .await?;
        Ok(kept + blocks)
    }

    fn needed_block_images(&self) -> HashSet<String> {
        let images = self.images.store.list();
        images
            .iter()
            .map(|image| key_of_layers(image.record.layers()))
            .collect()
    }
}
