//! A streaming tar reader that hands every raw byte it consumes to a tap, so that the stream can
//! be rebuilt bit by bit, and stops at every inconsistency.

use std::io::{self, BufRead, Read};

use super::entry::{Entry, Kind, Mtime};
use super::header::{Header, gnu_fragments, until_zero};
use super::pax::Pax;
use super::sparse::{self, MapParser};
use super::{BLOCK, TarError};
use crate::limits::{MAX_EXTENSION_BYTES, MAX_EXTENSIONS, MAX_SPARSE_FRAGMENTS};

/// Receives the raw bytes that a caller did not take as payload.
pub trait Tap {
    /// Takes bytes in the order of the stream.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn raw(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads entries one after another.
pub struct TarReader<R, T> {
    input: R,
    tap: T,
    offset: u64,
    /// Payload of the current entry not yet consumed.
    left: u64,
    padding: u64,
    ended: bool,
    end_marker: bool,
}

impl<R: BufRead, T: Tap> TarReader<R, T> {
    /// Starts at the first header.
    pub fn new(input: R, tap: T) -> Self {
        Self {
            input,
            tap,
            offset: 0,
            left: 0,
            padding: 0,
            ended: false,
            end_marker: false,
        }
    }

    /// Bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// True if the archive ended with zero blocks and not with the stream alone.
    pub fn saw_end_marker(&self) -> bool {
        self.end_marker
    }

    /// The sink of raw bytes.
    pub fn tap_mut(&mut self) -> &mut T {
        &mut self.tap
    }

    /// Gives back the input and the tap. Call it after [`Self::next_entry`] returned `None`, when
    /// the input has been read to its end.
    pub fn into_parts(self) -> (R, T) {
        (self.input, self.tap)
    }

    /// Skips the rest of the current payload and reads up to the next payload. At the end of the
    /// archive everything that follows is consumed too, since digests cover it.
    ///
    /// # Errors
    /// See [`TarError`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.skip_raw(self.left)?;
        self.left = 0;
        // Some writers (umoci insert) end right behind the last content, without its padding.
        let padding = std::mem::take(&mut self.padding);
        match self.skip_raw(padding) {
            Err(TarError::Truncated { .. }) => return self.finish(),
            skipped => skipped?,
        }
        let start = self.offset;
        let mut pax = Pax::default();
        let mut long_path: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        let mut extended = false;
        let mut extensions = 0;
        // One bound for all that stands in front of an entry: what it says is kept until then.
        let mut room = MAX_EXTENSION_BYTES;
        loop {
            let at = self.offset;
            let Some(block) = self.read_header_block()? else {
                if extended {
                    return Err(TarError::Truncated { offset: at });
                }
                return self.finish();
            };
            if block.iter().all(|&b| b == 0) {
                // One zero block ends the archive as well as two.
                self.end_marker = true;
                return self.finish();
            }
            let header = Header::parse(&block, at)?;
            let wrong = |what| TarError::Header { offset: at, what };
            extensions += 1;
            if extensions > MAX_EXTENSIONS {
                return Err(wrong("more than MAX_EXTENSIONS extension headers"));
            }
            match header.type_flag() {
                b'x' | b'X' => {
                    let body = self.extension(header.size()?, &mut room)?;
                    pax.apply(&body).map_err(wrong)?;
                    extended = true;
                }
                b'g' => {
                    // Global headers carry a comment (git archive) in practice; Docker skips them.
                    self.extension(header.size()?, &mut room)?;
                }
                b'L' => {
                    let body = self.extension(header.size()?, &mut room)?;
                    long_path = Some(until_zero(&body).to_vec());
                    extended = true;
                }
                b'K' => {
                    let body = self.extension(header.size()?, &mut room)?;
                    long_link = Some(until_zero(&body).to_vec());
                    extended = true;
                }
                _ => {
                    return self
                        .entry(&header, start, pax, long_path, long_link)
                        .map(Some);
                }
            }
        }
    }

