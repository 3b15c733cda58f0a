//! Byte streams between the asynchronous API and the blocking image code.

use std::io::{self, Read, Write};

use tokio::sync::mpsc;

/// Chunks of a stream; an error ends it.
pub type Chunk = io::Result<Vec<u8>>;

/// Chunks under way in one direction: bounds what a fast sender may pile up.
const DEPTH: usize = 8;
/// Bytes collected before a chunk is sent.
const CHUNK: usize = 64 << 10;

/// A channel for chunks.
pub fn channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(DEPTH)
}

/// Reads what a channel brings; to be used on a blocking thread.
#[derive(Debug)]
pub struct ChannelReader {
    receiver: mpsc::Receiver<Chunk>,
    chunk: Vec<u8>,
    offset: usize,
}

impl ChannelReader {
    /// Wraps the receiving end.
    pub fn new(receiver: mpsc::Receiver<Chunk>) -> Self {
        Self {
            receiver,
            chunk: Vec::new(),
            offset: 0,
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.offset >= self.chunk.len() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
            self.offset = 0;
        }
        let rest = self.chunk.get(self.offset..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.offset += n;
        Ok(n)
    }
}

/// Writes into a channel; to be used on a blocking thread. What is collected goes with `flush`.
#[derive(Debug)]
pub struct ChannelWriter {
    sender: mpsc::Sender<Chunk>,
    chunk: Vec<u8>,
}

impl ChannelWriter {
    /// Wraps the sending end.
    pub fn new(sender: mpsc::Sender<Chunk>) -> Self {
        Self {
            sender,
            chunk: Vec::new(),
        }
    }

    /// Ends the stream: with its rest, or with the error that cut it short.
    pub fn finish(mut self, outcome: io::Result<()>) {
        let last = match outcome {
            Ok(()) => self.flush(),
            Err(error) => self.sender.blocking_send(Err(error)).map_err(|_| gone()),
        };
        // A client that went away needs no end.
        drop(last);
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.sender
            .blocking_send(Ok(std::mem::take(&mut self.chunk)))
            .map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_written_are_read_and_an_error_ends_the_stream() {
        let (sender, receiver) = channel();
        let reading = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let outcome = ChannelReader::new(receiver).read_to_end(&mut bytes);
            (bytes.len(), outcome.is_err())
        });
        tokio::task::spawn_blocking(move || {
            let mut writer = ChannelWriter::new(sender);
            writer.write_all(&[7; 200_000]).unwrap();
            writer.flush().unwrap();
            writer.finish(Err(io::Error::other("cut")));
        })
        .await
        .unwrap();
        assert_eq!(reading.await.unwrap(), (200_000, true));
    }
}
