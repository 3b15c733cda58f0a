//! Failures of volumes.

use std::io;
use std::path::{Path, PathBuf};

use hull_model::{Error, ErrorKind};

/// Why an operation on a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The name is malformed.
    #[error("{0}")]
    Name(Error),
    /// There is none of that name.
    #[error("get {0}: no such volume")]
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
    /// A record is damaged.
    #[error("stored volume record {} is damaged", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Where in it.
        #[source]
        source: serde_json::Error,
    },
}

impl VolumeError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        let message = error.to_string();
        match error {
            VolumeError::Name(error) => error,
            VolumeError::NotFound(_) => Error::not_found(message),
            VolumeError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Error::with_source(ErrorKind::Unavailable, message, source)
            }
            VolumeError::Io { source, .. } => Error::internal(message, source),
            VolumeError::Json { source, .. } => Error::internal(message, source),
        }
    }
}
