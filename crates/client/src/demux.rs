//! The multiplexed stream of containers without a terminal: frames of `kind 0 0 0 length(BE) data`.

use bytes::{Buf, Bytes, BytesMut};

use crate::ClientError;

/// Largest frame believed.
const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Bytes of a frame's header.
const HEADER: usize = 8;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard input, written back.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the engine.
    SystemError,
}

/// Takes bytes as they come and gives frames; a frame's data may be given in several pieces.
#[derive(Debug, Default)]
pub struct Demux {
    buffer: BytesMut,
    /// The frame under way and how many of its bytes are still to come.
    current: Option<(StreamKind, usize)>,
}

impl Demux {
    /// A demultiplexer at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece of a frame, where one is there.
    pub fn next_frame(&mut self) -> Result<Option<(StreamKind, Bytes)>, ClientError> {
        loop {
            let (kind, left) = match self.current {
                Some(current) => current,
                None => {
                    let Some(&[kind, _, _, _, a, b, c, d]) = self.buffer.get(..HEADER) else {
                        return Ok(None);
                    };
                    let kind = match kind {
                        0 => StreamKind::Stdin,
                        1 => StreamKind::Stdout,
                        2 => StreamKind::Stderr,
                        3 => StreamKind::SystemError,
                        _ => return Err(ClientError::Stream("unknown kind of frame")),
                    };
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    if length > MAX_FRAME {
                        return Err(ClientError::Stream("frame too large"));
                    }
                    self.buffer.advance(HEADER);
                    (kind, length)
                }
            };
            if left == 0 {
                self.current = None;
                continue;
            }
            self.current = Some((kind, left));
            let length = left.min(self.buffer.len());
            if length == 0 {
                return Ok(None);
            }
            self.current = (left > length).then_some((kind, left - length));
            return Ok(Some((kind, self.buffer.split_to(length).freeze())));
        }
    }

    /// Whether the stream may end here.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty() && self.current.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let mut out = vec![kind, 0, 0, 0];
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        out
    }

    fn all(demux: &mut Demux) -> Vec<(StreamKind, Vec<u8>)> {
        let mut out = Vec::new();
        while let Some((kind, data)) = demux.next_frame().unwrap() {
            out.push((kind, data.to_vec()));
        }
        out
    }

    #[test]
    fn demux_whole_frames_keeps_order_and_kind() {
        let mut demux = Demux::new();
        demux.push(&[frame(1, b"out"), frame(1, b""), frame(2, b"err")].concat());
        assert_eq!(
            all(&mut demux),
            vec![
                (StreamKind::Stdout, b"out".to_vec()),
                (StreamKind::Stderr, b"err".to_vec())
            ]
        );
        assert!(demux.is_at_boundary());
    }

    #[test]
    fn demux_byte_by_byte_gives_all_bytes() {
        let mut demux = Demux::new();
        let mut got = Vec::new();
        for byte in frame(2, b"hello") {
            demux.push(&[byte]);
            for (kind, data) in all(&mut demux) {
                assert_eq!(kind, StreamKind::Stderr);
                got.extend(data);
            }
        }
        assert_eq!(got, b"hello");
        assert!(demux.is_at_boundary());
    }

    #[test]
    fn demux_bad_kind_or_size_is_an_error() {
        let mut demux = Demux::new();
        demux.push(&[9, 0, 0, 0, 0, 0, 0, 1]);
        assert!(demux.next_frame().is_err());
        let mut demux = Demux::new();
        demux.push(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert!(demux.next_frame().is_err());
    }
}
