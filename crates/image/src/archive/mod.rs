//! Image archives: docker-archive (`manifest.json`, and `repositories` of the oldest Docker
//! versions) and OCI image layout, read and written.

mod docker;
mod kept;
mod legacy;
mod load;
mod oci;
mod save;
mod spool;

use std::io;

use hull_model::{Digest, ErrorKind, Reference};

pub use self::load::{LoadOptions, LoadProgress, LoadReport, Loaded};
pub use self::save::{SaveError, SaveImage, SaveKept, SaveOptions};
use crate::content::KeepError;
use crate::limits::LimitError;
use crate::store::{IngestError, StoreError, io_kind};
use crate::tar::TarError;
use crate::unpack::{PathProblem, UnpackError};

/// Why an archive could not be loaded or imported. Nothing of it is kept then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The archive's bytes cannot be had.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// The archive is no sound tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Temporary files cannot be written.
    #[error("cannot store the archive's members")]
    Spool(#[source] io::Error),
    /// A member's name is not acceptable.
    #[error("refused archive member {name:?}: {problem}")]
    Member {
        /// The name.
        name: String,
        /// What is wrong.
        problem: PathProblem,
    },
    /// A bound was passed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// There is nothing in it.
    #[error("the archive is empty")]
    Empty,
    /// It ends without an end marker, before anything that says what it holds.
    #[error("archive is truncated: it ends before its manifest")]
    Truncated,
    /// It is a tar, but not of an image.
    #[error(
        "not an image archive: it has neither manifest.json nor index.json; a root file system is brought in by import"
    )]
    NoManifest,
    /// A document in it makes no sense.
    #[error("corrupt archive: {0} is not valid")]
    Document(String, #[source] serde_json::Error),
    /// Parts of it contradict each other.
    #[error("corrupt archive: {0}")]
    Corrupt(String),
    /// A member that another one names is missing.
    #[error("corrupt or truncated archive: {0} is missing")]
    Missing(String),
    /// A member is not what its name promises.
    #[error("corrupt archive: {name} has digest {found}, expected {expected}")]
    Digest {
        /// The member.
        name: String,
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// A kind of content that Hull does not know.
    #[error("unsupported {what} {found:?}")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// Its type.
        found: String,
    },
    /// No image in it fits this host.
    #[error("the archive has no image for {wanted}, only for {found}: name one with --platform")]
    Platform {
        /// What was asked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A name in it is no reference.
    #[error("corrupt archive: {0}")]
    Name(hull_model::Error),
    /// A change is malformed.
    #[error("invalid change {change:?}: {why}")]
    Change {
        /// What was given.
        change: String,
        /// What is wrong.
        why: String,
    },
    /// A layer could not be unpacked.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// What is kept as it came could not be.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<LoadError> for hull_model::Error {
    fn from(error: LoadError) -> Self {
        match error {
            // The store knows the kinds of its own failures.
            LoadError::Store(error) | LoadError::Ingest(IngestError::Store(error)) => error.into(),
            LoadError::Keep(error) => error.into(),
            error => crate::store::from_chain(kind_of(&error), error),
        }
    }
}

/// The archive's fault unless the host refused something.
fn kind_of(error: &LoadError) -> ErrorKind {
    match error {
        LoadError::Spool(source) => io_kind(source),
        LoadError::Platform { .. } => ErrorKind::NotFound,
        LoadError::Ingest(IngestError::Layer { source, .. }) => match source {
            UnpackError::Tar(TarError::Tap(source)) | UnpackError::Times(source) => io_kind(source),
            // Names that the file system does not take.
            UnpackError::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput
                ) =>
            {
                ErrorKind::InvalidArgument
            }
            UnpackError::Io { source, .. } => io_kind(source),
            _ => ErrorKind::InvalidArgument,
        },
        _ => ErrorKind::InvalidArgument,
    }
}

/// An image found in an archive, before its layers are unpacked.
#[derive(Debug)]
struct Plan {
    config: PlannedConfig,
    /// Members that hold the layers, from the bottom up.
    layers: Vec<String>,
    names: Vec<Reference>,
    manifest: Option<Vec<u8>>,
}

#[derive(Debug)]
enum PlannedConfig {
    /// The document; it lists the diff-ids.
    Known(Vec<u8>),
    /// The oldest format has no diff-ids: the document is completed when the layers are known.
    Legacy(Box<hull_model::ImageConfig>),
}
