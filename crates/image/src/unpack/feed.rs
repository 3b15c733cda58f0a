//! The thread that reads, decompresses and verifies a layer as it was sent, while another one
//! digests what comes out and writes its files: that divides the work about evenly.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use hull_model::Digest;

use super::UnpackError;
use crate::compress::{Bound, Decoder};
use crate::hash::{HashReader, Hasher};
use crate::limits::Limits;

/// Size of a chunk. A few of them stay in the caches.
const CHUNK_BYTES: usize = 256 << 10;
/// Most chunks that wait to be unpacked.
const QUEUE: usize = 4;

/// What is known of the whole stream at its end.
pub(super) struct Fed {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Its size.
    pub(super) tar_bytes: u64,
    /// Digest of the stream as sent, if wanted.
    pub(super) packed: Option<Digest>,
}

/// A part of the uncompressed stream. The buffer goes back to the feeder and keeps its length, so
/// that it is never cleared.
#[derive(Default)]
struct Chunk {
    buffer: Vec<u8>,
    len: usize,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Reads until it is full or the stream ends, which an empty rest tells; what came before an
    /// error stays in it.
    fn fill(&mut self, source: &mut impl Read) -> io::Result<()> {
        self.buffer.resize(CHUNK_BYTES, 0);
        self.len = 0;
        while let Some(rest) = self.buffer.get_mut(self.len..).filter(|r| !r.is_empty()) {
            match source.read(rest) {
                Ok(0) => break,
                Ok(n) => self.len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Runs `consume` on the uncompressed stream, and reads what it leaves of it.
pub(super) fn with_feeder<T>(
    source: &mut (dyn Read + Send),
    hash_packed: bool,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
    consume: impl FnOnce(&mut Chunks) -> Result<T, UnpackError>,
) -> Result<(T, Fed), UnpackError> {
    let (to_consumer, chunks) = sync_channel(QUEUE);
    let (give_back, empties) = sync_channel(QUEUE + 2);
    thread::scope(|scope| {
        let feeder = thread::Builder::new()
            .name("layer-feed".into())
            .spawn_scoped(scope, move || {
                let mut source = Progress {
                    inner: source,
                    bytes: 0,
                    report: progress,
                };
                let fed = if hash_packed {
                    let mut hashed = HashReader::new(source);
                    let fed = feed(&mut hashed, limits, &to_consumer, &empties);
                    fed.and_then(|()| Ok(Some(hashed.finish()?.1)))
                } else {
                    feed(&mut source, limits, &to_consumer, &empties).map(|()| None)
                };
                fed.map_err(|e| {
                    // The consumer tells it, with the place where it happened; if it has
                    // stopped by itself, its own error says more.
                    let _ = to_consumer.send(Err(e));
                })
            })
            .map_err(UnpackError::Read)?;
        let mut chunks = Chunks {
            chunks,
            give_back,
            current: Chunk::default(),
            at: 0,
            ended: false,
            hasher: Hasher::default(),
        };
        let consumed = consume(&mut chunks).and_then(|consumed| {
            io::copy(&mut chunks, &mut io::sink()).map_err(UnpackError::Read)?;
            Ok(consumed)
        });
        let Chunks {
            chunks,
            give_back,
            hasher,
            ..
        } = chunks;
        // Without a receiver the feeder ends.
        drop((chunks, give_back));
        let fed = feeder.join();
        let consumed = consumed?;
        match fed {
            Ok(Ok(packed)) => Ok((
                consumed,
                Fed {
                    tar_bytes: hasher.bytes(),
                    diff_id: hasher.finish(),
                    packed,
                },
            )),
            _ => Err(UnpackError::Read(io::Error::other("the stream broke off"))),
        }
    })
}

fn feed(
    source: impl Read,
    limits: &Limits,
    to_consumer: &SyncSender<io::Result<Chunk>>,
    empties: &Receiver<Chunk>,
) -> io::Result<()> {
    let mut decoder = Decoder::new(source, Bound::layer(limits))?;
    loop {
        let mut chunk = empties.try_recv().unwrap_or_default();
        let filled = chunk.fill(&mut decoder);
        let full = chunk.len == CHUNK_BYTES;
        if chunk.len > 0 && to_consumer.send(Ok(chunk)).is_err() {
            return Err(io::Error::other("given up"));
        }
        // What came before the error has been handed on: the consumer may know better.
        filled?;
        if !full {
            return Ok(());
        }
    }
}

/// The consumer's side.
pub(super) struct Chunks {
    chunks: Receiver<io::Result<Chunk>>,
    give_back: SyncSender<Chunk>,
    current: Chunk,
    at: usize,
    ended: bool,
    /// Of all that came.
    hasher: Hasher,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.current.len && !self.ended {
            // Without a receiver on the other side nobody needs the buffer any more.
            let _ = self.give_back.try_send(std::mem::take(&mut self.current));
            self.at = 0;
            match self.chunks.recv() {
                Ok(chunk) => {
                    self.ended = chunk.is_err();
                    self.current = chunk?;
                    self.hasher.update(self.current.bytes());
                }
                // The feeder has sent all.
                Err(_) => self.ended = true,
            }
        }
        Ok(self.current.bytes().get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at = self.at.saturating_add(n).min(self.current.len);
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

/// Reports how much was read.
struct Progress<'a> {
    inner: &'a mut (dyn Read + Send),
    bytes: u64,
    report: &'a (dyn Fn(u64) + Sync),
}

impl Read for Progress<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.bytes += n as u64;
        (self.report)(self.bytes);
        Ok(n)
    }
}
