//! The tar format: ustar, PAX and GNU headers, read with every raw byte accounted for, and
//! written as Docker's readers expect. See pax(1) and tar(5).

mod entry;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use entry::{Entry, Kind, Mtime, SparseMap};
pub use reader::{NoTap, Tap, TarReader};
pub use writer::{TarWriter, WriteEntry};

/// Size of a tar block.
pub const BLOCK: usize = 512;

/// Why a tar stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream below failed: truncated or corrupt compression, a limit, an input error.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What happened.
        #[source]
        source: std::io::Error,
    },
    /// The stream ended inside an entry.
    #[error("archive is truncated at byte {offset}")]
    Truncated {
        /// Where in the uncompressed stream.
        offset: u64,
    },
    /// A header does not carry its own checksum.
    #[error("not a tar archive, or corrupt: header at byte {offset} has a wrong checksum")]
    Checksum {
        /// Where in the uncompressed stream.
        offset: u64,
    },
    /// A field of a header makes no sense.
    #[error("corrupt tar header at byte {offset}: {what}")]
    Header {
        /// Where in the uncompressed stream.
        offset: u64,
        /// Which field.
        what: &'static str,
    },
    /// An extension header or a count passed a bound.
    #[error("tar entry at byte {offset}: {what} is larger than {limit}")]
    TooLarge {
        /// Where in the uncompressed stream.
        offset: u64,
        /// What is too large.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The sink of raw bytes failed.
    #[error("cannot record the layer's headers")]
    Tap(#[source] std::io::Error),
}
