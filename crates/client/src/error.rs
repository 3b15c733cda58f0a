//! What can go wrong between the client and the engine.

use std::path::PathBuf;

use thiserror::Error;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens on the socket, or it may not be opened.
    #[error("cannot connect to the engine at unix://{}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The program that leads to the engine could not be started.
    #[error("cannot start {program}")]
    Program {
        /// The program and its arguments.
        program: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// The engine refused; `message` is its own.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The engine's message.
        message: String,
    },
    /// The connection broke or the peer does not speak HTTP.
    #[error("connection to the engine broke during {request}")]
    Transport {
        /// Method and path.
        request: String,
        /// What broke.
        #[source]
        source: hyper::Error,
    },
    /// The request could not be written down.
    #[error("invalid request {request}")]
    Request {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        #[source]
        source: hyper::http::Error,
    },
    /// The reply is not what the API promises.
    #[error("unexpected reply to {request}: {source}")]
    Decode {
        /// Method and path.
        request: String,
        /// Where decoding stopped.
        source: serde_json::Error,
    },
    /// The reply is larger than any reply may be.
    #[error("reply to {request} is larger than {limit} bytes")]
    TooLarge {
        /// Method and path.
        request: String,
        /// The bound.
        limit: usize,
    },
    /// The engine answered, but did not hand the connection over.
    #[error("the engine answered {status} to {request} instead of switching protocols")]
    NotUpgraded {
        /// Method and path.
        request: String,
        /// HTTP status.
        status: u16,
    },
    /// A multiplexed stream is malformed.
    #[error("malformed stream: {0}")]
    Stream(&'static str),
    /// Reading or writing a taken-over connection or a file failed.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl ClientError {
    /// The HTTP status, where the engine answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the engine said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether nobody answers on the socket.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
