//! Unpacking a layer: a foreign stream becomes a verified tree and a split file.

mod dirtimes;
mod feed;
mod path;
mod records;
mod tree;

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use hull_model::Digest;
use rustix::fs::{FileType, Mode, OFlags, makedev, openat};

use self::feed::with_feeder;
pub use self::path::{PathProblem, clean};
use self::tree::{Tree, show};
use crate::limits::{LimitError, Limits};
use crate::split::{SPLIT_FILE, SplitWriter};
use crate::tar::{Entry, Kind, SparseMap, TarError, TarReader};

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is not a sound tar.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The stream could not be opened.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// A name is not acceptable.
    #[error("refused archive entry {path}: {problem}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// An entry would be written through a symbolic link of the archive.
    #[error("refused archive entry: {path} leads through a symbolic link of the archive")]
    ThroughSymlink {
        /// The directory that is a link or lies behind one.
        path: String,
    },
    /// An entry lies below something that is no directory.
    #[error("corrupt archive: {path} is used as a directory but is none")]
    ThroughFile {
        /// The name.
        path: String,
    },
    /// A hard link leads to something that this archive has not brought.
    #[error(
        "refused hard link {path} to {target}: the target is not an earlier entry of the same archive"
    )]
    HardLinkTarget {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// A hard link leads to a directory.
    #[error("refused hard link {path} to {target}: the target is a directory")]
    HardLinkDirectory {
        /// The link.
        path: String,
        /// Its target.
        target: String,
    },
    /// A whiteout hides no sensible name.
    #[error("refused whiteout {path}: it names no file")]
    Whiteout {
        /// The whiteout.
        path: String,
    },
    /// A symbolic link without target.
    #[error("corrupt archive: symbolic link {path} has no target or one that is too long")]
    SymlinkTarget {
        /// The link.
        path: String,
    },
    /// A bound was passed.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The host refused an operation.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which entry.
        path: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Something that had to wait in a file could not.
    #[error("cannot keep the layer's times in a file")]
    Times(#[from] io::Error),
    /// The content is not what its digest promised.
    #[error("{what} has digest {found}, expected {expected}: the archive is corrupt")]
    Digest {
        /// Layer or blob.
        what: &'static str,
        /// Promised.
        expected: Digest,
        /// Computed.
        found: Digest,
    },
}

impl UnpackError {
    pub(crate) fn io(what: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: show(path),
            source: source.into(),
        }
    }
}

/// What the sender promised about a layer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expectation {
    /// Digest of the uncompressed tar.
    pub diff_id: Option<Digest>,
    /// Digest of the stream as sent.
    pub packed: Option<Digest>,
}

/// What unpacking found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Size of the uncompressed tar.
    pub tar_bytes: u64,
    /// Bytes of file content in the tree.
    pub tree_bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Records of the split file whose file lies in `odd` under the second number.
    pub moved: Vec<(u64, u64)>,
    /// What had to be left out.
    pub warnings: Vec<String>,
}

/// Unpacks `source` into the empty directory `layer`: `fs`, `split.zst` and, if need be, `odd`.
/// `progress` hears the number of bytes taken from the source so far.
///
/// Reading, decompression and digests are the work of a thread of their own, so that they go on
/// while files are written.
///
/// # Errors
/// See [`UnpackError`]. The directory is then in an undefined state and must be deleted.
pub fn unpack_layer(
    source: &mut (dyn Read + Send),
    layer: BorrowedFd<'_>,
    expect: Expectation,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Unpacked, UnpackError> {
    let hash_packed = expect.packed.is_some();
    let (mut unpacked, fed) = with_feeder(source, hash_packed, limits, progress, |stream| {
        unpack_stream(stream, layer, limits)
    })?;
    unpacked.diff_id = fed.diff_id;
    unpacked.tar_bytes = fed.tar_bytes;
    for (what, expected, found) in [
        ("blob", expect.packed, fed.packed),
        ("layer", expect.diff_id, Some(fed.diff_id)),
    ] {
        if let (Some(expected), Some(found)) = (expected, found)
            && expected != found
        {
            return Err(UnpackError::Digest {
                what,
                expected,
                found,
            });
        }
    }
    Ok(unpacked)
}

/// Unpacks an uncompressed stream; leaves what the feeder knows for the caller to fill in.
fn unpack_stream<R: BufRead>(
    stream: R,
    layer: BorrowedFd<'_>,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let split = openat(
        layer,
        SPLIT_FILE,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )
    .map_err(|e| UnpackError::io("create", SPLIT_FILE.as_bytes(), e))?;
    let split = SplitWriter::new(File::from(split))
        .map_err(|e| UnpackError::io("create", SPLIT_FILE.as_bytes(), e))?;
    let mut unpacker = Unpacker {
        reader: TarReader::new(stream, split),
        tree: Tree::create(layer)?,
        limits,
        tree_bytes: 0,
    };
    let mut entries = 0;
    while let Some(entry) = unpacker.reader.next_entry()? {
        entries += 1;
        if entries > limits.max_layer_entries {
            return Err(LimitError::Entries {
                name: "max_layer_entries",
                limit: limits.max_layer_entries,
            }
            .into());
        }
        unpacker.entry(&entry)?;
    }
    unpacker.tree.finish()?;
    if !unpacker.reader.saw_end_marker() {
        let text = "the archive has no end marker and may be truncated";
        unpacker.tree.warn(text.into());
    }
    let Unpacker {
        reader,
        tree,
        tree_bytes,
        ..
    } = unpacker;
    let (_, split) = reader.into_parts();
    split
        .finish()
        .map_err(|e| UnpackError::io("write", SPLIT_FILE.as_bytes(), e))?;
    Ok(Unpacked {
        diff_id: Digest::from_bytes([0; 32]),
        tar_bytes: 0,
        tree_bytes,
        entries,
        moved: tree.moved,
        warnings: tree.warnings,
    })
}

