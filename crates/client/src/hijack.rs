//! A connection taken over: raw bytes both ways.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::ClientError;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// Both directions of a taken-over connection.
#[derive(Debug)]
pub struct Hijacked {
    reader: HijackReader,
    writer: OwnedWriteHalf,
}

/// What comes from the engine.
#[derive(Debug)]
pub struct HijackReader {
    early: Bytes,
    half: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Hijacked {
    pub(crate) fn new(stream: UnixStream, early: Bytes) -> Self {
        let (half, writer) = stream.into_split();
        Self {
            reader: HijackReader {
                early,
                half,
                buffer: Vec::new(),
            },
            writer,
        }
    }

    /// The two directions; dropping or shutting down the writer closes the engine's input.
    pub fn split(self) -> (HijackReader, OwnedWriteHalf) {
        (self.reader, self.writer)
    }

    /// Writes all of `bytes`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.writer
            .write_all(bytes)
            .await
            .map_err(|source| ClientError::Io {
                context: "write to the attached stream",
                source,
            })
    }
}

impl HijackReader {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if !self.early.is_empty() {
            return Ok(Some(std::mem::take(&mut self.early)));
        }
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK];
        }
        match self.half.read(&mut self.buffer).await {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(Bytes::copy_from_slice(
                self.buffer.get(..length).unwrap_or_default(),
            ))),
            // The engine's end may go away with the container; that is the stream's end.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(None),
            Err(source) => Err(ClientError::Io {
                context: "read from the attached stream",
                source,
            }),
        }
    }
}
