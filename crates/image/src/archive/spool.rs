//! The members of an image archive, laid down once: an archive may bring its layers before the
//! document that says what they are.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hull_model::Digest;

use super::LoadError;
use crate::compress::{Bound, Decoder};
use crate::hash::{HashWriter, digest_of};
use crate::limits::{LimitError, Limits, MAX_ARCHIVE_MEMBERS};
use crate::store::LayerSource;
use crate::tar::{Kind, NoTap, TarReader};
use crate::unpack::clean;

/// Members up to this size stay in memory.
const SMALL_BYTES: u64 = 16 << 10;
/// Most memory for small members; further ones go to files.
const MAX_MEMORY_BYTES: u64 = 32 << 20;
/// Most memory for the names of members and what they link to.
const MAX_NAMES_BYTES: u64 = 8 << 20;
/// Most bytes of all documents that an archive has read, counted each time.
const MAX_DOCUMENTS_BYTES: u64 = 32 << 20;
/// Size of the buffer in front of the parser.
const BUFFER_BYTES: usize = 256 << 10;
/// Longest name in a message.
const MAX_SHOWN: usize = 512;
/// Most links from link to link.
const MAX_LINKS: usize = 8;
/// Bytes between two reports of progress.
const PROGRESS_STEP_BYTES: u64 = 1 << 20;

/// Where a member's bytes are.
#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    File(PathBuf),
    Link(Vec<u8>),
}

#[derive(Debug)]
struct Member {
    place: Place,
    size: u64,
    /// Known for members whose name promises a digest.
    digest: Option<Digest>,
}

/// All members by name.
#[derive(Debug, Default)]
pub(super) struct Spool {
    members: HashMap<Vec<u8>, Member>,
    /// Whether the archive had an end marker.
    pub(super) complete: bool,
    /// Bytes of documents read so far: many images may name the same large one.
    read: AtomicU64,
}

impl Spool {
    /// Reads a whole archive, plain or compressed. Files go to `dir`.
    pub(super) fn read(
        input: &mut dyn Read,
        dir: &Path,
        limits: &Limits,
        progress: &dyn Fn(u64),
    ) -> Result<Self, LoadError> {
        let counted = Counting {
            inner: input,
            bytes: 0,
            reported: 0,
            report: progress,
        };
        let decoder = Decoder::new(counted, Bound::archive(limits)).map_err(LoadError::Read)?;
        let mut tar = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, decoder), NoTap);
        let mut spool = Self::default();
        let mut memory = 0;
        let mut names = 0;
        let mut count = 0;
        while let Some(entry) = tar.next_entry()? {
            count += 1;
            if count > MAX_ARCHIVE_MEMBERS {
                return Err(LimitError::Entries {
                    name: "MAX_ARCHIVE_MEMBERS",
                    limit: MAX_ARCHIVE_MEMBERS,
                }
                .into());
            }
            let shown = || -> String {
                let name = String::from_utf8_lossy(&entry.path);
                name.chars().take(MAX_SHOWN).collect()
            };
            let name = clean(&entry.path).map_err(|problem| LoadError::Member {
                name: shown(),
                problem,
            })?;
            names += (name.len() + entry.link.len()) as u64;
            if names > MAX_NAMES_BYTES {
                return Err(LimitError::Document {
                    what: "the list of its members' names",
                    found: names,
                    name: "MAX_NAMES_BYTES",
                    limit: MAX_NAMES_BYTES,
                }
                .into());
            }
            let member = match entry.kind {
                Kind::File if entry.sparse.is_some() => {
                    return Err(LoadError::Corrupt(format!("member {} is sparse", shown())));
                }
                Kind::File if entry.size <= SMALL_BYTES && memory < MAX_MEMORY_BYTES => {
                    let bytes = tar.read_payload(SMALL_BYTES)?;
                    memory += bytes.len() as u64;
                    Member {
                        size: entry.size,
                        digest: blob_digest(&name).map(|_| digest_of(&bytes)),
                        place: Place::Memory(bytes),
                    }
                }
                Kind::File => {
                    let path = dir.join(format!("member-{count}"));
                    let digest = to_file(&mut tar, &path, blob_digest(&name).is_some())?;
                    Member {
                        size: entry.size,
                        digest,
                        place: Place::File(path),
                    }
                }
                Kind::Symlink => Member {
                    size: 0,
                    digest: None,
                    place: Place::Link(resolve_link(&name, &entry.link).ok_or_else(|| {
                        LoadError::Corrupt(format!("member {} links out of the archive", shown()))
                    })?),
                },
                Kind::HardLink => Member {
                    size: 0,
                    digest: None,
                    place: Place::Link(clean(&entry.link).map_err(|problem| {
                        LoadError::Member {
                            name: shown(),
                            problem,
                        }
                    })?),
                },
                _ => continue,
            };
            spool.members.insert(name, member);
        }
        spool.complete = tar.saw_end_marker();
        Ok(spool)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn find(&self, name: &[u8]) -> Option<&Member> {
        let mut name = name;
        for _ in 0..MAX_LINKS {
            match self.members.get(name)? {
                Member {
                    place: Place::Link(target),
                    ..
                } => name = target,
                member => return Some(member),
            }
        }
        None
    }

    fn need(&self, name: &str) -> Result<&Member, LoadError> {
        clean(name.as_bytes())
            .ok()
            .and_then(|name| self.find(&name))
            .ok_or_else(|| LoadError::Missing(name.to_owned()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name.as_bytes()).is_some()
    }

    /// A small document.
    pub(super) fn document(
        &self,
        name: &str,
        what: &'static str,
        limit: (&'static str, u64),
    ) -> Result<Vec<u8>, LoadError> {
        let member = self.need(name)?;
        if member.size > limit.1 {
            return Err(LimitError::Document {
                what,
                found: member.size,
                name: limit.0,
                limit: limit.1,
            }
            .into());
        }
        let read = self.read.fetch_add(member.size, Ordering::Relaxed) + member.size;
        if read > MAX_DOCUMENTS_BYTES {
            return Err(LimitError::Document {
                what: "the sum of the documents it refers to",
                found: read,
                name: "MAX_DOCUMENTS_BYTES",
                limit: MAX_DOCUMENTS_BYTES,
            }
            .into());
        }
        let bytes = match &member.place {
            Place::Memory(bytes) => bytes.clone(),
            Place::File(path) => std::fs::read(path).map_err(LoadError::Spool)?,
            Place::Link(_) => return Err(LoadError::Missing(name.to_owned())),
        };
        hull_model::json::check_values(&bytes)
            .map_err(|error| LoadError::Corrupt(format!("{name} is not acceptable: {error}")))?;
        Ok(bytes)
    }

    /// A layer. If the member's name promises a digest, it has been checked.
    pub(super) fn layer(&self, name: &str) -> Result<SpooledLayer<'_>, LoadError> {
        let member = self.need(name)?;
        self.check(name)?;
        Ok(SpooledLayer {
            name: name.to_owned(),
            member,
        })
    }

    /// Checks a member of `blobs/sha256` against its name.
    pub(super) fn check(&self, name: &str) -> Result<(), LoadError> {
        let expected = blob_digest(name.as_bytes());
        let found = self.need(name)?.digest;
        match (expected, found) {
            (Some(expected), Some(found)) if expected != found => Err(LoadError::Digest {
                name: name.to_owned(),
                expected,
                found,
            }),
            _ => Ok(()),
        }
    }

    /// Size of a member.
    pub(super) fn size(&self, name: &str) -> Result<u64, LoadError> {
        Ok(self.need(name)?.size)
    }
}

