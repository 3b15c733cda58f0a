//! Failures with guest kernels.

use std::io;
use std::path::{Path, PathBuf};

use hull_model::{Error, ErrorKind};

/// Why an operation on guest kernels failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The name could lead elsewhere.
    #[error(
        "invalid kernel name {0:?}: want letters, digits, `_`, `.` and `-`, the first a letter or digit"
    )]
    Name(String),
    /// There is none of that name.
    #[error("no such kernel: {0}")]
    NotFound(String),
    /// There is none at all.
    #[error(
        "no kernel for virtual machines is installed: hull kernel install FILE (cargo xtask guest-kernel builds one)"
    )]
    NoneInstalled,
    /// Another has that name.
    #[error(
        "there is another kernel by the name {0}: choose one with --name, or replace it with --force"
    )]
    Exists(String),
    /// It is the default.
    #[error("{0} is the default kernel: make another the default first, or use --force")]
    IsDefault(String),
    /// The file cannot be booted.
    #[error("this is no kernel for guests: {0}")]
    Unfit(String),
    /// The archive is not one of ours.
    #[error("this is no archive of a kernel: {0}")]
    Archive(String),
    /// The content is not what was promised.
    #[error("the kernel has the digest sha256:{found}, and {who} wants sha256:{wanted}")]
    Digest {
        /// Who named the digest.
        who: &'static str,
        /// What it named.
        wanted: String,
        /// What the content has.
        found: String,
    },
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
    /// What is sent ended early or cannot be read.
    #[error("the kernel that is sent cannot be read")]
    Read(#[source] io::Error),
}

impl KernelError {
    pub(crate) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

impl From<KernelError> for Error {
    fn from(error: KernelError) -> Self {
        let kind = match &error {
            KernelError::NotFound(_) | KernelError::NoneInstalled => ErrorKind::NotFound,
            KernelError::Exists(_) | KernelError::IsDefault(_) => ErrorKind::Conflict,
            KernelError::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
            KernelError::Name(_)
            | KernelError::Unfit(_)
            | KernelError::Archive(_)
            | KernelError::Digest { .. }
            | KernelError::Read(_) => ErrorKind::InvalidArgument,
        };
        let message = error.to_string();
        match error {
            KernelError::Io { source, .. } | KernelError::Read(source) => {
                Error::with_source(kind, message, source)
            }
            _ => Error::new(kind, message),
        }
    }
}
