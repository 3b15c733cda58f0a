//! The kinds of failure that cross crate borders. The API maps a kind to an HTTP status and the
//! command line maps it to an exit code, each in one function.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What sort of failure it was, independent of where it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong: 400.
    InvalidArgument,
    /// The named thing does not exist: 404.
    NotFound,
    /// The state of things forbids it (name taken, container running): 409.
    Conflict,
    /// Nothing to do, the wished state already holds: 304.
    NotModified,
    /// Not allowed to this caller: 403.
    Forbidden,
    /// Hull does not do this (yet): 501.
    NotImplemented,
    /// The payload's command could not be started because it does not exist: 400, exit 127.
    CommandNotFound,
    /// The payload's command exists but cannot be executed: 400, exit 126.
    CommandNotExecutable,
    /// A resource of the host is used up or unavailable: 500.
    Unavailable,
    /// Anything else: 500.
    Internal,
}

/// An error with a kind and a message fit for the user, its cause chained as source.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Shorthand for results of use-cases.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// Makes an error that keeps its cause.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source.into()),
        }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// The thing does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The state forbids it.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// An internal failure with its cause.
    pub fn internal(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::with_source(ErrorKind::Internal, message, source)
    }

    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message with every cause behind it, joined by `: `, printed once at the edge.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_with_source_names_each_cause_once() {
        let error = Error::internal("cannot start web", std::io::Error::other("disk on fire"));
        assert_eq!(error.to_string(), "cannot start web");
        assert_eq!(error.chain(), "cannot start web: disk on fire");
    }
}
