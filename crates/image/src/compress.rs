//! Decompression of foreign streams: plain, gzip (many members) and zstd (many frames), told
//! apart by their first bytes, bounded in size and in ratio.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::{LimitError, Limits};

/// Size of the buffer in front of a decoder.
const INPUT_BUFFER_BYTES: usize = 256 << 10;
/// Largest zstd window accepted, as a power of two: 32 MiB, the most that encoders of images use.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Largest zstd window that any number of streams may have at once: the 8 MiB that every decoder
/// has to accept (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW_LOG_FREE: u32 = 23;
/// Bytes that tell a stream's format and its window.
const PREFIX_BYTES: u64 = 18;

/// Held by the one stream that has a larger window: memory is bounded for all pulls together.
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Which named bound applies to the uncompressed size.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Name for the error text.
    pub name: &'static str,
    /// Most bytes.
    pub bytes: u64,
    /// Largest ratio.
    pub ratio: u64,
    /// Bytes from which the ratio is judged.
    pub grace: u64,
}

impl Bound {
    /// The bound of one layer.
    pub fn layer(limits: &Limits) -> Self {
        Self {
            name: "max_layer_bytes",
            bytes: limits.max_layer_bytes,
            ratio: limits.max_ratio,
            grace: limits.ratio_grace_bytes,
        }
    }

    /// The bound of a whole archive.
    pub fn archive(limits: &Limits) -> Self {
        Self {
            name: "max_archive_bytes",
            bytes: limits.max_archive_bytes,
            ..Self::layer(limits)
        }
    }
}

/// Counts what the decoder takes, so that the ratio can be judged while it works.
struct CountingReader<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// The uncompressed side of a foreign stream.
pub struct Decoder<'a> {
    inner: Box<dyn Read + 'a>,
    compression: Compression,
    bound: Bound,
    packed: Rc<Cell<u64>>,
    plain: u64,
    /// Given back after the decoder has gone.
    _large: Option<MutexGuard<'static, ()>>,
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes of `input` and decodes what they announce.
    ///
    /// # Errors
    /// Those of the input; a stream shorter than a magic number counts as plain.
    pub fn new<R: Read + 'a>(input: R, bound: Bound) -> io::Result<Self> {
        let packed = Rc::new(Cell::new(0));
        let counter = CountingReader {
            inner: input,
            count: packed.clone(),
        };
        let mut buffered = BufReader::with_capacity(INPUT_BUFFER_BYTES, Prefixed::new(counter)?);
        let start = buffered.fill_buf()?;
        let compression = detect(start);
        let large = compression == Compression::Zstd && !has_free_window(start);
        let large = large.then(|| LARGE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner));
        let inner: Box<dyn Read + 'a> = match compression {
            Compression::Plain => Box::new(buffered),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
                decoder.window_log_max(match large {
                    Some(_) => ZSTD_WINDOW_LOG_MAX,
                    None => ZSTD_WINDOW_LOG_FREE,
                })?;
                Box::new(decoder)
            }
        };
        Ok(Self {
            inner,
            compression,
            bound,
            packed,
            plain: 0,
            _large: large,
        })
    }

    /// What the first bytes announced.
    pub fn compression(&self) -> Compression {
        self.compression
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.plain += n as u64;
        if self.plain > self.bound.bytes {
            return Err(io::Error::other(LimitError::Bytes {
                name: self.bound.name,
                limit: self.bound.bytes,
            }));
        }
        let packed = self.packed.get();
        if self.compression != Compression::Plain
            && self.plain > self.bound.grace
            && self.plain / self.bound.ratio.max(1) > packed
        {
            return Err(io::Error::other(LimitError::Ratio {
                plain: self.plain,
                packed,
                limit: self.bound.ratio,
            }));
        }
        Ok(n)
    }
}

/// Tells the compression by the magic number.
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // A skippable frame may lead a zstd stream.
        [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50 => Compression::Zstd,
        _ => Compression::Plain,
    }
}

