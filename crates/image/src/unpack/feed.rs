//! The thread that reads, decompresses and digests a layer while another one writes its files.

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

/// What the feeder learned about the whole stream.
pub(super) struct Fed {
    /// Digest of the uncompressed tar.
    pub(super) diff_id: Digest,
    /// Its size.
    pub(super) tar_bytes: u64,
    /// Digest of the stream as sent, if wanted.
    pub(super) packed: Option<Digest>,
}

/// Runs `consume` on the uncompressed stream. It must read the stream to its end.
pub(super) fn with_feeder<T>(
    source: &mut (dyn Read + Send),
    hash_packed: bool,
    limits: &Limits,
    progress: &(dyn Fn(u64) + Sync),
    consume: impl FnOnce(Chunks) -> Result<T, UnpackError>,
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
                    fed.and_then(|fed| {
                        let (_, digest) = hashed.finish()?;
                        Ok(Fed {
                            packed: Some(digest),
                            ..fed
                        })
                    })
                } else {
                    feed(&mut source, limits, &to_consumer, &empties)
                };
                match fed {
                    Ok(fed) => Some(fed),
                    Err(e) => {
                        // The consumer tells it, with the place where it happened; if it has
                        // stopped by itself, its own error says more.
                        let _ = to_consumer.send(Err(e));
                        None
                    }
                }
            })
            .map_err(UnpackError::Read)?;
        let consumed = consume(Chunks {
            chunks,
            give_back,
            current: Vec::new(),
            at: 0,
            ended: false,
        });
        let fed = feeder.join();
        let consumed = consumed?;
        match fed {
            Ok(Some(fed)) => Ok((consumed, fed)),
            _ => Err(UnpackError::Read(io::Error::other("the stream broke off"))),
        }
    })
}

fn feed(
    source: impl Read,
    limits: &Limits,
    to_consumer: &SyncSender<io::Result<Vec<u8>>>,
    empties: &Receiver<Vec<u8>>,
) -> io::Result<Fed> {
    let mut decoder = Decoder::new(source, Bound::layer(limits))?;
    let mut hasher = Hasher::default();
    loop {
        let mut chunk = empties
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(CHUNK_BYTES));
        chunk.clear();
        let limit = CHUNK_BYTES as u64;
        let read = (&mut decoder).take(limit).read_to_end(&mut chunk);
        hasher.update(&chunk);
        let full = chunk.len() == CHUNK_BYTES;
        if !chunk.is_empty() && to_consumer.send(Ok(chunk)).is_err() {
            return Err(io::Error::other("given up"));
        }
        // What came before the error has been handed on: the consumer may know better.
        read?;
        if !full {
            return Ok(Fed {
                tar_bytes: hasher.bytes(),
                diff_id: hasher.finish(),
                packed: None,
            });
        }
    }
}

/// The consumer's side.
pub(super) struct Chunks {
    chunks: Receiver<io::Result<Vec<u8>>>,
    give_back: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.current.len() && !self.ended {
            // Without a receiver on the other side nobody needs the buffer any more.
            let _ = self.give_back.try_send(std::mem::take(&mut self.current));
            self.at = 0;
            match self.chunks.recv() {
                Ok(chunk) => {
                    self.ended = chunk.is_err();
                    self.current = chunk?;
                }
                // The feeder has sent all.
                Err(_) => self.ended = true,
            }
        }
        Ok(self.current.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.at = self.at.saturating_add(n).min(self.current.len());
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
