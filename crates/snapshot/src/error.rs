//! Failures of snapshots.

use std::io;
use std::path::{Path, PathBuf};

use hull_model::{Error, ErrorKind};

/// Why an operation on a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The id could lead elsewhere.
    #[error("invalid snapshot id {0:?}: only letters, digits, `_`, `.` and `-` are allowed")]
    Id(String),
    /// There is none of that id.
    #[error("no such snapshot: {0}")]
    NotFound(String),
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Snapshots cannot be limited here.
    #[error(
        "the size of a writable layer is limited by project quotas, and the file system of {} has none: {why}; \
         use XFS mounted with pquota, or ext4 made with -O quota,project and mounted with prjquota",
        path.display()
    )]
    Quota {
        /// Where they lie.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// A program of others is not installed.
    #[error(
        "{name} is not installed, and guests with a kernel of their own need it: install the package {package}"
    )]
    NoTool {
        /// The program.
        name: &'static str,
        /// The package that brings it.
        package: &'static str,
    },
    /// A program of others failed.
    #[error("{name} cannot make {}: {said} ({status})", path.display())]
    Tool {
        /// The program.
        name: &'static str,
        /// What it was to make.
        path: PathBuf,
        /// Its last words.
        said: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// No file system is made of that size.
    #[error("a guest's disk of {0} bytes is not possible: 32 MiB to 16 TiB are")]
    DiskSize(u64),
    /// The layers cannot be merged.
    #[error("cannot mount a view of {layers} layers{}", note.as_ref().map(|n| format!(" ({n})")).unwrap_or_default())]
    Mount {
        /// How many.
        layers: usize,
        /// What the kernel noted.
        note: Option<String>,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl SnapshotError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

impl From<SnapshotError> for Error {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Id(_) | SnapshotError::Quota { .. } | SnapshotError::DiskSize(_) => {
                ErrorKind::InvalidArgument
            }
            SnapshotError::NotFound(_) => ErrorKind::NotFound,
            SnapshotError::NoTool { .. } => ErrorKind::Unavailable,
            SnapshotError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        };
        let message = error.to_string();
        match error {
            SnapshotError::Io { source, .. } | SnapshotError::Mount { source, .. } => {
                Error::with_source(kind, message, source)
            }
            _ => Error::new(kind, message),
        }
    }
}
