//! The split file of a layer: everything of its tar that the unpacked tree does not hold, so
//! that the two together give back the exact stream, and the layer is kept only once.
//!
//! A zstd stream of records:
//! - `0x01 LEN:u32 BYTES`: these bytes stand in the tar here (headers, padding, odd payloads),
//! - `0x02 SIZE:u64 LEN:u32 PATH`: here follows the content of a file of the tree.
//!
//! Numbers are little-endian. A file that a later entry of the same layer replaced lies in the
//! layer's `odd` directory; the layer's metadata says which record means it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::limits::MAX_PATH_BYTES;
use crate::tar::Tap;

const TAG_RAW: u8 = 1;
const TAG_FILE: u8 = 2;
/// Raw bytes are gathered up to this size before a record is written.
const RAW_BUFFER_BYTES: usize = 64 << 10;
/// Headers compress well at the fastest level already.
const ZSTD_LEVEL: i32 = 1;
/// Directory of the unpacked tree inside a layer's directory.
pub(crate) const TREE_DIR: &str = "fs";
/// Directory of replaced files inside a layer's directory.
pub(crate) const ODD_DIR: &str = "odd";
/// Name of the split file inside a layer's directory.
pub(crate) const SPLIT_FILE: &str = "split.zst";

/// Writes the split file while a layer is unpacked.
pub(crate) struct SplitWriter {
    out: zstd::stream::write::Encoder<'static, File>,
    raw: Vec<u8>,
    files: u64,
}

impl SplitWriter {
    pub(crate) fn new(out: File) -> io::Result<Self> {
        Ok(Self {
            out: zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?,
            raw: Vec::with_capacity(RAW_BUFFER_BYTES),
            files: 0,
        })
    }

    /// Notes that the payload at this place is the content of `path`; returns the record's number.
    pub(crate) fn file(&mut self, path: &[u8], size: u64) -> io::Result<u64> {
        self.flush_raw()?;
        self.out.write_all(&[TAG_FILE])?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&length(path)?)?;
        self.out.write_all(path)?;
        let number = self.files;
        self.files += 1;
        Ok(number)
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.out.write_all(&[TAG_RAW])?;
            self.out.write_all(&length(&self.raw)?)?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_raw()?;
        self.out.finish()?;
        Ok(())
    }
}

impl Tap for SplitWriter {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(RAW_BUFFER_BYTES) {
            if self.raw.len() + chunk.len() > RAW_BUFFER_BYTES {
                self.flush_raw()?;
            }
            self.raw.extend_from_slice(chunk);
        }
        Ok(())
    }
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    u32::try_from(bytes.len())
        .map(u32::to_le_bytes)
        .map_err(io::Error::other)
}

/// Reads a layer's original tar from its split file and its tree.
pub struct SplitReader<'a> {
    layer: BorrowedFd<'a>,
    records: Box<dyn Read>,
    moved: HashMap<u64, u64>,
    files: u64,
    state: State,
}

enum State {
    /// A record header comes next.
    Record,
    /// So many raw bytes are left.
    Raw(u64),
    /// So many bytes of a file are left.
    File(File, u64),
    End,
}

impl<'a> SplitReader<'a> {
    /// Opens the split file in the directory of a layer. `moved` maps record numbers to numbers
    /// of replaced files.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(layer: BorrowedFd<'a>, moved: HashMap<u64, u64>) -> io::Result<Self> {
        let file = open_beneath(layer, SPLIT_FILE.as_bytes())?;
        Ok(Self {
            layer,
            records: Box::new(zstd::stream::read::Decoder::new(file)?),
            moved,
            files: 0,
            state: State::Record,
        })
    }

    fn next_record(&mut self) -> io::Result<State> {
        let mut tag = [0; 1];
        if self.records.read(&mut tag)? == 0 {
            return Ok(State::End);
        }
        match tag {
            [TAG_RAW] => Ok(State::Raw(u64::from(self.read_u32()?))),
            [TAG_FILE] => {
                let mut size = [0; 8];
                self.records.read_exact(&mut size)?;
                let len = self.read_u32()? as usize;
                if len > MAX_PATH_BYTES {
                    return Err(damaged("path length"));
                }
                let mut path = vec![0; len];
                self.records.read_exact(&mut path)?;
                let number = self.files;
                self.files += 1;
                let path = match self.moved.get(&number) {
                    Some(odd) => format!("{ODD_DIR}/{odd}").into_bytes(),
                    None => [TREE_DIR.as_bytes(), b"/", &path].concat(),
                };
                let file = open_beneath(self.layer, &path)?;
                Ok(State::File(file, u64::from_le_bytes(size)))
            }
            _ => Err(damaged("record tag")),
        }
    }

    fn read_u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.records.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}

impl Read for SplitReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.state {
                State::Record | State::Raw(0) | State::File(_, 0) => {
                    self.state = self.next_record()?;
                }
                State::Raw(left) => {
                    let n = bounded(&mut self.records, *left, buf)?;
                    *left -= n as u64;
                    return Ok(n);
                }
                State::File(file, left) => {
                    let n = bounded(file, *left, buf)?;
                    *left -= n as u64;
                    return Ok(n);
                }
                State::End => return Ok(0),
            }
        }
    }
}

/// Reads at most `left` bytes; an early end is an error.
fn bounded(input: &mut dyn Read, left: u64, buf: &mut [u8]) -> io::Result<usize> {
    match input.take(left).read(buf)? {
        0 => Err(damaged("a file is shorter than recorded")),
        n => Ok(n),
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("stored layer is damaged: {what}"),
    )
}

fn open_beneath(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let fd = openat2(
        dir,
        path,
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?;
    Ok(File::from(fd))
}
