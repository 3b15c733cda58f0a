//! Sha256 over streams: readers and writers that digest what passes through them.

use std::io::{self, Read, Write};

use hull_model::Digest;
use sha2::{Digest as _, Sha256};

/// Digests a byte slice.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

/// A running digest with the number of bytes it has seen.
#[derive(Debug, Clone, Default)]
pub struct Hasher {
    state: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes came.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.state.finalize().into())
    }
}

/// Reads through to `inner` and digests what it delivers.
#[derive(Debug)]
pub struct HashReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashReader<R> {
    /// Wraps a reader.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    /// Bytes delivered so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Reads to the end and returns the number of bytes and their digest.
    ///
    /// # Errors
    /// Those of the inner reader.
    pub fn finish(mut self) -> io::Result<(u64, Digest)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.bytes(), self.hasher.finish()))
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}

/// Writes through to `inner` and digests what it accepted.
#[derive(Debug)]
pub struct HashWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
        }
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.hasher.bytes()
    }

    /// Gives back the writer, the number of bytes and their digest.
    pub fn finish(self) -> (W, u64, Digest) {
        (self.inner, self.hasher.bytes(), self.hasher.finish())
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_reader_and_writer_agree_with_the_slice() {
        let data = vec![7u8; 100_000];
        let (n, d) = HashReader::new(&data[..]).finish().unwrap();
        assert_eq!((n, d), (100_000, digest_of(&data)));
        let mut w = HashWriter::new(Vec::new());
        w.write_all(&data).unwrap();
        assert_eq!(w.finish().2, digest_of(&data));
    }
}
