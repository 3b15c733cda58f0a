//! Why a registry could not be used.

use hull_model::{Digest, ErrorKind};

/// An operation on a registry failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The host's configuration is malformed.
    #[error("registry configuration {file}: {why}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// No connection, or it broke off too often.
    #[error("cannot reach {host}: {why}")]
    Unreachable {
        /// Host with port.
        host: String,
        /// The chain of reasons.
        why: String,
    },
    /// It leads from one place to the next and never to an end.
    #[error("{host} leads in circles: {why}")]
    Redirects {
        /// Host with port.
        host: String,
        /// The chain of reasons.
        why: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("{host} denied access to {what}: {why}")]
    Denied {
        /// Host with port.
        host: String,
        /// Repository or realm.
        what: String,
        /// The registry's words.
        why: String,
    },
    /// There is no such manifest, blob or repository.
    #[error("{what} is not in the registry{}", if why.is_empty() { String::new() } else { format!(": {why}") })]
    NotFound {
        /// What was asked for.
        what: String,
        /// The registry's words.
        why: String,
    },
    /// Too many requests, for too long.
    #[error("{host} allows no more requests now ({why}): try again later")]
    TooMany {
        /// Host with port.
        host: String,
        /// The registry's words.
        why: String,
    },
    /// An answer that is none of the specification's.
    #[error("{host} answered {status} to {what}{}", if why.is_empty() { String::new() } else { format!(": {why}") })]
    Status {
        /// Host with port.
        host: String,
        /// HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// The registry's words.
        why: String,
    },
    /// What came is not what was promised.
    #[error(
        "{what} has digest {found}, expected {expected}: the registry or something on the way to it is damaged"
    )]
    Digest {
        /// What.
        what: String,
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
    /// What came is longer or shorter than promised.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// What.
        what: String,
        /// Promised.
        expected: u64,
        /// What the registry says or sent.
        found: u64,
    },
    /// A document larger than is accepted.
    #[error("{what} has more than {name} = {limit} bytes")]
    Limit {
        /// What.
        what: String,
        /// Name of the bound.
        name: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A document that makes no sense.
    #[error("{what} is not valid: {why}")]
    Malformed {
        /// What.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// The source of an upload.
    #[error("cannot read what is to be uploaded: {0}")]
    Source(String),
}

impl RegistryError {
    /// Whether the same may go well a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TooMany { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Denied { .. } => ErrorKind::Forbidden,
            Self::Unreachable { .. } | Self::TooMany { .. } => ErrorKind::Unavailable,
            Self::Status { .. } if self.is_passing() => ErrorKind::Unavailable,
            Self::Status { .. } | Self::Source(_) => ErrorKind::Internal,
            Self::Config { .. }
            | Self::Digest { .. }
            | Self::Length { .. }
            | Self::Limit { .. }
            | Self::Malformed { .. }
            | Self::Redirects { .. } => ErrorKind::InvalidArgument,
        }
    }
}

impl From<RegistryError> for hull_model::Error {
    fn from(error: RegistryError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
