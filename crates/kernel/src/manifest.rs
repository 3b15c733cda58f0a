//! What is known of a kernel, beside it.

use serde::{Deserialize, Serialize};

/// A kernel's `manifest.json`. What a file on foreign disks leaves out is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// As `uname -r` says in the guest.
    pub version: String,
    /// The processor's family, as `uname -m` says.
    pub architecture: String,
    /// What it was built of.
    pub source: String,
    /// Digest of that.
    pub source_sha256: String,
    /// Digest of the configuration.
    pub config_sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// Its digest.
    pub sha256: String,
}

/// Fields longer than this are cut: they are shown in tables.
const MAX_FIELD: usize = 128;

impl Manifest {
    /// Keeps what a terminal can show.
    pub(crate) fn tame(mut self) -> Self {
        for field in [
            &mut self.version,
            &mut self.architecture,
            &mut self.source,
            &mut self.source_sha256,
            &mut self.config_sha256,
            &mut self.sha256,
        ] {
            *field = field
                .chars()
                .filter(|c| c.is_ascii_graphic() || *c == ' ')
                .take(MAX_FIELD)
                .collect();
        }
        self
    }
}
