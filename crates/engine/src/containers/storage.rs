//! `--storage-opt size=`: how much a container may write in its root file system.

use std::collections::BTreeMap;

use hull_model::amount::Bytes;
use hull_model::spec::{ContainerSpec, Isolation};
use hull_model::{Error, Result};
use hull_snapshot::{SMALLEST_DISK, Snapshotter as _};
use hull_state::ContainerRecord;

use crate::Engine;
use crate::images::Image;

/// The one option there is.
const SIZE: &str = "size";
/// Below this not even the mount points of a container have room.
const SMALLEST: u64 = 1 << 20;

/// The limit that was asked for; none for `size=0`.
///
/// # Errors
/// `InvalidArgument` for another option, or what is no size.
pub(crate) fn wanted(spec: &ContainerSpec) -> Result<Option<u64>> {
    let mut size = None;
    for (name, value) in &spec.storage_opt {
        if !name.eq_ignore_ascii_case(SIZE) {
            return Err(Error::invalid(format!(
                "unknown storage option {name}: there is size alone"
            )));
        }
        let Bytes(bytes) = value.parse()?;
        if bytes > 0 && bytes < SMALLEST {
            return Err(Error::invalid(format!(
                "storage option size={value} is too small: the least is 1M"
            )));
        }
        size = Some(bytes).filter(|bytes| *bytes > 0);
    }
    Ok(size)
}

impl Engine {
    /// Refuses a limit that cannot be kept here.
    pub(crate) fn check_storage(&self, spec: &ContainerSpec, image: &Image) -> Result<()> {
        match wanted(spec)? {
            // A guest's disk has a size in any case.
            Some(0..SMALLEST_DISK) if spec.isolation == Isolation::Vm => {
                Err(Error::invalid(format!(
                    "storage option size is too small for a virtual machine: the least is {}M",
                    SMALLEST_DISK >> 20
                )))
            }
            Some(_) if spec.isolation == Isolation::Vm => Ok(()),
            // The upper layer of the host's own root lies in memory, which can always be limited.
            Some(_) if !image.host => Ok(self.snapshots.can_limit()?),
            _ => Ok(()),
        }
    }

    /// Limits the writable layer before it is made.
    pub(crate) fn limit_storage(&self, record: &ContainerRecord) -> Result<()> {
        match wanted(&record.spec)? {
            Some(bytes) => Ok(self.snapshots.limit(&record.id, bytes)?),
            None => Ok(()),
        }
    }

    /// Where a container's root file system lies, in the words of Docker's driver overlay2; with a
    /// limit also how much it may take and takes. Nothing for the image `host`.
    pub fn storage_of(&self, record: &ContainerRecord) -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        let image = record.image_id.and_then(|id| self.images.by_id(id).ok());
        let Some(image) = image.filter(|image| !image.host) else {
            return data;
        };
        if record.spec.isolation == Isolation::Vm {
            // Before its first start it has no disk.
            if let Ok(Some(disk)) = self.snapshots.disk(&record.id) {
                data.insert("Disk".into(), disk.path.display().to_string());
                data.insert("SizeLimit".into(), disk.size.to_string());
                data.insert("SizeUsed".into(), disk.used.to_string());
            }
            return data;
        }
        let lowers = self.images.lowers(&image).unwrap_or_default();
        let lowers: Vec<String> = lowers.iter().map(|dir| dir.display().to_string()).collect();
        let own = self.settings.data_dir.join("snapshot").join(&record.id);
        let part = |name: &str| own.join(name).display().to_string();
        data.insert("LowerDir".into(), lowers.join(":"));
        data.insert("UpperDir".into(), part("upper"));
        data.insert("WorkDir".into(), part("work"));
        if !record.spec.storage_opt.is_empty()
            && let Some(quota) = self.snapshots.quota(&record.id)
        {
            data.insert("SizeLimit".into(), quota.limit.to_string());
            data.insert("SizeUsed".into(), quota.used.to_string());
        }
        data
    }

    /// Bytes written in a container's root file system.
    pub fn writable_size(&self, id: &str) -> u64 {
        self.snapshots.usage(id).map(|u| u.bytes).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(options: &[(&str, &str)]) -> ContainerSpec {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ContainerSpec {
            storage_opt: options.iter().map(own).collect(),
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn wanted_reads_size_alone() {
        assert_eq!(wanted(&spec(&[])).unwrap(), None);
        assert_eq!(wanted(&spec(&[("size", "10G")])).unwrap(), Some(10 << 30));
        assert_eq!(wanted(&spec(&[("size", "0")])).unwrap(), None);
        for bad in [("size", "x"), ("size", "1k"), ("color", "red")] {
            assert!(wanted(&spec(&[bad])).is_err(), "{bad:?}");
        }
    }
}
