//! `cp`: trees and tar streams, between the host's folders and containers whose content is hostile.
//!
//! Whatever is read or written is reached by descriptors. A member's folder is opened beneath the
//! folder that is unpacked into, or, where a link of the container leads elsewhere, beneath the
//! container's root; nothing outside can be named. What is read was opened without access first and
//! found to be a regular file or a folder: no device, pipe or link of a container is ever opened.

mod files;
pub mod names;
mod pack;
mod unpack;

use std::io;

pub use self::files::{Node, node};
pub(crate) use self::files::{entry_of, names_reversed, xattrs};
pub use self::pack::{Pack, pack, pack_content};
pub use self::unpack::{Owner, Place, Rename, Scope, unpack};
use crate::tar::TarError;
use crate::unpack::PathProblem;

/// Why a copy failed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A part of the tree cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// Which.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The stream cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// The stream cannot be read.
    #[error("cannot read the archive")]
    Stream(#[source] io::Error),
    /// The stream is not a sound tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A member's name is not acceptable.
    #[error("refused archive member {path:?}: {problem}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// A folder would be replaced by something else.
    #[error("cannot overwrite directory {path:?} with non-directory")]
    OverwriteDir {
        /// Which.
        path: String,
    },
    /// Something else would be replaced by a folder.
    #[error("cannot overwrite non-directory {path:?} with directory")]
    OverwriteNonDir {
        /// Which.
        path: String,
    },
    /// A member would be written through a link where none may be followed.
    #[error("refused archive member {path:?}: it leads through a symbolic link")]
    ThroughLink {
        /// The folder that is a link or lies behind one.
        path: String,
    },
    /// A folder of the kernel's own, such as /proc.
    #[error("cannot copy to {path:?}: it belongs to a file system of the kernel's")]
    Closed {
        /// Which.
        path: String,
    },
    /// A hard link leads to something that is not there.
    #[error("cannot link {path:?} to {target:?}")]
    HardLink {
        /// The link.
        path: String,
        /// Its target.
        target: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The host refused an operation.
    #[error("cannot {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which member.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl CopyError {
    fn io(what: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: show(path),
            source: source.into(),
        }
    }
}

impl From<CopyError> for hull_model::Error {
    fn from(error: CopyError) -> Self {
        use hull_model::ErrorKind;
        let kind = match &error {
            CopyError::Read { source, .. } => crate::store::io_kind(source),
            CopyError::Io { source, .. } | CopyError::HardLink { source, .. } => {
                match source.kind() {
                    io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Forbidden,
                    io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidFilename => ErrorKind::InvalidArgument,
                    _ => crate::store::io_kind(source),
                }
            }
            CopyError::Write(_) => ErrorKind::Internal,
            CopyError::Closed { .. } => ErrorKind::Forbidden,
            CopyError::Stream(_)
            | CopyError::Tar(_)
            | CopyError::Name { .. }
            | CopyError::OverwriteDir { .. }
            | CopyError::OverwriteNonDir { .. }
            | CopyError::ThroughLink { .. } => ErrorKind::InvalidArgument,
        };
        crate::store::from_chain(kind, error)
    }
}

/// A name for messages; bytes that are not UTF-8 are replaced.
fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