    /// Builds the entry from its header and what the extensions said.
    fn entry(
        &mut self,
        header: &Header<'_>,
        start: u64,
        pax: Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let wrong = |what| TarError::Header {
            offset: start,
            what,
        };
        let path = pax.path.or(long_path).unwrap_or_else(|| header.path());
        let kind = header.kind(&path);
        let mut size = match pax.size {
            Some(size) => size,
            None => header.size()?,
        };
        // Only files and unknown kinds have a payload; some tars write a size for links and
        // directories that no data follows.
        if !matches!(kind, Kind::File | Kind::Other(_)) {
            size = 0;
        }
        if i64::try_from(size).is_err() {
            return Err(wrong("size"));
        }
        let mut entry = Entry {
            path,
            link: pax.link.or(long_link).unwrap_or_else(|| header.link()),
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Mtime {
                    secs: header.mtime()?,
                    nanos: 0,
                },
            },
            size,
            major: 0,
            minor: 0,
            xattrs: pax.xattrs,
            sparse: None,
            offset: start,
        };
        if matches!(kind, Kind::Char | Kind::Block) {
            entry.major = header.major()?;
            entry.minor = header.minor()?;
        }
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        if kind == Kind::File {
            let found = if header.type_flag() == b'S' {
                let (mut fragments, mut more, real) = header.gnu_sparse()?;
                while more {
                    let block = self.read_header_block()?.ok_or(TarError::Truncated {
                        offset: self.offset,
                    })?;
                    let (map, rest) = block.split_at(504);
                    fragments.extend(gnu_fragments(map, start)?);
                    more = rest.first().is_some_and(|&b| b != 0);
                    if fragments.len() > MAX_SPARSE_FRAGMENTS {
                        return Err(wrong("too many sparse fragments"));
                    }
                }
                Some((fragments, real))
            } else if pax.sparse.is_sparse() {
                let real = pax.sparse.real_size.ok_or(wrong("sparse size"))?;
                if pax.sparse.map_in_payload() {
                    Some((self.payload_map(start)?, real))
                } else {
                    Some((pax.sparse.fragments, real))
                }
            } else {
                None
            };
            if let Some(name) = pax.sparse.name {
                entry.path = name;
            }
            if let Some((mut fragments, real)) = found {
                // A final empty fragment only marks the size.
                fragments.retain(|&(_, len)| len > 0);
                entry.size = self.left;
                entry.sparse = Some(sparse::checked(fragments, real, self.left).map_err(wrong)?);
            }
        }
        Ok(entry)
    }

    /// Consumes the map at the head of a payload of sparse form 1.0.
    fn payload_map(&mut self, start: u64) -> Result<Vec<(u64, u64)>, TarError> {
        let mut parser = MapParser::default();
        loop {
            if self.left < BLOCK as u64 {
                return Err(TarError::Header {
                    offset: start,
                    what: "sparse map",
                });
            }
            let block = self.read_header_block()?.ok_or(TarError::Truncated {
                offset: self.offset,
            })?;
            self.left -= BLOCK as u64;
            let done = parser.block(&block).map_err(|what| TarError::Header {
                offset: start,
                what,
            })?;
            if done {
                return Ok(parser.fragments());
            }
        }
    }

    /// Reads the payload of an extension header, raw bytes going to the tap.
    fn extension(&mut self, size: u64, room: &mut u64) -> Result<Vec<u8>, TarError> {
        if size > *room {
            return Err(TarError::TooLarge {
                offset: self.offset,
                what: "extension header",
                limit: MAX_EXTENSION_BYTES,
            });
        }
        *room -= size;
        let padded = size.next_multiple_of(BLOCK as u64);
        let mut body = Vec::new();
        let read = (&mut self.input)
            .take(padded)
            .read_to_end(&mut body)
            .map_err(|source| read_error(self.offset, source))?;
        self.offset += read as u64;
        if read as u64 != padded {
            return Err(TarError::Truncated {
                offset: self.offset,
            });
        }
        self.tap.raw(&body).map_err(TarError::Tap)?;
        body.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        Ok(body)
    }

    /// The next block, given to the tap; `None` at a clean end of the input.
    fn read_header_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|r| !r.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => {
                    return Err(TarError::Truncated {
                        offset: self.offset + filled as u64,
                    });
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(read_error(self.offset, source)),
            }
        }
        self.offset += BLOCK as u64;
        self.tap.raw(&block).map_err(TarError::Tap)?;
        Ok(Some(block))
    }

    /// Payload bytes that lie in the buffer, none at the end of the payload. The caller takes
    /// them by [`Self::consume`]; they do not go to the tap.
    ///
    /// # Errors
    /// If the stream fails or ends early.
    pub fn payload(&mut self) -> Result<&[u8], TarError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        loop {
            // The second call below returns the buffer that this one has filled.
            match self.input.fill_buf() {
                Ok([]) => return Err(TarError::Truncated { offset }),
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(read_error(offset, source)),
            }
        }
        let chunk = self
            .input
            .fill_buf()
            .map_err(|source| read_error(offset, source))?;
        Ok(chunk.get(..left).unwrap_or(chunk))
    }

    /// Marks payload bytes as taken.
    pub fn consume(&mut self, n: usize) {
        self.input.consume(n);
        self.offset += n as u64;
        self.left = self.left.saturating_sub(n as u64);
    }

    /// Reads the rest of the payload into memory if it is not larger than `limit`.
    ///
    /// # Errors
    /// If it is, or the stream fails.
    pub fn read_payload(&mut self, limit: u64) -> Result<Vec<u8>, TarError> {
        if self.left > limit {
            return Err(TarError::TooLarge {
                offset: self.offset,
                what: "document",
                limit,
            });
        }
        let mut out = Vec::new();
        loop {
            let chunk = self.payload()?;
            if chunk.is_empty() {
                return Ok(out);
            }
            let n = chunk.len();
            out.extend_from_slice(chunk);
            self.consume(n);
        }
    }

    /// Hands the rest of the payload to `sink` and to the tap.
    ///
    /// # Errors
    /// Those of the stream, the tap and the sink.
    pub fn payload_through_tap<E: From<TarError>>(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while self.left > 0 {
            self.payload()?;
            let offset = self.offset;
            let buffer = self
                .input
                .fill_buf()
                .map_err(|source| E::from(read_error(offset, source)))?;
            let left = usize::try_from(self.left).unwrap_or(usize::MAX);
            let chunk = buffer.get(..left).unwrap_or(buffer);
            self.tap.raw(chunk).map_err(|e| E::from(TarError::Tap(e)))?;
            sink(chunk)?;
            let n = chunk.len();
            self.consume(n);
        }
        Ok(())
    }

    fn skip_raw(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let offset = self.offset;
            let chunk = match self.input.fill_buf() {
                Ok([]) => return Err(TarError::Truncated { offset }),
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(read_error(offset, source)),
            };
            let n = chunk
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
            self.tap
                .raw(chunk.get(..n).unwrap_or_default())
                .map_err(TarError::Tap)?;
            self.input.consume(n);
            self.offset += n as u64;
            count -= n as u64;
        }
        Ok(())
    }

    /// Consumes what follows the end marker. Only zeros and record padding are expected there,
    /// but a digest covers whatever it is.
    fn finish(&mut self) -> Result<Option<Entry>, TarError> {
        self.ended = true;
        loop {
            let offset = self.offset;
            let chunk = match self.input.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(chunk) => chunk,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(read_error(offset, source)),
            };
            self.tap.raw(chunk).map_err(TarError::Tap)?;
            let n = chunk.len();
            self.input.consume(n);
            self.offset += n as u64;
        }
    }
}

/// A compressed stream that ends early is a truncated archive too.
fn read_error(offset: u64, source: io::Error) -> TarError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        TarError::Truncated { offset }
    } else {
        TarError::Read { offset, source }
    }
}
