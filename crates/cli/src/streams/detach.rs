//! The keys that leave a container running: parsed from `ctrl-p,ctrl-q`, found in the input.

/// Docker's default.
pub(crate) const DEFAULT_KEYS: [u8; 2] = [16, 17];

/// Bytes of a sequence such as `ctrl-p,ctrl-q` or `ctrl-\,a`.
pub(crate) fn parse(keys: &str) -> Result<Vec<u8>, String> {
    keys.split(',')
        .map(|key| {
            let unknown = || format!("invalid detach keys ({keys}): Unknown character: '{key}'");
            if let [byte] = key.as_bytes() {
                return Ok(*byte);
            }
            match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
                Some([b'@']) => Ok(0),
                Some([b'[']) => Ok(27),
                Some([b'\\']) => Ok(28),
                Some([b']']) => Ok(29),
                Some([b'^']) => Ok(30),
                Some([b'_']) => Ok(31),
                _ if key == "DEL" => Ok(127),
                _ => Err(unknown()),
            }
        })
        .collect()
}

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

/// What to do with a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Send these bytes.
    Forward(Vec<u8>),
    /// The keys were typed; send these bytes that came before, then leave.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// For the given bytes; an empty sequence never detaches.
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes a piece of input. Keys that may begin the sequence are held back until the next one decides.
    pub(crate) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(input.len() + self.matched);
        for byte in input {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(out);
                }
                continue;
            }
            out.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
            self.matched = 0;
            if self.keys.first() == Some(byte) {
                self.matched = 1;
                if self.keys.len() == 1 {
                    self.matched = 0;
                    return Typed::Detach(out);
                }
            } else {
                out.push(*byte);
            }
        }
        Typed::Forward(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_names_of_keys() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT_KEYS);
        assert_eq!(parse("a,ctrl-\\,ctrl-_").unwrap(), [b'a', 28, 31]);
        assert!(parse("ctrl-P").is_err());
        assert!(parse("foo").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn feed_finds_the_sequence_across_pieces() {
        let mut keys = DetachKeys::new(DEFAULT_KEYS.to_vec());
        assert_eq!(keys.feed(b"ab\x10"), Typed::Forward(b"ab".to_vec()));
        assert_eq!(keys.feed(b"\x11"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn feed_gives_back_what_was_held() {
        let mut keys = DetachKeys::new(DEFAULT_KEYS.to_vec());
        assert_eq!(keys.feed(b"\x10"), Typed::Forward(Vec::new()));
        assert_eq!(keys.feed(b"x"), Typed::Forward(b"\x10x".to_vec()));
        assert_eq!(keys.feed(b"\x10\x10\x11"), Typed::Detach(b"\x10".to_vec()));
    }
}