struct Unpacker<'a, R> {
    reader: TarReader<R, SplitWriter>,
    tree: Tree,
    limits: &'a Limits,
    tree_bytes: u64,
}

impl<R: BufRead> Unpacker<'_, R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let path = clean(&entry.path).map_err(|problem| UnpackError::Name {
            path: show(&entry.path),
            problem,
        })?;
        if let Kind::Other(flag) = entry.kind {
            self.tree.warn(format!(
                "entry {} left out: unknown type {:?}",
                show(&path),
                char::from(flag)
            ));
            return Ok(());
        }
        if path.is_empty() && entry.kind != Kind::Dir {
            return Err(UnpackError::Name {
                path: show(&entry.path),
                problem: PathProblem::Empty,
            });
        }
        if entry.kind != Kind::Dir && self.tree.add_whiteout(&path)? {
            return Ok(());
        }
        match entry.kind {
            Kind::Dir => self.tree.add_dir(&path, entry),
            Kind::File => self.file(&path, entry),
            Kind::Symlink => {
                if entry.link.is_empty()
                    || entry.link.contains(&0)
                    || entry.link.len() > crate::limits::MAX_PATH_BYTES
                {
                    return Err(UnpackError::SymlinkTarget { path: show(&path) });
                }
                self.tree.add_symlink(&path, entry)
            }
            Kind::HardLink => self.tree.add_hard_link(&path, entry),
            Kind::Char | Kind::Block => {
                let kind = if entry.kind == Kind::Char {
                    FileType::CharacterDevice
                } else {
                    FileType::BlockDevice
                };
                let device = makedev(entry.major, entry.minor);
                self.tree.add_node(&path, entry, kind, device)
            }
            Kind::Fifo => self.tree.add_node(&path, entry, FileType::Fifo, 0),
            Kind::Other(_) => Ok(()),
        }
    }

    fn file(&mut self, path: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let mut file = self.tree.create_file(path, entry.mode)?;
        let write = |e| UnpackError::io("write", path, e);
        self.tree_bytes += entry.size;
        if let Some(map) = &entry.sparse {
            self.sparse(&file, path, map)?;
            return self.tree.finish_file(&file, path, entry, None);
        }
        let record = if entry.size > 0 {
            let noted = self.reader.tap_mut().file(path, entry.size);
            Some(noted.map_err(TarError::Tap)?)
        } else {
            None
        };
        loop {
            let chunk = self.reader.payload()?;
            if chunk.is_empty() {
                break;
            }
            let n = file.write(chunk).map_err(write)?;
            self.reader.consume(n);
        }
        self.tree.finish_file(&file, path, entry, record)
    }

    /// Writes the fragments of a sparse file to their places; the payload goes to the split file,
    /// since the tree does not tell where the fragments were.
    fn sparse(&mut self, file: &File, path: &[u8], map: &SparseMap) -> Result<(), UnpackError> {
        if map.real_size > self.limits.max_layer_bytes {
            return Err(LimitError::Bytes {
                name: "max_layer_bytes",
                limit: self.limits.max_layer_bytes,
            }
            .into());
        }
        let write = |e| UnpackError::io("write", path, e);
        file.set_len(map.real_size).map_err(write)?;
        let mut fragments = map.fragments.iter().copied();
        let mut current = (0u64, 0u64);
        self.reader.payload_through_tap(|mut chunk: &[u8]| {
            while !chunk.is_empty() {
                if current.1 == 0 {
                    let Some(next) = fragments.next() else {
                        return Ok(());
                    };
                    current = next;
                    continue;
                }
                let n = chunk
                    .len()
                    .min(usize::try_from(current.1).unwrap_or(usize::MAX));
                let (now, rest) = chunk.split_at(n);
                file.write_all_at(now, current.0).map_err(write)?;
                current = (current.0 + n as u64, current.1 - n as u64);
                chunk = rest;
            }
            Ok(())
        })
    }
}
