//! A blob as a stream: fetched by a task, read by a thread, resumed where a connection breaks.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::client::{Intent, Repository};
use crate::link::{Link, back_off};
use crate::{Descriptor, RegistryError};

/// Most bytes that wait for the reader.
const QUEUE_BYTES: u32 = 2 << 20;
/// Breaks in a row, each with less than [`PROGRESS`] gained, after which it is given up.
const MAX_BREAKS: u32 = 6;
/// Bytes that make a connection worth having been.
const PROGRESS: u64 = 64 << 10;

/// Bytes, and the room that they take in the queue.
type Chunk = (Bytes, OwnedSemaphorePermit);

/// Reads a blob. Dropping it ends the fetching.
#[derive(Debug)]
pub struct BlobReader {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, RegistryError>>,
    current: Bytes,
    task: tokio::task::AbortHandle,
    ended: bool,
}

impl BlobReader {
    /// Begins to fetch. To be called within a runtime.
    pub(crate) fn start(repository: Repository, descriptor: &Descriptor) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        let fetch = Fetch {
            what: format!("blob {} of {}", descriptor.digest, repository.name()),
            repository,
            digest: descriptor.digest.to_string(),
            size: descriptor.size,
            done: 0,
            sender,
            room: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
        };
        let task = tokio::spawn(fetch.run()).abort_handle();
        Self {
            chunks,
            current: Bytes::new(),
            task,
            ended: false,
        }
    }
}

impl Read for BlobReader {
    /// Blocks: not to be called by a task.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok((chunk, _room))) => self.current = chunk,
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(io::Error::other(error));
                }
                None => self.ended = true,
            }
        }
        let count = buffer.len().min(self.current.len());
        let chunk = self.current.split_to(count);
        if let Some(space) = buffer.get_mut(..count) {
            space.copy_from_slice(&chunk);
        }
        Ok(count)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Fetch {
    repository: Repository,
    what: String,
    digest: String,
    size: u64,
    done: u64,
    sender: mpsc::UnboundedSender<Result<Chunk, RegistryError>>,
    room: Arc<Semaphore>,
}

/// How a connection ended.
enum End {
    /// All is there, or the reader went away.
    Done,
    /// Worth another one.
    Broken(RegistryError),
    /// Not worth it.
    Failed(RegistryError),
}

impl Fetch {
    async fn run(mut self) {
        let mut breaks = 0;
        loop {
            let before = self.done;
            let error = match self.once().await {
                End::Done => return,
                End::Failed(error) => error,
                End::Broken(error) => {
                    breaks = if self.done - before >= PROGRESS {
                        0
                    } else {
                        breaks + 1
                    };
                    if breaks < MAX_BREAKS {
                        tracing::debug!(%error, done = self.done, "a download goes on");
                        tokio::time::sleep(back_off(breaks.max(1))).await;
                        continue;
                    }
                    error
                }
            };
            // A reader that went away has no need of it.
            let _ = self.sender.send(Err(error));
            return;
        }
    }

    async fn once(&mut self) -> End {
        let path = format!("blobs/{}", self.digest);
        let from = self.done;
        let with = |request: reqwest::RequestBuilder| {
            // The bytes as they are stored: their digest is that of the compressed form.
            let request = request.header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request.header(RANGE, format!("bytes={from}-"))
            } else {
                request
            }
        };
        let asked = self
            .repository
            .ask(Intent::Pull, Method::GET, &path, &self.what, with)
            .await;
        let (link, answer) = match asked {
            Ok(asked) => asked,
            Err(error @ RegistryError::Unreachable { .. }) => return End::Broken(error),
            Err(error) => return End::Failed(error),
        };
        let skip = match self.offset(&answer) {
            Ok(at) => from - at,
            Err(error) => return End::Failed(error),
        };
        self.stream(&link, answer, skip).await
    }

    /// Where in the blob the answer begins. Its length is checked before a byte is taken.
    fn offset(&self, answer: &Response) -> Result<u64, RegistryError> {
        let wrong = |found| RegistryError::Length {
            what: self.what.clone(),
            expected: self.size,
            found,
        };
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            // The range was not heard: from the beginning, and what is there is passed over.
            return match answer.content_length() {
                Some(length) if length != self.size => Err(wrong(length)),
                _ => Ok(0),
            };
        }
        let range = answer.headers().get(CONTENT_RANGE);
        let range = range.and_then(|value| value.to_str().ok());
        let (begin, total) =
            range
                .and_then(content_range)
                .ok_or_else(|| RegistryError::Malformed {
                    what: self.what.clone(),
                    why: format!("Content-Range {range:?}"),
                })?;
        match total {
            Some(total) if total != self.size => Err(wrong(total)),
            _ if begin > self.done => Err(RegistryError::Malformed {
                what: self.what.clone(),
                why: format!("it goes on at {begin} instead of {}", self.done),
            }),
            _ => Ok(begin),
        }
    }

    async fn stream(&mut self, link: &Link, mut answer: Response, mut skip: u64) -> End {
        let mut answer = link.watch(&mut answer);
        loop {
            let chunk = match answer.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if self.done == self.size => return End::Done,
                Ok(None) => return End::Broken(self.broken("it ended too early")),
                Err(why) => return End::Broken(self.broken(&why)),
            };
            let passed = skip.min(chunk.len() as u64);
            skip -= passed;
            let chunk = chunk.slice(usize::try_from(passed).unwrap_or(chunk.len())..);
            if chunk.is_empty() {
                continue;
            }
            self.done += chunk.len() as u64;
            if self.done > self.size {
                return End::Failed(RegistryError::Length {
                    what: self.what.clone(),
                    expected: self.size,
                    found: self.done,
                });
            }
            let waiting = Instant::now();
            let wanted = u32::try_from(chunk.len()).map_or(QUEUE_BYTES, |n| n.min(QUEUE_BYTES));
            let Ok(room) = Arc::clone(&self.room).acquire_many_owned(wanted).await else {
                return End::Done;
            };
            if self.sender.send(Ok((chunk, room))).is_err() {
                return End::Done;
            }
            answer.forgive(waiting.elapsed());
        }
    }

    fn broken(&self, why: &str) -> RegistryError {
        RegistryError::Unreachable {
            host: self.repository.domain.clone(),
            why: format!(
                "the download of {} broke off after {} of {} bytes: {why}",
                self.what, self.done, self.size
            ),
        }
    }
}

/// `bytes BEGIN-END/TOTAL`, the total perhaps `*`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (begin, _) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        number => Some(number.parse().ok()?),
    };
    Some((begin.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_reads_known_and_unknown_totals() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "items 1-2/3", "bytes 1-2/x"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
