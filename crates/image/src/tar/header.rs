//! The fields of a 512-byte header block.

use super::entry::Kind;
use super::{BLOCK, TarError};

/// Offset and length of each data fragment.
pub(super) type Fragments = Vec<(u64, u64)>;

/// A header block whose checksum was right.
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    offset: u64,
}

impl<'a> Header<'a> {
    /// Checks the checksum, both in the standard and in the signed form of old tars.
    pub(super) fn parse(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, TarError> {
        let header = Self { block, offset };
        let stored = parse_number(header.field(148, 8)).unwrap_or(-1);
        let range_sum = |range: std::ops::Range<usize>, value: fn(u8) -> i64| -> i64 {
            let bytes = block.get(range).unwrap_or_default();
            bytes.iter().map(|&byte| value(byte)).sum()
        };
        // The checksum field itself counts as eight spaces.
        let sum = |value| range_sum(0..148, value) + 8 * 32 + range_sum(156..BLOCK, value);
        if stored == sum(i64::from) || stored == sum(|byte| i64::from(byte.cast_signed())) {
            Ok(header)
        } else {
            Err(TarError::Checksum { offset })
        }
    }

    fn field(&self, at: usize, len: usize) -> &'a [u8] {
        self.block.get(at..at + len).unwrap_or_default()
    }

    /// A field up to its first zero byte.
    fn text(&self, at: usize, len: usize) -> &'a [u8] {
        until_zero(self.field(at, len))
    }

    fn number(&self, at: usize, len: usize, what: &'static str) -> Result<i64, TarError> {
        parse_number(self.field(at, len)).ok_or(TarError::Header {
            offset: self.offset,
            what,
        })
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or(0)
    }

    /// True for `ustar` followed by zero and `00`; the GNU magic has spaces there.
    fn is_ustar(&self) -> bool {
        self.field(257, 6) == b"ustar\0"
    }

    /// Name with the ustar prefix put in front.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix: &[u8] = if self.is_ustar() {
            self.text(345, 155)
        } else {
            b""
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        let mode = self.number(100, 8, "mode")?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<u32, TarError> {
        self.unsigned(108, 8, "uid")
    }

    pub(super) fn gid(&self) -> Result<u32, TarError> {
        self.unsigned(116, 8, "gid")
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(136, 12, "mtime")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        let size = self.number(124, 12, "size")?;
        u64::try_from(size).map_err(|_| TarError::Header {
            offset: self.offset,
            what: "negative size",
        })
    }

    pub(super) fn major(&self) -> Result<u32, TarError> {
        self.unsigned(329, 8, "device major")
    }

    pub(super) fn minor(&self) -> Result<u32, TarError> {
        self.unsigned(337, 8, "device minor")
    }

    fn unsigned(&self, at: usize, len: usize, what: &'static str) -> Result<u32, TarError> {
        u32::try_from(self.number(at, len, what)?).map_err(|_| TarError::Header {
            offset: self.offset,
            what,
        })
    }

    /// Kind by type flag; the oldest tars mark a directory by a final slash only.
    pub(super) fn kind(&self, path: &[u8]) -> Kind {
        match self.type_flag() {
            0 | b'0' if path.ends_with(b"/") => Kind::Dir,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        }
    }

    /// The four fragments that an old GNU sparse header holds, whether more blocks follow, and
    /// the size with holes.
    pub(super) fn gnu_sparse(&self) -> Result<(Fragments, bool, u64), TarError> {
        let fragments = gnu_fragments(self.field(386, 96), self.offset)?;
        let extended = self.field(482, 1).first().is_some_and(|&b| b != 0);
        let real = u64::try_from(self.number(483, 12, "sparse size")?).unwrap_or(u64::MAX);
        Ok((fragments, extended, real))
    }
}

/// Reads the 24-byte fragment descriptors of old GNU sparse blocks until an empty one.
pub(super) fn gnu_fragments(bytes: &[u8], offset: u64) -> Result<Fragments, TarError> {
    let wrong = TarError::Header {
        offset,
        what: "sparse map",
    };
    let mut fragments = Vec::new();
    for pair in bytes.chunks_exact(24) {
        let (at, len) = pair.split_at(12);
        if at.first() == Some(&0) {
            break;
        }
        match (parse_number(at), parse_number(len)) {
            (Some(at), Some(len)) if at >= 0 && len >= 0 => {
                fragments.push((at.cast_unsigned(), len.cast_unsigned()));
            }
            _ => return Err(wrong),
        }
    }
    Ok(fragments)
}

/// The part before the first zero byte.
pub(super) fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// Octal text, or GNU's base-256 with the top bit set.
fn parse_number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement over the whole field, its first bit being the marker.
        let lead = i64::from(first & 0x7f) | if first & 0x40 != 0 { !0x7f } else { 0 };
        let mut value = lead;
        for &byte in rest {
            if !(i64::MIN >> 8..=i64::MAX >> 8).contains(&value) {
                return None;
            }
            value = (value << 8) | i64::from(byte);
        }
        return Some(value);
    }
    let text = until_zero(field);
    let text = text.trim_ascii();
    let mut value = 0i64;
    for &byte in text {
        if !(b'0'..=b'7').contains(&byte) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_in_octal_or_base_256_is_read() {
        assert_eq!(parse_number(b"0000644\0"), Some(0o644));
        assert_eq!(parse_number(b"   644 \0"), Some(0o644));
        assert_eq!(parse_number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(parse_number(&[0x80, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 24));
        assert_eq!(parse_number(&[0xff; 12]), Some(-1));
        assert_eq!(parse_number(&[0xff, 0xff, 0xff, 0xfe]), Some(-2));
        let mut huge = [0x80u8; 12];
        huge[1] = 0x7f;
        assert_eq!(parse_number(&huge), None);
        assert_eq!(parse_number(b"12x4\0"), None);
    }
}
