//! Bytes as they come from a pipe are cut into log lines.
//!
//! As Docker: a line longer than 16 KiB is logged in parts, of which only the last has the
//! newline and all have the time of the first; what has no newline at the end is kept as it is.

/// Longest part of a line that is logged as one record, bytes.
pub(crate) const MAX_PART: usize = 16 << 10;

/// One piece to log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// The bytes, without the newline.
    pub(crate) text: &'a [u8],
    /// A newline followed.
    pub(crate) whole: bool,
    /// When the line began, if parts of it were given out before.
    pub(crate) since_ns: Option<u64>,
}

/// Cuts one stream.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
    parts_since: Option<u64>,
}

impl Lines {
    /// Takes bytes read at `now_ns` and gives out the pieces that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now_ns: u64, mut emit: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let room = MAX_PART - self.rest.len();
            let window = bytes.get(..room).unwrap_or(bytes);
            if let Some(end) = memchr::memchr(b'\n', window) {
                let (text, after) = (&bytes[..end], &bytes[end + 1..]);
                self.give(text, true, &mut emit);
                self.parts_since = None;
                bytes = after;
            } else if window.len() == room {
                self.give(window, false, &mut emit);
                self.parts_since.get_or_insert(now_ns);
                bytes = &bytes[room..];
            } else {
                self.rest.extend_from_slice(window);
                return;
            }
        }
    }

    /// The stream ended: gives out what had no newline.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(Piece<'_>)) {
        if !self.rest.is_empty() {
            self.give(&[], false, &mut emit);
        }
        self.rest = Vec::new();
        self.parts_since = None;
    }

    fn give(&mut self, text: &[u8], whole: bool, emit: &mut impl FnMut(Piece<'_>)) {
        let since_ns = self.parts_since;
        if self.rest.is_empty() {
            emit(Piece {
                text,
                whole,
                since_ns,
            });
        } else {
            self.rest.extend_from_slice(text);
            emit(Piece {
                text: &self.rest,
                whole,
                since_ns,
            });
            self.rest.clear();
            // A stream that is quiet for long must not keep the memory of one long line.
            self.rest.shrink_to(1 << 10);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(Vec<u8>, bool, Option<u64>)> {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            lines.push(chunk, at as u64, |piece| {
                got.push((piece.text.to_vec(), piece.whole, piece.since_ns))
            });
        }
        lines.finish(|piece| got.push((piece.text.to_vec(), piece.whole, piece.since_ns)));
        got
    }

    #[test]
    fn push_split_anywhere_gives_the_same_lines() {
        let text = b"one\n\ntwo\nrest";
        let expected = cut(&[text]);
        assert_eq!(expected.len(), 4);
        assert_eq!(expected[3], (b"rest".to_vec(), false, None));
        for at in 0..=text.len() {
            assert_eq!(cut(&[&text[..at], &text[at..]]), expected);
        }
    }

    #[test]
    fn push_long_line_is_cut_at_the_limit() {
        let mut text = vec![b'a'; 2 * MAX_PART + 5];
        text.push(b'\n');
        text.extend_from_slice(b"b\n");
        let got = cut(&[&text[..10], &text[10..]]);
        let shape: Vec<_> = got
            .iter()
            .map(|(text, whole, since)| (text.len(), *whole, *since))
            .collect();
        assert_eq!(
            shape,
            [
                (MAX_PART, false, None),
                (MAX_PART, false, Some(1)),
                (5, true, Some(1)),
                (1, true, None)
            ]
        );
    }

    #[test]
    fn push_line_of_exactly_the_limit_ends_with_empty_part() {
        let mut text = vec![b'a'; MAX_PART];
        text.push(b'\n');
        let got = cut(&[&text]);
        assert_eq!(got.len(), 2);
        assert_eq!(got[1], (Vec::new(), true, Some(0)));
    }
}
