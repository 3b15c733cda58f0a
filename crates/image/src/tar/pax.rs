//! PAX extended headers: `LENGTH KEY=VALUE\n` records.

use super::entry::Mtime;
use super::sparse::PaxSparse;
use crate::limits::MAX_XATTRS;

/// What the records of one extended header change.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

impl Pax {
    /// Applies all records of a payload; says what is wrong with the first bad one.
    pub(super) fn apply(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() && bytes != b"\0" {
            let (record, rest) = split_record(bytes).ok_or("PAX record length")?;
            bytes = rest;
            let at = record
                .iter()
                .position(|&b| b == b'=')
                .ok_or("PAX record without =")?;
            let (key, value) = record.split_at(at);
            self.record(key, value.get(1..).unwrap_or_default())?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = Some(decimal(value).ok_or("PAX size")?),
            b"uid" => self.uid = Some(id(value).ok_or("PAX uid")?),
            b"gid" => self.gid = Some(id(value).ok_or("PAX gid")?),
            b"mtime" => self.mtime = Some(parse_time(value).ok_or("PAX mtime")?),
            _ => {
                if let Some(attribute) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != attribute);
                    if self.xattrs.len() >= MAX_XATTRS {
                        return Err("more than MAX_XATTRS extended attributes");
                    }
                    // An empty value takes the record back, as in pax(1) and Go.
                    if !value.is_empty() {
                        self.xattrs.push((attribute.to_vec(), value.to_vec()));
                    }
                } else if let Some(sparse) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(sparse, value)?;
                }
            }
        }
        Ok(())
    }
}

/// An empty value takes the record back; a zero byte cannot be part of a name.
fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("PAX name with a zero byte");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Splits the first record off: the number counts itself, the space and the newline.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|&b| b == b' ')?;
    let len = usize::try_from(decimal(bytes.get(..space)?)?).ok()?;
    let record = bytes.get(space + 1..len)?;
    Some((record.strip_suffix(b"\n")?, bytes.get(len..)?))
}

/// A decimal number without sign.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn id(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|n| u32::try_from(n).ok())
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
fn parse_time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    let mut nanos = 0u32;
    for at in 0..9 {
        let digit = match fraction.get(at) {
            Some(b) if b.is_ascii_digit() => u32::from(b - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanos = nanos * 10 + digit;
    }
    Some(match (negative, nanos) {
        (false, _) => Mtime { secs: whole, nanos },
        (true, 0) => Mtime {
            secs: -whole,
            nanos: 0,
        },
        (true, _) => Mtime {
            secs: -whole - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records_are_applied() {
        let mut pax = Pax::default();
        pax.apply(b"12 path=a/b\n15 mtime=-1.25\n27 SCHILY.xattr.user.x=a\nb\n")
            .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(
            pax.mtime,
            Some(Mtime {
                secs: -2,
                nanos: 750_000_000
            })
        );
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a\nb".to_vec())]);
    }

    #[test]
    fn pax_with_bad_length_is_refused() {
        for bad in [
            &b"99 path=a\n"[..],
            b"0 \n",
            b"5 a=b",
            b"x path=a\n",
            b"99999999999999999999999 a=b\n",
            b"6 abc\n",
            b"3 path=a\n",
        ] {
            assert!(Pax::default().apply(bad).is_err(), "{bad:?}");
        }
    }
}