/// The digest that a name `blobs/sha256/<hex>` promises.
fn blob_digest(name: &[u8]) -> Option<Digest> {
    let hex = name.strip_prefix(b"blobs/sha256/")?;
    Digest::from_hex(std::str::from_utf8(hex).ok()?).ok()
}

fn to_file<R: BufRead>(
    tar: &mut TarReader<R, NoTap>,
    path: &Path,
    digest: bool,
) -> Result<Option<Digest>, LoadError> {
    let mut file = File::create_new(path).map_err(LoadError::Spool)?;
    if digest {
        let mut hashed = HashWriter::new(file);
        copy(tar, &mut hashed)?;
        return Ok(Some(hashed.finish().2));
    }
    copy(tar, &mut file)?;
    Ok(None)
}

fn copy<R: BufRead>(tar: &mut TarReader<R, NoTap>, out: &mut dyn Write) -> Result<(), LoadError> {
    loop {
        let chunk = tar.payload()?;
        if chunk.is_empty() {
            return Ok(());
        }
        out.write_all(chunk).map_err(LoadError::Spool)?;
        let n = chunk.len();
        tar.consume(n);
    }
}

/// The member that a symbolic link inside the archive means; no file system is asked.
fn resolve_link(name: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if !target.starts_with(b"/") {
        parts = name.split(|&b| b == b'/').collect();
        parts.pop();
    }
    for part in target.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// A layer that lies in the spool.
#[derive(Debug)]
pub(super) struct SpooledLayer<'a> {
    name: String,
    member: &'a Member,
}

impl LayerSource for SpooledLayer<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn packed_bytes(&self) -> u64 {
        self.member.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send + '_>> {
        match &self.member.place {
            Place::Memory(bytes) => Ok(Box::new(Cursor::new(bytes))),
            Place::File(path) => Ok(Box::new(File::open(path)?)),
            Place::Link(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

struct Counting<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
    reported: u64,
    report: &'a dyn Fn(u64),
}

impl Read for Counting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        if self.bytes - self.reported >= PROGRESS_STEP_BYTES {
            self.reported = self.bytes;
            (self.report)(self.bytes);
        }
        Ok(n)
    }
}
