//! What is asked of the host once and used for every launch.

use hull_seccomp::KernelVersion;
use hull_sys::cgroup::Hierarchies;
use hull_sys::features::Features;

use crate::LaunchError;

/// The host's abilities.
#[derive(Debug, Clone)]
pub struct Host {
    /// What the kernel can do.
    pub features: Features,
    /// Where control groups are.
    pub hierarchies: Hierarchies,
    /// Its version, for the conditions of seccomp profiles.
    pub kernel: KernelVersion,
}

impl Host {
    /// Asks the kernel. About 50 µs, half of it reading the mount table.
    ///
    /// # Errors
    /// If no control groups are mounted.
    pub fn detect() -> Result<Self, LaunchError> {
        let name = rustix::system::uname();
        let kernel = name
            .release()
            .to_str()
            .ok()
            .and_then(KernelVersion::parse)
            // The oldest supported: it answers a profile's conditions most strictly.
            .unwrap_or(KernelVersion {
                major: 5,
                minor: 10,
            });
        Ok(Self {
            features: Features::probe(),
            hierarchies: Hierarchies::detect()?,
            kernel,
        })
    }
}
