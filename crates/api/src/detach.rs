//! The key sequence that ends an attachment and leaves the process running.
use crate::error::{ApiError, ApiResult};

/// What is taken where the client names none: ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];
/// Longest sequence accepted.
const MAX_KEYS: usize = 32;

/// Watches input for the sequence. What may be its beginning is held back until it is decided.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl DetachKeys {
    /// Reads `a`, `ctrl-p,ctrl-q` and the like; "" is the default.
    pub(crate) fn parse(text: &str) -> ApiResult<Self> {
        let wrong = || ApiError::bad_request(format!("invalid detach keys ({text}) provided"));
        let keys = if text.is_empty() {
            DEFAULT.to_vec()
        } else {
            let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
            keys.ok_or_else(wrong)?
        };
        if keys.len() > MAX_KEYS {
            return Err(wrong());
        }
        Ok(Self { keys, seen: 0 })
    }

    /// Puts what may pass into `out`; true when the sequence was typed.
    pub(crate) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        for &byte in input {
            if self.keys.get(self.seen) != Some(&byte) {
                // The keys held back were ordinary input; this one may begin anew.
                out.extend(self.keys.iter().take(self.seen));
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(&byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return true;
                }
            } else {
                out.push(byte);
            }
        }
        false
    }
}

fn key(text: &str) -> Option<u8> {
    if let Some(name) = text.strip_prefix("ctrl-") {
        let &[letter] = name.as_bytes() else {
            return None;
        };
        return match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        };
    }
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        b"DEL" => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, inputs: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut out = Vec::new();
        let gone = inputs.iter().any(|input| keys.pass(input, &mut out));
        (out, gone)
    }

    #[test]
    fn sequence_split_over_reads_detaches() {
        assert_eq!(
            run("", &[b"ls\n\x10", b"\x11rest"]),
            (b"ls\n".to_vec(), true)
        );
        assert_eq!(run("ctrl-a,d", &[b"x\x01d"]), (b"x".to_vec(), true));
    }

    #[test]
    fn broken_off_sequence_is_passed_on() {
        assert_eq!(
            run("", &[b"\x10", b"a\x11"]),
            (b"\x10a\x11".to_vec(), false)
        );
        assert_eq!(run("", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for bad in ["ctrl-", "ctrl-1", "ab", ",", "ctrl-ab", "é"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
        assert!(DetachKeys::parse(&["a"; 40].join(",")).is_err());
    }
}
