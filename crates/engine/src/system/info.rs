//! What `info`, `version` and `system df` tell.

use hull_model::Result;
use hull_state::{ContainerRecord, ContainerState};
use hull_volume::Volume;

use super::host;
use crate::Engine;
use crate::filters::Filters;
use crate::images::StoredImage;

/// The engine and its host.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// An id that stays the same for a data folder.
    pub id: String,
    /// Containers.
    pub containers: usize,
    /// Those that run.
    pub running: usize,
    /// Those that are frozen.
    pub paused: usize,
    /// The rest.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// Data folder.
    pub data_dir: String,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub operating_system: String,
    /// Name of the host.
    pub name: String,
    /// CPUs.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// `1` or `2`.
    pub cgroup_version: &'static str,
    /// When the daemon started, ns since 1970.
    pub started_ns: u64,
    /// Descriptors that the daemon has open.
    pub descriptors: usize,
    /// What runs virtual machines, and how.
    pub hypervisor: String,
    /// Why it is not KVM; empty if it is.
    pub hypervisor_reason: String,
    /// What this host cannot do.
    pub warnings: Vec<String>,
}

/// Which kinds of things to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Images and their layers.
    pub images: bool,
    /// What containers have written.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
}

/// Space in use.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Bytes of all image layers, and of what is kept as it came.
    pub layers_bytes: u64,
    /// Images with the number of containers made from each, and the bytes that it shares.
    pub images: Vec<(StoredImage, usize, u64)>,
    /// Containers with the bytes each has written and has in all, its logs included in the first.
    pub containers: Vec<(ContainerRecord, u64, u64)>,
    /// Volumes with their bytes and users.
    pub volumes: Vec<(Volume, u64, usize)>,
}

impl Engine {
    /// Facts of the engine and its host.
    pub fn info(&self) -> Info {
        let vm = hull_hypervisor::probe();
        let mut info = Info {
            id: self.network_id("engine"),
            images: self.images.store.count(),
            data_dir: self.settings.data_dir.display().to_string(),
            kernel: host::kernel(),
            operating_system: host::operating_system(),
            name: host::name(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory: host::memory(),
            cgroup_version: host::cgroup_version(),
            started_ns: self.started_ns,
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            hypervisor: vm.program_and_accelerator(),
            hypervisor_reason: vm
                .unusable
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            warnings: self.network_warnings(),
            ..Info::default()
        };
        for container in self.containers.all() {
            info.containers += 1;
            match container.with(|r| r.state) {
                ContainerState::Running { .. } | ContainerState::Restarting => info.running += 1,
                ContainerState::Paused { .. } => info.paused += 1,
                _ => info.stopped += 1,
            }
        }
        info
    }

    /// Bytes of a container's log files.
    pub fn log_size(&self, id: &str) -> u64 {
        let entries = std::fs::read_dir(self.settings.container_dir(id))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|e| e.metadata().ok())
            .map(|m| m.len())
            .sum()
    }

    /// What takes how much space. Walks the written trees: call it off the hot path.
    ///
    /// # Errors
    /// If volumes cannot be listed.
    pub fn disk_usage(&self, wanted: Wanted) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if wanted.images {
            let used = self.image_use();
            let space = self.image_disk_usage();
            usage.layers_bytes = space.layers_bytes + self.images.content.disk_usage();
            usage.images = self
                .images()
                .into_iter()
                .map(|image| {
                    let users = used.get(&image.id()).copied().unwrap_or(0);
                    let shared = space.shared_bytes.get(&image.id()).copied().unwrap_or(0);
                    (image, users, shared)
                })
                .collect();
        }
        if wanted.containers {
            let containers = self.containers.all();
            usage.containers = containers
                .iter()
                .map(|container| {
                    let record = container.record();
                    let written = self.writable_size(&record.id) + self.log_size(&record.id);
                    let image = record.image_id.and_then(|id| self.images.store.get(&id));
                    let below = image.map_or(0, |image| image.record.size);
                    (record, written, written + below)
                })
                .collect();
        }
        if wanted.volumes {
            usage.volumes = self
                .volumes(&Filters::default())?
                .into_iter()
                .map(|v| {
                    let (size, users) = (self.volume_size(&v.name), self.volume_use(&v.name));
                    (v, size, users)
                })
                .collect();
        }
        Ok(usage)
    }
}
