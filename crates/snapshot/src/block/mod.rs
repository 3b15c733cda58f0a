//! Root file systems as block devices, for guests with a kernel of their own.
//!
//! ```text
//! BASE/.images/KEY.erofs     all layers of an image as one, read only, shared by all guests
//! BASE/.templates/SIZE.ext4  an empty file system of that size
//! BASE/<id>/disk.ext4        what a guest writes: a copy of the template that takes no room yet
//! ```
//!
//! All of it appears by rename. A guest's disk goes with [`Snapshotter::remove`], like any writable
//! layer; what it writes counts by the blocks that the file takes.
//!
//! [`Snapshotter::remove`]: crate::Snapshotter::remove

use std::fs;
use std::path::Path;

mod disk;
mod image;
mod sparse;
mod tool;
mod turns;

pub use disk::{Disk, SMALLEST_DISK};
pub use image::{BlockImage, key_of_layers};
pub(crate) use turns::Turns;

/// Folders in the base; ids cannot begin with a dot.
const IMAGES: &str = ".images";
const TEMPLATES: &str = ".templates";
/// Begins the names of what is being made; swept when the base is opened.
const NEW: &str = "new-";

/// Deletes what was being made when an earlier process ended.
pub(crate) fn sweep(base: &Path) {
    for folder in [IMAGES, TEMPLATES] {
        let entries = fs::read_dir(base.join(folder)).into_iter().flatten();
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
