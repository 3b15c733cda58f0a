//! Use-cases of volumes.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use hull_model::{Error, ErrorKind, Result};
use hull_snapshot::{SnapshotError, Snapshotter};
use hull_state::{ContainerRecord, MountPoint};
use hull_volume::{ANONYMOUS_LABEL, Volume, VolumeError};

use crate::Engine;
use crate::containers::remove::PruneReport;
use crate::filters::Filters;
use crate::images::{Image, blocking};

impl Engine {
    /// Makes what volumes of a container are missing, where blocking does no harm.
    pub(crate) async fn make_volumes(
        self: &Arc<Self>,
        record: &ContainerRecord,
        image: &Image,
    ) -> Result<()> {
        if !record.mounts.iter().any(|m| m.kind == "volume") {
            return Ok(());
        }
        let (engine, record, image) = (Arc::clone(self), record.clone(), image.clone());
        blocking(move || engine.ensure_volumes(&record, &image)).await
    }

    /// Makes the volumes of a container that are missing, with the image's content in empty ones.
    fn ensure_volumes(&self, record: &ContainerRecord, image: &Image) -> Result<()> {
        let mut view: Option<OwnedFd> = None;
        for point in record.mounts.iter().filter(|m| m.kind == "volume") {
            let mut labels = BTreeMap::new();
            if point.anonymous {
                labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            }
            let volume = self
                .volumes
                .create(&point.name, labels, BTreeMap::new())
                .map_err(crate::internal("cannot make a volume; is the disk full?"))?;
            if image.host || no_copy(record, point) || has_content(&volume.mountpoint) {
                continue;
            }
            let root = match &view {
                Some(root) => root,
                None => view.insert(self.image_view(image)?),
            };
            self.volumes
                .copy_up(&volume.name, root.as_fd(), Path::new(&point.target))
                .map_err(crate::internal(
                    "cannot copy the image's content into a volume",
                ))?;
        }
        Ok(())
    }

    /// A read-only view of an image's merged tree; mounted nowhere.
    fn image_view(&self, image: &Image) -> Result<OwnedFd> {
        self.snapshots
            .view(None, &self.images.lowers(image)?)
            .map_err(crate::internal("cannot look into the image"))
    }

    /// A read-only view of a container's root file system.
    pub(crate) fn root_view(&self, record: &ContainerRecord) -> Result<OwnedFd> {
        let id = record
            .image_id
            .ok_or_else(|| Error::not_found("the container has no image"))?;
        let image = self.images.by_id(id)?;
        if image.host {
            return Err(Error::invalid(
                "the root of this container is the host's own: it is not exported",
            ));
        }
        let lowers = self.images.lowers(&image)?;
        // Before its first start a container has written nothing.
        let view = match self.snapshots.view(Some(&record.id), &lowers) {
            Err(SnapshotError::NotFound(_)) => self.snapshots.view(None, &lowers),
            view => view,
        };
        view.map_err(crate::internal("cannot look into the container"))
    }

    /// Removes the unnamed volumes of a container.
    pub(crate) fn remove_anonymous_volumes(&self, record: &ContainerRecord) {
        for point in record
            .mounts
            .iter()
            .filter(|m| m.kind == "volume" && m.anonymous)
            // Others may have it by --volumes-from.
            .filter(|m| self.volume_users(&m.name).is_empty())
        {
            if let Err(error) = self.volumes.remove(&point.name) {
                tracing::warn!(%error, volume = point.name, "cannot remove an unnamed volume");
            }
        }
    }

    /// Where a volume's content is, or will be once it is made.
    pub(crate) fn volume_path(&self, name: &str) -> String {
        let known = self.volumes.inspect(name).map(|v| v.mountpoint);
        let path = known.unwrap_or_else(|_| {
            self.settings
                .data_dir
                .join("volume")
                .join(name)
                .join("_data")
        });
        path.display().to_string()
    }

    fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |r: &ContainerRecord| {
            r.mounts
                .iter()
                .any(|m| m.kind == "volume" && m.name == name)
        };
        self.containers
            .all()
            .iter()
            .filter(|c| c.with(uses))
            .map(|c| c.id.clone())
            .collect()
    }

    /// How many containers use a volume.
    pub fn volume_use(&self, name: &str) -> usize {
        self.volume_users(name).len()
    }

    /// Volumes that match.
    ///
    /// # Errors
    /// For an unknown filter.
    pub fn volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        filters.allow_only(&["dangling", "driver", "label", "label!", "name"])?;
        let list = self
            .volumes
            .list()
            .map_err(crate::internal("cannot list volumes"))?;
        let wanted = |v: &Volume| {
            filters.match_labels(&v.labels)
                && filters.matches("name", |n| v.name.contains(n))
                && filters.matches("driver", |d| d == "local")
                && filters.matches("dangling", |d| {
                    (d == "true" || d == "1") == (self.volume_use(&v.name) == 0)
                })
        };
        Ok(list.into_iter().filter(wanted).collect())
    }

    /// One volume.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        self.volumes.inspect(name).map_err(|error| match error {
            VolumeError::NotFound(_) => Error::not_found(format!("get {name}: no such volume")),
            error => Error::internal("cannot read a volume", error),
        })
    }

    /// Makes a volume; one that exists is given back.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed name.
    pub fn create_volume(
        &self,
        name: Option<String>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<Volume> {
        let volume = match name.filter(|n| !n.is_empty()) {
            Some(name) => {
                hull_model::name::validate("volume", &name)?;
                self.volumes.create(&name, labels, options)
            }
            None => self.volumes.create_anonymous(labels),
        };
        let volume = volume.map_err(crate::internal("cannot make the volume"))?;
        let facts = [("driver".into(), "local".into())].into();
        self.events.emit("volume", "create", &volume.name, facts);
        Ok(volume)
    }

    /// Removes a volume.
    ///
    /// # Errors
    /// `Conflict` while a container uses it; `NotFound`, unless forced.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        match self.volume(name) {
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.volumes
            .remove(name)
            .map_err(crate::internal("cannot remove the volume"))?;
        self.events.emit(
            "volume",
            "destroy",
            name,
            [("driver".into(), "local".into())].into(),
        );
        Ok(())
    }

    /// Removes volumes that no container uses: unnamed ones, or all with `all=true`.
    ///
    /// # Errors
    /// For an unknown filter.
    pub fn prune_volumes(&self, filters: &Filters) -> Result<PruneReport> {
        filters.allow_only(&["all", "label", "label!"])?;
        let all = filters
            .values("all")
            .iter()
            .any(|v| v == "true" || v == "1");
        let mut report = PruneReport::default();
        for volume in self
            .volumes
            .list()
            .map_err(crate::internal("cannot list volumes"))?
        {
            if !(all || volume.is_anonymous())
                || !filters.match_labels(&volume.labels)
                || self.volume_use(&volume.name) > 0
            {
                continue;
            }
            let size = self.volumes.usage(&volume.name).unwrap_or(0);
            if self.remove_volume(&volume.name, false).is_ok() {
                report.deleted.push(volume.name);
                report.reclaimed += size;
            }
        }
        self.tell_pruned("volume", report.reclaimed);
        Ok(report)
    }

    /// Bytes in a volume.
    pub fn volume_size(&self, name: &str) -> u64 {
        self.volumes.usage(name).unwrap_or(0)
    }
}

/// The wish that a volume be left empty.
fn no_copy(record: &ContainerRecord, point: &MountPoint) -> bool {
    use hull_model::spec::MountSource;
    record.spec.mounts.iter().any(|m| {
        m.target.trim_end_matches('/') == point.target
            && matches!(m.source, MountSource::Volume { no_copy: true, .. })
    })
}

fn has_content(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
