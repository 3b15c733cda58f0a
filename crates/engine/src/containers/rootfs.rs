//! Where a container's root file system comes from, and what was written in it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use hull_model::{Error, Result};
use hull_proto::plan::RootFs;
use hull_snapshot::{Change, ChangeKind, SnapshotError, Snapshotter};
use hull_state::ContainerRecord;

use crate::Engine;
use crate::images::Image;
use crate::settings::Settings;

/// A path that a container has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Absolute path inside.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}

impl From<Change> for Changed {
    fn from(change: Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        Self {
            path: change.path.to_string_lossy().into_owned(),
            kind,
        }
    }
}

/// Mount points that every container needs.
const SKELETON: [&str; 4] = ["dev", "etc", "proc", "sys"];
const SKELETON_FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// A layer below all others with the mount points that an image may lack, so that they need not
/// be made in each container, and are no change of it.
pub(crate) fn skeleton(settings: &Settings) -> PathBuf {
    settings.data_dir.join("skeleton")
}

/// Makes that layer where it is missing.
pub(crate) fn make_skeleton(settings: &Settings) -> Result<()> {
    let base = skeleton(settings);
    let make = || -> std::io::Result<()> {
        for dir in SKELETON {
            fs::create_dir_all(base.join(dir))?;
            fs::set_permissions(base.join(dir), fs::Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755))?;
        for file in SKELETON_FILES {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(base.join(file))?;
        }
        Ok(())
    };
    make().map_err(|e| Error::internal(format!("cannot make {}", base.display()), e))
}

impl Engine {
    /// The root file system for a start.
    pub(crate) fn rootfs(&self, record: &ContainerRecord, image: &Image) -> Result<RootFs> {
        if image.host {
            let hidden = vec![
                self.settings.data_dir.clone(),
                self.settings.run_dir.clone(),
            ];
            let size = super::storage::wanted(&record.spec)?;
            return Ok(RootFs::Host { hidden, size });
        }
        self.limit_storage(record)?;
        let layers = self
            .snapshots
            .prepare(&record.id, &self.images.lowers(image)?)
            .map_err(crate::internal(
                "cannot make the container's writable layer; is the disk full?",
            ))?;
        let mut lower = layers.lowers;
        lower.push(skeleton(&self.settings));
        Ok(RootFs::Overlay {
            lower,
            upper: layers.upper,
            work: layers.work,
            volatile: record.spec.auto_remove,
        })
    }

    /// What a container has changed in its image, sorted by path.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for the image `host`, whose changes live in memory.
    pub fn changes(&self, key: &str) -> Result<Vec<Changed>> {
        let record = self.container(key)?;
        super::machine::refuse(&record, "diff")?;
        let image = match record.image_id {
            Some(id) => self.images.by_id(id)?,
            None => return Ok(Vec::new()),
        };
        if image.host {
            return Err(Error::invalid(
                "the changes of this container live in memory and cannot be listed",
            ));
        }
        match self
            .snapshots
            .changes(&record.id, &self.images.lowers(&image)?)
        {
            // Before its first start a container has written nothing.
            Err(SnapshotError::NotFound(_)) => Ok(Vec::new()),
            Ok(changes) => Ok(changes.into_iter().map(Changed::from).collect()),
            Err(error) => Err(Error::internal(
                "cannot compare the container with its image",
                error,
            )),
        }
    }
}
