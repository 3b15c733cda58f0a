//! A tar writer: ustar headers, with PAX records where a value does not fit, as Docker writes.

use std::io::{self, Read, Write};

use super::BLOCK;
use super::entry::{Kind, Mtime};

/// Largest number that eleven octal digits hold.
const MAX_OCTAL_11: u64 = 0o77_777_777_777;
/// Largest number that seven octal digits hold.
const MAX_OCTAL_7: u64 = 0o7_777_777;

/// A member to be written.
#[derive(Debug, Clone)]
pub struct WriteEntry<'a> {
    /// Name; directories get a final slash by themselves.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Target of a link.
    pub link: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Size of the content, for files.
    pub size: u64,
    /// Major number of a device.
    pub major: u32,
    /// Minor number of a device.
    pub minor: u32,
    /// Extended attributes.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> WriteEntry<'a> {
    /// A file or directory owned by root.
    pub fn new(path: &'a [u8], kind: Kind, mode: u32, size: u64) -> Self {
        Self {
            path,
            kind,
            link: b"",
            mode,
            uid: 0,
            gid: 0,
            mtime: Mtime::default(),
            size,
            major: 0,
            minor: 0,
            xattrs: &[],
        }
    }
}

/// Writes members one after another.
pub struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// The stream below, for content that is written by others: exactly the announced size,
    /// followed by [`Self::pad`].
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the header of a member.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn header(&mut self, entry: &WriteEntry<'_>) -> io::Result<()> {
        let mut path = entry.path.to_vec();
        if entry.kind == Kind::Dir && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut pax = Vec::new();
        if path.len() > 100 || !path.is_ascii() {
            record(&mut pax, b"path", &path);
        }
        if entry.link.len() > 100 || !entry.link.is_ascii() {
            record(&mut pax, b"linkpath", entry.link);
        }
        if entry.size > MAX_OCTAL_11 {
            record(&mut pax, b"size", entry.size.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
            if u64::from(id) > MAX_OCTAL_7 {
                record(&mut pax, key, id.to_string().as_bytes());
            }
        }
        let whole = u64::try_from(entry.mtime.secs).ok();
        let plain = whole.filter(|&secs| secs <= MAX_OCTAL_11 && entry.mtime.nanos == 0);
        if plain.is_none() {
            record(&mut pax, b"mtime", pax_time(entry.mtime).as_bytes());
        }
        for (key, value) in entry.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &key[..]].concat(), value);
        }
        if !pax.is_empty() {
            let mut head = WriteEntry::new(b"PaxHeaders.0/x", Kind::Other(b'x'), 0o644, 0);
            head.size = pax.len() as u64;
            self.out.write_all(&block(&head, head.path)?)?;
            self.out.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.out.write_all(&block(entry, &path)?)
    }

    /// Writes a member with its content.
    ///
    /// # Errors
    /// Those of the streams; the content must not be shorter than announced.
    pub fn file(&mut self, entry: &WriteEntry<'_>, content: &mut dyn Read) -> io::Result<()> {
        self.header(entry)?;
        let copied = io::copy(&mut content.take(entry.size), &mut self.out)?;
        if copied != entry.size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "file became shorter while it was read",
            ));
        }
        self.pad(entry.size)
    }

    /// Fills up the last block of a content of `size` bytes.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest > 0 {
            let zeros = [0; BLOCK];
            self.out.write_all(zeros.get(rest..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Writes the end of the archive and gives the stream back.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Appends a PAX record; its length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn pax_time(time: Mtime) -> String {
    let (sign, secs, nanos) = if time.secs < 0 && time.nanos > 0 {
        ("-", -(time.secs + 1), 1_000_000_000 - time.nanos)
    } else if time.secs < 0 {
        ("-", time.secs.saturating_neg(), 0)
    } else {
        ("", time.secs, time.nanos)
    };
    if nanos == 0 {
        format!("{sign}{secs}")
    } else {
        let text = format!("{sign}{secs}.{nanos:09}");
        text.trim_end_matches('0').to_owned()
    }
}

/// A ustar header; what does not fit is cut, since a PAX record stands before it.
fn block(entry: &WriteEntry<'_>, path: &[u8]) -> io::Result<[u8; BLOCK]> {
    let mut block = [0u8; BLOCK];
    put(&mut block, 0, 100, path);
    octal(&mut block, 100, 7, u64::from(entry.mode & 0o7777));
    octal(&mut block, 108, 7, fits(u64::from(entry.uid), MAX_OCTAL_7));
    octal(&mut block, 116, 7, fits(u64::from(entry.gid), MAX_OCTAL_7));
    octal(&mut block, 124, 11, fits(entry.size, MAX_OCTAL_11));
    let secs = u64::try_from(entry.mtime.secs).unwrap_or(0);
    octal(&mut block, 136, 11, fits(secs, MAX_OCTAL_11));
    let flag = match entry.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::Char => b'3',
        Kind::Block => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
        Kind::Other(flag) => flag,
    };
    put(&mut block, 156, 1, &[flag]);
    put(&mut block, 157, 100, entry.link);
    put(&mut block, 257, 8, b"ustar\x0000");
    octal(&mut block, 329, 7, u64::from(entry.major));
    octal(&mut block, 337, 7, u64::from(entry.minor));
    put(&mut block, 148, 8, b"        ");
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block, 148, 6, sum);
    put(&mut block, 154, 2, b"\0 ");
    Ok(block)
}

fn fits(value: u64, max: u64) -> u64 {
    if value > max { 0 } else { value }
}

fn put(block: &mut [u8; BLOCK], at: usize, len: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).take(len).zip(bytes) {
        *to = *from;
    }
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, digits, format!("{value:0digits$o}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{NoTap, TarReader};

    #[test]
    fn written_entry_is_read_back_with_all_its_values() {
        let long = "d/".repeat(80) + "na\u{ef}ve";
        let xattrs = [(b"user.x".to_vec(), vec![0, 255, b'\n'])];
        let mut entry = WriteEntry::new(long.as_bytes(), Kind::File, 0o4755, 5);
        entry.uid = 3_000_000_000;
        entry.mtime = Mtime {
            secs: -5,
            nanos: 250_000_000,
        };
        entry.xattrs = &xattrs;
        let mut out = TarWriter::new(Vec::new());
        out.file(&entry, &mut &b"hello"[..]).unwrap();
        let bytes = out.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..], NoTap);
        let read = reader.next_entry().unwrap().unwrap();
        assert_eq!(read.path, long.as_bytes());
        assert_eq!((read.mode, read.uid, read.size), (0o4755, 3_000_000_000, 5));
        assert_eq!(read.mtime, entry.mtime);
        assert_eq!(read.xattrs, xattrs);
        assert_eq!(reader.read_payload(10).unwrap(), b"hello");
        assert!(reader.next_entry().unwrap().is_none());
    }
}