/// Whether the first frame of a zstd stream is content with [`ZSTD_WINDOW_LOG_FREE`]. Of a stream
/// that begins with anything else nothing is known.
fn has_free_window(start: &[u8]) -> bool {
    let [0x28, 0xb5, 0x2f, 0xfd, descriptor, rest @ ..] = start else {
        return false;
    };
    let single = descriptor & 0x20 != 0;
    if !single {
        let window = rest.first().copied().unwrap_or(u8::MAX);
        let (log, eighths) = (10 + u32::from(window >> 3), window & 7);
        return log < ZSTD_WINDOW_LOG_FREE || (log == ZSTD_WINDOW_LOG_FREE && eighths == 0);
    }
    // The window is the whole content; its size stands behind the number of a dictionary.
    let skip = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied();
    let size = rest.get(skip.unwrap_or(0)..).unwrap_or_default();
    let size = match descriptor >> 6 {
        0 | 1 => 0,
        2 => size.get(..4).map_or(u64::MAX, little_endian),
        _ => size.get(..8).map_or(u64::MAX, little_endian),
    };
    size <= 1 << ZSTD_WINDOW_LOG_FREE
}

fn little_endian(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Makes sure that the first read of a slow stream brings all that tells what it is.
struct Prefixed<R> {
    prefix: Vec<u8>,
    inner: R,
}

impl<R: Read> Prefixed<R> {
    fn new(mut inner: R) -> io::Result<Self> {
        let mut prefix = Vec::new();
        (&mut inner).take(PREFIX_BYTES).read_to_end(&mut prefix)?;
        Ok(Self { prefix, inner })
    }
}

impl<R: Read> Read for Prefixed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return self.inner.read(buf);
        }
        let n = self.prefix.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(self.prefix.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn bound() -> Bound {
        Bound::layer(&Limits::default())
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    fn read_all(data: &[u8], bound: Bound) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::new(data, bound)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn decoder_with_each_format_returns_the_bytes() {
        let mut two = gzip(b"hello ");
        two.extend(gzip(b"world"));
        assert_eq!(read_all(&two, bound()).unwrap(), b"hello world");
        let z = zstd::encode_all(&b"hello"[..], 1).unwrap();
        assert_eq!(read_all(&z, bound()).unwrap(), b"hello");
        assert_eq!(read_all(b"x", bound()).unwrap(), b"x");
        assert_eq!(read_all(b"", bound()).unwrap(), b"");
    }

    #[test]
    fn decoder_with_truncated_gzip_fails() {
        let data = gzip(&vec![9; 100_000]);
        for cut in [5, 12, data.len() / 2, data.len() - 1] {
            assert!(read_all(&data[..cut], bound()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn decoder_with_bomb_names_the_limit() {
        let zeros = vec![0; 4 << 20];
        let tight = Bound {
            grace: 1 << 20,
            ..bound()
        };
        for packed in [gzip(&zeros), zstd::encode_all(&zeros[..], 1).unwrap()] {
            let text = read_all(&packed, tight).map(drop).unwrap_err().to_string();
            assert!(text.contains("max_ratio"), "{text}");
        }
        let small = Bound {
            bytes: 1 << 20,
            ..bound()
        };
        let text = read_all(&zeros, small).map(drop).unwrap_err().to_string();
        assert!(text.contains("max_layer_bytes"), "{text}");
    }

    #[test]
    fn decoder_with_large_windows_takes_turns_and_refuses_more() {
        let pack = |window: u32| {
            let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            e.window_log(window).unwrap();
            // In two parts: of one the encoder knows that it needs no window.
            e.write_all(&[7; 100]).unwrap();
            e.flush().unwrap();
            e.write_all(&[8; 100]).unwrap();
            e.finish().unwrap()
        };
        for (window, free) in [(20, true), (23, true), (24, false), (25, false)] {
            let packed = pack(window);
            assert_eq!(has_free_window(&packed), free, "{window}");
            assert_eq!(read_all(&packed, bound()).unwrap().len(), 200);
        }
        let text = read_all(&pack(26), bound()).unwrap_err().to_string();
        assert!(text.contains("memory"), "{text}");
        // A larger window behind a small one.
        let two = [pack(20), pack(25)].concat();
        assert!(read_all(&two, bound()).is_err());
        assert!(!has_free_window(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]));
    }
}
